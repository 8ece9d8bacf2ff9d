"""The file of a SQLite store: how it is found, created and opened."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from .base import DEADLINE
from .sqlite_schema import check_schema, create_schema, refuse_foreign_file, use_wal
from .sqlite_upkeep import MAX_WAL_BYTES, MAX_WAL_PAGES
from .sqlite_writer import Connection, is_busy

_OPENING: Final = 0.5
"""How many seconds of the deadline opening the file may take."""


class SQLiteFile:
    """A file, as one process sees it.

    :param path: the file. It is created with mode 0600 when it is first opened, its folder with
        0700.
    :ivar id: the device and inode of the file that the process last saw.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._creating = threading.Lock()
        self.id: tuple[int, int] | None = None

    def look(self) -> tuple[int, int] | None:
        """Return the device and inode of the file that is there now, or None if there is none."""
        self.id = self._find()
        return self.id

    def _find(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def open(self) -> Connection:
        """Open the file. Create it if it does not exist.

        While another process is creating it, SQLite reports it as locked without waiting, so try
        again for a while.
        """
        until = time.monotonic() + _OPENING
        while True:
            try:
                connection = self._try_to_open()
            except sqlite3.OperationalError as error:
                if not is_busy(error) or time.monotonic() > until:
                    raise
            else:
                self.id = connection.file
                return connection
            time.sleep(0.02)

    def open_existing(self) -> Connection | None:
        """Open the file, unless it does not exist."""
        return self._connect() if self._find() else None

    def _try_to_open(self) -> Connection:
        with self._creating:
            self._create()
        return self._connect()

    def _connect(self) -> Connection:
        file = self._find()
        refuse_foreign_file(self._path)
        connection = sqlite3.connect(
            self._path,
            timeout=_OPENING / 2,
            isolation_level=None,
            check_same_thread=False,
            factory=Connection,
        )
        connection.file = file
        connection.text_factory = _text
        try:
            create_schema(connection)
            check_schema(connection)
            use_wal(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            # Overwrite deleted records, because they name people. Only some builds of SQLite do so
            # by default.
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute(f"PRAGMA wal_autocheckpoint = {MAX_WAL_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit = {MAX_WAL_BYTES}")
            connection.execute(f"PRAGMA busy_timeout = {(DEADLINE - _OPENING) * 1000:.0f}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _create(self) -> None:
        """Create the file and its folder if they do not exist.

        Call this while no other thread of the process opens the file: closing the descriptor
        releases all locks that the process has on the file.
        """
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            # SQLite would create a file with the umask's mode. Create it here, also if the path is
            # a link to a file that does not exist. The WAL files get the same mode.
            path = Path(os.path.realpath(self._path))
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            try:
                if os.name == "posix" and os.geteuid() == 0:
                    # If root runs a command, the application must still be able to use the file.
                    owner = path.parent.stat()
                    with suppress(OSError):
                        os.fchown(descriptor, owner.st_uid, owner.st_gid)
            finally:
                os.close(descriptor)


def _text(value: bytes) -> str:
    """Return a text of a record. A damaged one counts as unreadable, and does not keep the records
    beside it from being read. SQLite's exception would quote it."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        # It is no JSON, and as a key it is the last one.
        return "\U0010ffff"
