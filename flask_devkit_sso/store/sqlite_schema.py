"""The tables of a SQLite store, and the checks whether a file is one."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

APPLICATION_ID: Final = 0x646B736F
"""SQLite's ``application_id`` of a session store: "dkso". A file with another id belongs to another
program."""

SCHEMA_VERSION: Final = 1
"""SQLite's ``user_version``. A file with another version is refused and left unchanged."""

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

_WAL_ERRORS: Final = {
    "SQLITE_IOERR_SHMLOCK",
    "SQLITE_IOERR_SHMMAP",
    "SQLITE_IOERR_SHMOPEN",
    "SQLITE_PROTOCOL",
}
"""SQLite's errors on file systems on which connections cannot share the memory or the locks of WAL
mode, such as many FUSE and network file systems."""

_NO_WAL: Final = "SQLite's WAL mode does not work on its file system"
_USE_OWN_FILE: Final = "Set DEVKIT_SSO_STORE_URL to a file of its own"
_USE_LOCAL_DISK: Final = "Put the file on a local disk, or use Redis: see DEVKIT_SSO_STORE_URL"
END_LOCK: Final = (
    "Find the process that keeps the file locked, such as a backup or an open sqlite3 shell (fuser "
    "lists the processes that use a file), and end it"
)


class UnusableFile(Exception):
    """The file cannot be used as a session store.

    :param fix: how an operator can fix it.
    """

    def __init__(self, why: str, fix: str) -> None:
        super().__init__(why)
        self.fix = fix


def explain(error: Exception) -> tuple[str, str]:
    """Return why a file cannot be used and, if that is known, how an operator can fix it."""
    name = getattr(error, "sqlite_errorname", "")
    if name in _WAL_ERRORS:
        return f"{_NO_WAL} ({name})", _USE_LOCAL_DISK
    if name.startswith("SQLITE_BUSY"):
        return str(error), END_LOCK
    return str(error), getattr(error, "fix", "")


def refuse_foreign_file(path: Path) -> None:
    """Refuse a file of another program without changing it.

    Call this before the file is opened normally: opening a database in WAL mode creates files next
    to it, and closing it may change it. The first page identifies a session store, because it is
    written before WAL mode is switched on.

    :raises UnusableFile: if the file is not a session store of this version.
    """
    # SQLite would wait for ever for somebody to write to a FIFO.
    if not path.is_file():
        raise UnusableFile("it is not a file", _USE_OWN_FILE)
    # SQLite reads an immutable file without a lock. Do not read the file without SQLite: closing it
    # would release the locks of this process's other connections to it.
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    # Another process may be writing the file now, which SQLite may take for damage. It is checked
    # again later, with a lock.
    with (
        suppress(sqlite3.DatabaseError),
        closing(sqlite3.connect(uri, uri=True)) as connection,
    ):
        if not _is_empty(connection):
            check_schema(connection)


def create_schema(connection: sqlite3.Connection) -> None:
    """Create the tables in an empty file."""
    if not _is_empty(connection):
        return
    connection.execute("BEGIN IMMEDIATE")
    # Another process may have created them since the check.
    (count,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    for statement in _SCHEMA if count == 0 else ():
        connection.execute(statement)
    connection.execute("COMMIT")


def check_schema(connection: sqlite3.Connection) -> None:
    """Check whether a database is a session store of this version, without changing anything.

    :raises UnusableFile: if it is not.
    """
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    if application_id != APPLICATION_ID:
        raise UnusableFile("it is a database of another program", _USE_OWN_FILE)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != SCHEMA_VERSION:
        raise UnusableFile(
            f"it was written by another version of Flask-DevKit-SSO (schema {version}, not "
            f"{SCHEMA_VERSION})",
            "Use that version, or delete the file, which signs everybody out",
        )


def use_wal(connection: sqlite3.Connection) -> None:
    """Switch WAL mode on.

    :raises UnusableFile: if the file system does not support it.
    """
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise UnusableFile(_NO_WAL, _USE_LOCAL_DISK)


def _is_empty(connection: sqlite3.Connection) -> bool:
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    return bool(pages == 0)
