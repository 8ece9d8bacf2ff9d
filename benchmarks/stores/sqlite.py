"""SQLite files with sessions."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from ..apps import Site, devkit_sso
from . import HOARDER, TEMPLATE, Filled, copy, create_template, new_keys, one_of_many


class SQLite:
    """A :class:`~benchmarks.stores.Backend`, whose stores are files."""

    name = "SQLite"

    def __init__(self, site: Site) -> None:
        self._site = site
        create_template(devkit_sso.on_sqlite(site, "template.db"))

    def fill(self, count: int, hoarded: int = 0) -> Filled:
        file = self._site.folder / f"{count}.db"
        with _fast(self._site.folder / "template.db") as connection:
            connection.execute("VACUUM INTO ?", (str(file),))
        keys = _fill(file, count, one_of_many)
        size = file.stat().st_size / count
        _fill(file, hoarded, lambda number: HOARDER)
        return Filled(devkit_sso.on_sqlite(self._site, file.name), keys, size)

    def expire(self, filled: Filled, count: int) -> Filled:
        then = time.time() - 60
        with _fast(self._file(filled)) as connection:
            with connection:
                connection.executemany(
                    "UPDATE record SET expires = ? WHERE key = ?",
                    ((then, key) for key in filled.keys[:count]),
                )
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return replace(filled, keys=filled.keys[count:])

    def expired(self, filled: Filled) -> int:
        with _fast(self._file(filled)) as connection:
            query = "SELECT count(*) FROM record WHERE expires <= ?"
            count: int = connection.execute(query, (time.time(),)).fetchone()[0]
        return count

    def residue(self, filled: Filled) -> dict[str, str]:
        file = self._file(filled)
        wal = file.with_name(f"{file.name}-wal").stat().st_size
        return {
            "expired records left after the last logins": f"{self.expired(filled):,}",
            "WAL file": f"{wal / 1e6:.1f} MB",
        }

    def cpu(self) -> float:
        return 0

    def _file(self, filled: Filled) -> Path:
        url: str = filled.app.config["DEVKIT_SSO_STORE_URL"]
        return self._site.folder / url.removeprefix("sqlite:///")


def _fill(file: Path, count: int, uid: Callable[[int], str]) -> list[str]:
    """Write sessions into a file that nobody uses yet, and return their keys."""
    with _fast(file) as connection, connection:
        connection.row_factory = sqlite3.Row
        query = "SELECT * FROM record WHERE key LIKE '%:session:%' AND owner LIKE ?"
        template = dict(connection.execute(query, (f"%:{TEMPLATE}",)).fetchone())
        keys = new_keys(template["key"], count)
        columns, places = ", ".join(template), ", ".join(f":{name}" for name in template)
        connection.executemany(
            f"INSERT INTO record ({columns}) VALUES ({places})",  # noqa: S608
            (copy(template, uid(number)) | {"key": key} for number, key in enumerate(keys)),
        )
    return keys


@contextmanager
def _fast(file: Path) -> Iterator[sqlite3.Connection]:
    """Open a file for much work, which need not survive a power failure."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA cache_size = -4000000")
        connection.execute("PRAGMA synchronous = OFF")
        yield connection
