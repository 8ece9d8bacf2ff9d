"""Where records are kept: SQLite for all workers of one host, memory for tests.

A store knows nothing of sessions. It keeps small texts under keys, each until a time, some of them
with an owner. All times are Unix seconds. Every method raises
:class:`~flask_devkit_sso.errors.StoreUnavailable` when the store cannot do its work now.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from .errors import StoreUnavailable

SCHEMA_VERSION: Final = 1
"""SQLite's ``user_version``; a file of another version is not touched."""


@dataclass(frozen=True)
class Row:
    """One record: ``data`` as it was written, ``used`` when it was last touched."""

    data: str
    used: float


class Store(Protocol):
    """The door between sessions and what keeps them."""

    def add(self, key: str, data: str, *, expires: float, owner: str | None = None) -> bool:
        """Write a new record, which counts as used now. False, and no change, if there is one."""

    def read(self, key: str) -> Row | None:
        """Return a record that has not expired."""

    def update(self, key: str, data: str, *, expected: str) -> bool:
        """Replace the data of a record, where it is ``expected`` (still)."""

    def touch(self, key: str, *, used: float, expires: float) -> None:
        """Note a use; nothing happens if there is no such record (any more)."""

    def remove(self, key: str, *, data: str | None = None) -> str | None:
        """Remove a record and return its data: of several callers, one gets it.

        :param data: remove it only where this is what it holds.
        """

    def remove_owner(self, owner: str) -> list[str]:
        """Remove all records of an owner and return their data."""


class SQLiteStore:
    """A SQLite file in WAL mode, for threads, processes and forks.

    :param path: the file; it is made with mode 0600 at the first use, its folder with 0700.
    """

    _CLEAN_UP: Final = 20
    """Expired records that an :meth:`add` removes: more than it adds, and a bounded work."""

    _BUSY: Final = 1.5
    """Seconds to wait for another writer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Idle connections by process. Those of a parent stay here, unused and unclosed: closing
        # one in a child would reach into the parent's file.
        self._idle: dict[int, deque[sqlite3.Connection]] = {}

    def add(self, key: str, data: str, *, expires: float, owner: str | None = None) -> bool:
        now = time.time()
        with self._connection() as connection:
            connection.execute(
                "DELETE FROM record WHERE key IN"
                " (SELECT key FROM record WHERE expires <= ? LIMIT ?)",
                (now, self._CLEAN_UP),
            )
            cursor = connection.execute(
                "INSERT INTO record (key, owner, data, used, expires) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (key) DO UPDATE SET owner = excluded.owner, data = excluded.data,"
                " used = excluded.used, expires = excluded.expires WHERE expires <= excluded.used",
                (key, owner, data, now, expires),
            )
            return cursor.rowcount == 1

    def read(self, key: str) -> Row | None:
        with self._connection() as connection:
            found = connection.execute(
                "SELECT data, used FROM record WHERE key = ? AND expires > ?", (key, time.time())
            ).fetchone()
        return Row(*found) if found else None

    def update(self, key: str, data: str, *, expected: str) -> bool:
        with self._connection() as connection:
            cursor = connection.execute(
                "UPDATE record SET data = ? WHERE key = ? AND data = ?", (data, key, expected)
            )
            return cursor.rowcount == 1

    def touch(self, key: str, *, used: float, expires: float) -> None:
        with self._connection() as connection:
            connection.execute(
                "UPDATE record SET used = ?, expires = ? WHERE key = ?", (used, expires, key)
            )

    def remove(self, key: str, *, data: str | None = None) -> str | None:
        with self._connection() as connection:
            rows = connection.execute(
                "DELETE FROM record WHERE key = ? AND data = ifnull(?, data) RETURNING data",
                (key, data),
            ).fetchall()
        return rows[0][0] if rows else None

    def remove_owner(self, owner: str) -> list[str]:
        with self._connection() as connection:
            rows = connection.execute(
                "DELETE FROM record WHERE owner = ? RETURNING data", (owner,)
            ).fetchall()
        return [row[0] for row in rows]

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        idle = self._idle.setdefault(os.getpid(), deque())
        try:
            connection = idle.pop() if idle else self._open()
            try:
                yield connection
            except sqlite3.Error:
                connection.close()
                raise
            idle.append(connection)
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(
                f"The session store {self._path} cannot be used: {error}"
            ) from error

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            # SQLite gives the WAL files the mode of the database's.
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        connection = sqlite3.connect(
            self._path, timeout=self._BUSY, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                connection.executescript(_SCHEMA)
            elif version != SCHEMA_VERSION:
                raise sqlite3.DatabaseError(f"written by another version (schema {version})")
        except BaseException:
            connection.close()
            raise
        return connection


_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS record (
    key TEXT PRIMARY KEY,
    owner TEXT,
    data TEXT NOT NULL,
    used REAL NOT NULL,
    expires REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS record_owner ON record (owner) WHERE owner IS NOT NULL;
CREATE INDEX IF NOT EXISTS record_expires ON record (expires);
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""


class MemoryStore(SQLiteStore):
    """The same in memory, for tests: gone with the process, and not shared with others."""

    def __init__(self) -> None:
        super().__init__(Path(":memory:"))
        self._lock = threading.Lock()
        self._only: sqlite3.Connection | None = None

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._only is None:
                self._only = sqlite3.connect(
                    ":memory:", isolation_level=None, check_same_thread=False
                )
                self._only.executescript(_SCHEMA)
            yield self._only


def open_store(url: str, folder: str) -> Store:
    """Return the store of a ``DEVKIT_SSO_STORE_URL``; nothing is opened before its first use.

    :param folder: the instance folder, below which a relative path is.
    """
    if url == "memory://":
        return MemoryStore()
    return SQLiteStore(Path(folder, url.removeprefix("sqlite:///")))
