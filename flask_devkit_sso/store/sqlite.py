"""Stores in SQLite, for the workers of one host, and in memory, for tests."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from ..errors import StoreUnavailable
from ..per_process import PerProcess
from .base import DEADLINE, Row

APPLICATION_ID: Final = 0x64_6B_73_6F
"""SQLite's ``application_id`` of a session store, "dkso". A file with another one belongs to another
program: it is refused and left unchanged."""

SCHEMA_VERSION: Final = 1
"""SQLite's ``user_version``. A file with another version is refused and left unchanged."""

_WAL_ERRORS: Final = {
    "SQLITE_IOERR_SHMLOCK",
    "SQLITE_IOERR_SHMMAP",
    "SQLITE_IOERR_SHMOPEN",
    "SQLITE_PROTOCOL",
}
"""What SQLite reports where the memory or the locks of its WAL mode cannot be shared, as on many
FUSE and network file systems."""

_WAL_FIX: Final = "Put the file on a local disk, or use Redis: see DEVKIT_SSO_STORE_URL"


class _Unusable(Exception):
    """The file cannot be used as a session store.

    :param fix: how an operator can fix it.
    """

    def __init__(self, why: str, fix: str) -> None:
        super().__init__(why)
        self.fix = fix


class SQLiteStore:
    """A :class:`~flask_devkit_sso.store.base.Store` in a SQLite file in WAL mode.

    Threads, processes and forks may share it.

    :param path: the file. It is created with mode 0600 at the first use, its folder with 0700.
    """

    _CLEAN_UP: Final = 20
    """Maximum number of expired records that one :meth:`add` removes."""

    _OPENING: Final = 0.5
    """How many seconds of the deadline opening the file may take."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # A forked child must not close its parent's connections to the same file.
        self._idle: PerProcess[deque[_Connection]] = PerProcess(deque)

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
        with self._connection() as connection:
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
                "DELETE FROM record WHERE owner = ? RETURNING data, expires", (owner,)
            ).fetchall()
        return [data for data, expires in rows if expires > time.time()]

    def of_owner(self, owner: str) -> dict[str, Row]:
        return self._rows("owner = ?", owner)

    def below(self, prefix: str) -> dict[str, Row]:
        # LIKE would not use the index of the primary key.
        return self._rows("key >= ? AND key < ?", prefix, prefix + "\U0010ffff")

    def _rows(self, condition: str, *values: str) -> dict[str, Row]:
        with self._connection() as connection:
            rows = connection.execute(
                f"SELECT key, data, used FROM record WHERE {condition} AND expires > ?",  # noqa: S608
                (*values, time.time()),
            ).fetchall()
        return {key: Row(data, used) for key, data, used in rows}

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        idle = self._idle.get()
        try:
            connection = self._take(idle) or self._open()
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            idle.append(connection)
        except (sqlite3.Error, OSError, _Unusable) as error:
            why, fix = str(error), getattr(error, "fix", "")
            name = getattr(error, "sqlite_errorname", "")
            if name in _WAL_ERRORS:
                why, fix = f"SQLite's WAL mode does not work on its file system ({name})", _WAL_FIX
            raise StoreUnavailable(
                f"The session store {self.path} cannot be used: {why}", fix
            ) from error

    def _take(self, idle: deque[_Connection]) -> _Connection | None:
        """Return an idle connection to the current file, or None.

        If the file was deleted or replaced, its old connections would write where nobody reads.
        """
        with suppress(IndexError):
            while True:
                connection = idle.pop()
                if connection.file == self._file():
                    return connection
                connection.close()
        return None

    def _file(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def _open(self) -> _Connection:
        """Open the file.

        While another process is creating it, SQLite reports it as locked without waiting, so try
        again for a while.
        """
        until = time.monotonic() + self._OPENING
        while True:
            try:
                return self._try_to_open()
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > until:
                    raise
            time.sleep(0.02)

    def _try_to_open(self) -> _Connection:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            # SQLite would create a file with the umask's mode. Create it here, also if the path is
            # a link to a file that does not exist. The WAL files get the same mode.
            path = self.path.resolve()
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            try:
                if os.name == "posix" and os.geteuid() == 0:
                    # If root runs a command, the application must still be able to use the file.
                    owner = path.parent.stat()
                    with suppress(OSError):
                        os.fchown(descriptor, owner.st_uid, owner.st_gid)
            finally:
                os.close(descriptor)
        file = self._file()
        self._refuse_foreign_file()
        connection = sqlite3.connect(
            self.path,
            timeout=self._OPENING / 2,
            isolation_level=None,
            check_same_thread=False,
            factory=_Connection,
        )
        connection.file = file
        try:
            if _is_empty(connection):
                _create_schema(connection)
            _check_schema(connection)
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise _Unusable("SQLite's WAL mode does not work on its file system", _WAL_FIX)
            connection.execute("PRAGMA synchronous = NORMAL")
            # Overwrite deleted records, because they name people. Only some builds of SQLite do so
            # by default.
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute(f"PRAGMA busy_timeout = {(DEADLINE - self._OPENING) * 1000:.0f}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _refuse_foreign_file(self) -> None:
        """Check a file before it is opened normally, because that would create or remove files
        beside a database in WAL mode.

        The file's first page identifies a session store, since it is created before WAL mode is
        switched on.

        :raises _Unusable: if the file is not a session store.
        """
        # SQLite reads an immutable file without a lock. Do not read it without SQLite: closing the
        # file would release the locks of this process's other connections to it.
        uri = f"{self.path.absolute().as_uri()}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            # Without a lock, SQLite may see a file that is being written. It is checked again
            # later, with a lock.
            with suppress(sqlite3.DatabaseError):
                if not _is_empty(connection):
                    _check_schema(connection)


def _is_empty(connection: sqlite3.Connection) -> bool:
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    return bool(pages == 0)


def _create_schema(connection: sqlite3.Connection) -> None:
    """Create the tables, unless another process has just written to the file."""
    connection.execute("BEGIN IMMEDIATE")
    (count,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    for statement in _SCHEMA if count == 0 else ():
        connection.execute(statement)
    connection.execute("COMMIT")


def _check_schema(connection: sqlite3.Connection) -> None:
    """Check whether a database is a session store, without changing anything.

    :raises _Unusable: if it is not.
    """
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    if application_id != APPLICATION_ID:
        raise _Unusable(
            "it is a database of another program", "Set DEVKIT_SSO_STORE_URL to a file of its own"
        )
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != SCHEMA_VERSION:
        raise _Unusable(
            f"it was written by another version of Flask-DevKit-SSO (schema {version}, not "
            f"{SCHEMA_VERSION})",
            "Use that version, or delete the file, which signs everybody out",
        )


class _Connection(sqlite3.Connection):
    """A connection with the device and inode of its file."""

    file: tuple[int, int] | None = None


_SCHEMA: Final = (
    """
    CREATE TABLE record (
        key TEXT PRIMARY KEY,
        owner TEXT,
        data TEXT NOT NULL,
        used REAL NOT NULL,
        expires REAL NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE INDEX record_owner ON record (owner) WHERE owner IS NOT NULL",
    "CREATE INDEX record_expires ON record (expires)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)


class MemoryStore(SQLiteStore):
    """A store in memory, for tests. Other processes do not see its records."""

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
                _create_schema(self._only)
            yield self._only
