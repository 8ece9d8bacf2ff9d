"""Stores in SQLite, for the workers of one host, and in memory, for tests."""

from __future__ import annotations

import math
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final

from ..errors import StoreUnavailable
from ..per_process import PerProcess
from .base import DEADLINE, Bulkheads, Row
from .sqlite_schema import (
    UnusableFile,
    check_schema,
    create_schema,
    explain,
    refuse_foreign_file,
    use_wal,
)

_FAILURES: Final = (sqlite3.Error, OSError, UnusableFile)


class SQLiteStore:
    """A :class:`~flask_devkit_sso.store.base.Store` in a SQLite file in WAL mode.

    Threads, processes and forks may share it.

    :param path: the file. It is created with mode 0600 at the first use, its folder with 0700.
    """

    _CLEAN_UP: Final = 20
    """Maximum number of expired records that one :meth:`add` removes."""

    _OPENING: Final = 0.5
    """How many seconds of the deadline opening the file may take."""

    _LOOK_EVERY: Final = 0.5
    """Maximum number of seconds after which a read notices that the file was replaced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # A forked child must not close its parent's connections to the same file.
        self._process = PerProcess(_Process)

    def add(self, key: str, data: str, *, expires: float, owner: str | None = None) -> bool:
        now = time.time()
        with self._connection() as connection:
            # Use one transaction, so that this waits for a lock only once.
            connection.execute("BEGIN IMMEDIATE")
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
            added = cursor.rowcount == 1
            connection.execute("COMMIT")
        return added

    def read(self, key: str) -> Row | None:
        with self._connection(is_read=True) as connection:
            found = connection.execute(
                "SELECT data, used FROM record WHERE key = ? AND expires > ?", (key, time.time())
            ).fetchone()
        return Row(*found) if found else None

    def update(self, key: str, data: str, *, expected: str | None = None) -> bool:
        with self._connection() as connection:
            cursor = connection.execute(
                "UPDATE record SET data = ?"
                " WHERE key = ? AND expires > ? AND data = coalesce(?, data)",
                (data, key, time.time(), expected),
            )
            return cursor.rowcount == 1

    def touch(self, key: str, *, used: float, expires: float) -> None:
        with self._connection() as connection:
            connection.execute(
                "UPDATE record SET used = ?, expires = ?"
                " WHERE key = ? AND used < ? AND expires > ?",
                (used, expires, key, used, time.time()),
            )

    def remove(self, key: str, *, data: str | None = None) -> str | None:
        with self._connection() as connection:
            rows = connection.execute(
                "DELETE FROM record WHERE key = ? AND expires > ? AND data = coalesce(?, data)"
                " RETURNING data",
                (key, time.time(), data),
            ).fetchall()
        return rows[0][0] if rows else None

    def remove_owner(self, owner: str) -> list[str]:
        with self._connection() as connection:
            rows = connection.execute(
                "DELETE FROM record WHERE owner = ? RETURNING data, expires > ?",
                (owner, time.time()),
            ).fetchall()
        return [data for data, is_alive in rows if is_alive]

    def of_owner(self, owner: str) -> dict[str, Row]:
        return self._rows("owner = ?", owner)

    def below(self, prefix: str) -> dict[str, Row]:
        # LIKE would not use the index of the primary key.
        return self._rows("key >= ? AND key < ?", prefix, prefix + "\U0010ffff")

    def _rows(self, condition: str, *values: str) -> dict[str, Row]:
        with self._connection(is_read=True) as connection:
            rows = connection.execute(
                f"SELECT key, data, used FROM record WHERE {condition} AND expires > ?",  # noqa: S608
                (*values, time.time()),
            ).fetchall()
        return {key: Row(data, used) for key, data, used in rows}

    def _connection(self, *, is_read: bool = False) -> AbstractContextManager[sqlite3.Connection]:
        return _Operation(self, self._process.get(), is_read)

    def _take(self, process: _Process, *, is_read: bool) -> _Connection:
        """Return a connection to the current file.

        If the file was deleted or replaced, its old connections would write where nobody reads. So
        a write looks at the file, and a read relies on a look that is at most
        :data:`_LOOK_EVERY` seconds old.
        """
        now = time.monotonic()
        if not is_read or now >= process.look_at:
            process.file = self._file()
            process.look_at = now + self._LOOK_EVERY
        with suppress(IndexError):
            while True:
                connection = process.idle.pop()
                if connection.file == process.file:
                    return connection
                connection.close()
        connection = self._open(process)
        process.file = connection.file
        return connection

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        why, fix = explain(error)
        return StoreUnavailable(f"The session store {self.path} cannot be used: {why}", fix)

    def _file(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def _open(self, process: _Process) -> _Connection:
        """Open the file.

        While another process is creating it, SQLite reports it as locked without waiting, so try
        again for a while.
        """
        until = time.monotonic() + self._OPENING
        while True:
            try:
                return self._try_to_open(process)
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > until:
                    raise
            time.sleep(0.02)

    def _try_to_open(self, process: _Process) -> _Connection:
        with process.creating:
            self._create_file()
        file = self._file()
        refuse_foreign_file(self.path)
        connection = sqlite3.connect(
            self.path,
            timeout=self._OPENING / 2,
            isolation_level=None,
            check_same_thread=False,
            factory=_Connection,
        )
        connection.file = file
        try:
            create_schema(connection)
            check_schema(connection)
            use_wal(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            # Overwrite deleted records, because they name people. Only some builds of SQLite do so
            # by default.
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute(f"PRAGMA busy_timeout = {(DEADLINE - self._OPENING) * 1000:.0f}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _create_file(self) -> None:
        """Create the file and its folder if they do not exist.

        Call this while no other thread of the process opens the file: closing the descriptor
        releases all locks that the process has on the file.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            # SQLite would create a file with the umask's mode. Create it here, also if the path is
            # a link to a file that does not exist. The WAL files get the same mode.
            path = Path(os.path.realpath(self.path))
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            try:
                if os.name == "posix" and os.geteuid() == 0:
                    # If root runs a command, the application must still be able to use the file.
                    owner = path.parent.stat()
                    with suppress(OSError):
                        os.fchown(descriptor, owner.st_uid, owner.st_gid)
            finally:
                os.close(descriptor)


class _Connection(sqlite3.Connection):
    """A connection with the device and inode of its file."""

    file: tuple[int, int] | None = None


class _Process(Bulkheads):
    """What one process has: the bulkheads, the connections that are not in use, a lock for creating
    the file, and the file as it was when somebody last looked."""

    def __init__(self) -> None:
        super().__init__()
        self.idle: deque[_Connection] = deque()
        self.creating = threading.Lock()
        self.file: tuple[int, int] | None = None
        self.look_at = -math.inf


class _Operation:
    """Lends a connection to one operation. A class takes less time than a generator."""

    __slots__ = ("_connection", "_is_read", "_place", "_process", "_store")

    def __init__(self, store: SQLiteStore, process: _Process, is_read: bool) -> None:
        self._store = store
        self._process = process
        self._is_read = is_read

    def __enter__(self) -> sqlite3.Connection:
        process = self._process
        self._place = (process.reads if self._is_read else process.writes).enter()
        try:
            self._connection = self._store._take(process, is_read=self._is_read)
        except BaseException as error:
            self._place.leave()
            if isinstance(error, _FAILURES):
                raise self._store._unavailable(error) from error
            raise
        return self._connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: object
    ) -> None:
        if error is None:
            self._process.idle.append(self._connection)
            self._place.answered = True
        else:
            self._connection.close()
        self._place.leave()
        if isinstance(error, _FAILURES):
            raise self._store._unavailable(error) from error


class MemoryStore(SQLiteStore):
    """A store in memory, for tests. Other processes do not see its records."""

    def __init__(self) -> None:
        super().__init__(Path(":memory:"))
        self._lock = threading.Lock()
        self._only: sqlite3.Connection | None = None

    @contextmanager
    def _connection(self, *, is_read: bool = False) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._only is None:
                self._only = sqlite3.connect(
                    ":memory:", isolation_level=None, check_same_thread=False
                )
                create_schema(self._only)
            yield self._only
