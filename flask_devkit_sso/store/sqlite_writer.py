"""The one connection over which a process writes to a SQLite file."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from .sqlite_schema import END_LOCK, UnusableFile

POLL: Final = 0.001
"""Seconds between two attempts to get SQLite's lock while another process has it. SQLite itself
would sleep for longer and longer, up to 0.1 seconds, and others would overtake it."""


class Connection(sqlite3.Connection):
    """A connection with the device and inode of its file.

    It is closed once nobody refers to it. Dropping an open one causes a ResourceWarning from Python
    3.13 on.
    """

    file: tuple[int, int] | None = None

    def __del__(self) -> None:
        self.close()


class Written(NamedTuple):
    """The number of records that a statement has changed, and the rows that it returned."""

    changed: int
    rows: list[Any]


class Writer:
    """Writes to a file. The threads of a process take turns.

    :param find_file: returns the device and inode of the file, or None if there is none.
    :param connect: returns a connection to it.
    :ivar lock: held by the thread whose turn it is.
    """

    def __init__(
        self, find_file: Callable[[], tuple[int, int] | None], connect: Callable[[], Connection]
    ) -> None:
        self._find_file = find_file
        self._connect = connect
        self._connection: Connection | None = None
        self.lock = threading.Lock()

    def write(self, statement: str, values: tuple[Any, ...], deadline: float) -> Written:
        """Carry out a statement, which is one transaction.

        :param deadline: when to give up, as ``time.monotonic`` counts.
        :raises sqlite3.Error, OSError, UnusableFile: if the file cannot be written now.
        """
        if not self.lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise UnusableFile("it is locked, and earlier writes are waiting for it", END_LOCK)
        try:
            connection = self._current()
            while True:
                try:
                    return execute(connection, statement, values)
                except sqlite3.OperationalError as error:
                    if not is_busy(error) or time.monotonic() >= deadline:
                        raise
                time.sleep(POLL)
        except BaseException:
            self.close()
            raise
        finally:
            self.lock.release()

    def _current(self) -> Connection:
        """Return a connection to the file that is there now, in case that it was replaced."""
        if self._connection is None or self._connection.file != self._find_file():
            self.close()
            self._connection = self._connect()
            self._connection.execute("PRAGMA busy_timeout = 0")
        return self._connection

    def close(self) -> None:
        """Close the connection. The next write opens another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def execute(connection: sqlite3.Connection, statement: str, values: tuple[Any, ...]) -> Written:
    """Carry out a statement. With all its rows read, its transaction has ended."""
    cursor = connection.execute(statement, values)
    rows = cursor.fetchall()
    return Written(cursor.rowcount, rows)


def is_busy(error: sqlite3.Error) -> bool:
    """Return whether somebody else has a lock that a statement needs."""
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
