"""Stores in SQLite, for the workers of one host, and in memory, for tests."""

from __future__ import annotations

import math
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from ..errors import StoreUnavailable
from ..per_process import PerProcess
from .base import Bulkheads, Row
from .sqlite_file import SQLiteFile
from .sqlite_schema import UnusableFile, create_schema, explain
from .sqlite_upkeep import DELETE_EXPIRED, SQLiteUpkeep
from .sqlite_writer import POLL, Connection, Writer, Written, execute

_FAILURES: Final = (sqlite3.Error, OSError, UnusableFile)


class SQLiteStore:
    """A :class:`~flask_devkit_sso.store.base.Store` in a SQLite file in WAL mode.

    Threads, processes and forks may share it.

    :param path: the file. It is created with mode 0600 at the first use, its folder with 0700.
    """

    _BATCH: Final = 100
    """Maximum number of records that one transaction removes for an owner."""

    _PAGE: Final = 1000
    """Maximum number of records that one statement reads."""

    _LOOK_EVERY: Final = 0.5
    """Maximum number of seconds after which a read notices that the file was replaced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # A forked child must not close its parent's connections to the same file. The function does
        # not refer to the store: in a cycle, connections would stay open until it is collected.
        self._process = PerProcess(lambda: _Process(path))

    def add(self, key: str, data: str, *, expires: float, owner: str | None = None) -> bool:
        count, _ = self._write(
            "INSERT INTO record (key, owner, data, used, expires) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (key) DO UPDATE SET owner = excluded.owner, data = excluded.data,"
            " used = excluded.used, expires = excluded.expires WHERE expires <= excluded.used",
            key,
            owner,
            data,
            time.time(),
            expires,
        )
        return count == 1

    def read(self, key: str) -> Row | None:
        rows = self._query(
            "SELECT data, used FROM record WHERE key = ? AND expires > ?", key, time.time()
        )
        return Row(*rows[0]) if rows else None

    def update(self, key: str, data: str, *, expected: str | None = None) -> bool:
        count, _ = self._write(
            "UPDATE record SET data = ? WHERE key = ? AND expires > ? AND data = coalesce(?, data)",
            data,
            key,
            time.time(),
            expected,
        )
        return count == 1

    def touch(self, key: str, *, used: float, expires: float) -> None:
        self._write(
            "UPDATE record SET used = ?, expires = ? WHERE key = ? AND used < ? AND expires > ?",
            used,
            expires,
            key,
            used,
            time.time(),
        )

    def remove(self, key: str, *, data: str | None = None, lasting: bool = False) -> str | None:
        _, rows = self._write(
            "DELETE FROM record WHERE key = ? AND expires > ? AND data = coalesce(?, data)"
            " RETURNING data",
            key,
            time.time(),
            data,
        )
        return rows[0][0] if rows else None

    def remove_owner(self, owner: str) -> list[str]:
        removed: list[str] = []
        while True:
            started = time.perf_counter()
            _, rows = self._write(
                "DELETE FROM record WHERE key IN (SELECT key FROM record WHERE owner = ? LIMIT ?)"
                " RETURNING data, expires > ?",
                owner,
                self._BATCH,
                time.time(),
            )
            removed += [data for data, is_alive in rows if is_alive]
            if len(rows) < self._BATCH:
                return removed
            # Neither lock is fair: without a pause, nobody else would get it.
            time.sleep(max(time.perf_counter() - started, POLL))

    def of_owner(self, owner: str) -> dict[str, Row]:
        return self._rows("owner = ?", owner)

    def below(self, prefix: str) -> dict[str, Row]:
        # LIKE would not use the index of the primary key.
        return self._rows("key < ?", prefix + "\U0010ffff", first=prefix)

    def _rows(self, condition: str, value: str, *, first: str = "") -> dict[str, Row]:
        """Read records from a key on, in several reads. A long read would keep its pages in the
        WAL."""
        found: dict[str, Row] = {}
        while True:
            rows = self._query(
                f"SELECT key, data, used FROM record WHERE {condition} AND key >= ?"  # noqa: S608
                " AND expires > ? ORDER BY key LIMIT ?",
                value,
                first,
                time.time(),
                self._PAGE,
            )
            found |= {key: Row(data, used) for key, data, used in rows}
            if len(rows) < self._PAGE:
                return found
            # The next possible key.
            first = rows[-1][0] + "\0"

    def _query(self, statement: str, *values: str | float) -> list[Any]:
        """Return the rows that a statement selects."""
        process = self._process.get()
        with process.reads.enter() as place:
            try:
                connection = self._take(process)
                try:
                    rows = connection.execute(statement, values).fetchall()
                except BaseException:
                    connection.close()
                    raise
            except _FAILURES as error:
                raise self._unavailable(error) from error
            process.idle.append(connection)
            place.answered = True
        return rows

    def _write(self, statement: str, *values: str | float | None) -> Written:
        """Carry out a statement, which is one transaction."""
        process = self._process.get()
        with process.writes.enter() as place:
            try:
                written = process.writer.write(statement, values, place.deadline)
            except _FAILURES as error:
                raise self._unavailable(error) from error
            place.answered = True
        process.upkeep.count(written.changed)
        process.upkeep.start_if_due(time.monotonic())
        return written

    def _take(self, process: _Process) -> Connection:
        """Return a connection for reading the current file.

        If the file was deleted or replaced, its old connections would write where nobody reads. So
        a write looks at the file, and a read relies on a look that is at most
        :data:`_LOOK_EVERY` seconds old.
        """
        now = time.monotonic()
        if now >= process.look_at:
            process.file.look()
            process.look_at = now + self._LOOK_EVERY
            process.upkeep.start_if_due(now)
        with suppress(IndexError):
            while True:
                connection = process.idle.pop()
                if connection.file == process.file.id:
                    return connection
                connection.close()
        return process.file.open()

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        why, fix = explain(error)
        return StoreUnavailable(f"The session store {self.path} cannot be used: {why}", fix)


class _Process(Bulkheads):
    """What one process has: the file, what writes to it, idle connections for reads, and when a
    read looks again whether the file was replaced."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.file = SQLiteFile(path)
        self.writer = Writer(self.file.look, self.file.open)
        self.upkeep = SQLiteUpkeep(self.file.open_existing, self.writer.lock, _FAILURES)
        self.idle: deque[Connection] = deque()
        self.look_at = -math.inf

    def __del__(self) -> None:
        # Python's connections refer to themselves, so they would not be closed by being dropped.
        self.writer.close()
        for connection in self.idle:
            connection.close()


class MemoryStore(SQLiteStore):
    """A store in memory, for tests. Other processes do not see its records."""

    def __init__(self) -> None:
        super().__init__(Path(":memory:"))
        self._lock = threading.Lock()
        self._only: sqlite3.Connection | None = None

    @contextmanager
    def _lend(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._only is None:
                self._only = sqlite3.connect(
                    ":memory:",
                    isolation_level=None,
                    check_same_thread=False,
                    factory=Connection,
                )
                create_schema(self._only)
            yield self._only

    def _query(self, statement: str, *values: str | float) -> list[Any]:
        with self._lend() as connection:
            return connection.execute(statement, values).fetchall()

    def _write(self, statement: str, *values: str | float | None) -> Written:
        with self._lend() as connection:
            connection.execute(DELETE_EXPIRED, (time.time(), self._BATCH))
            return execute(connection, statement, values)
