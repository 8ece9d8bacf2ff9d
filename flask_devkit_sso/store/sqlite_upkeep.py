"""The upkeep of a SQLite file: expired records are deleted, and the WAL stays small.

Requests do neither. A thread does both in transactions that are about as short as those of a
request, and pauses after each of them.
"""

from __future__ import annotations

import random
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Final

from .sqlite_writer import is_busy
from .upkeep import Upkeep, log

EVERY: Final = 30.0
"""Seconds after which a process looks for expired records again."""

CHECKPOINT_AFTER: Final = 300
"""Number of records that a process writes or deletes between two checkpoints."""

MAX_WAL_PAGES: Final = 4000
"""Number of pages in the WAL from which a request makes the checkpoint, in case that no thread has
made it. While a long read keeps more pages there, no record is deleted."""

MAX_WAL_BYTES: Final = 16 * 2**20
"""The WAL's file is cut to this size after a long read has made it longer."""

DELETE_EXPIRED: Final = (
    "DELETE FROM record WHERE key IN (SELECT key FROM record WHERE expires <= ? LIMIT ?)"
)

_BATCH: Final = 5
"""Maximum number of records that one transaction deletes."""

_PAUSE: Final = 8
"""Duration of the pause after a transaction, as a multiple of the transaction's."""

_GIVE_WAY: Final = 0.005
"""Seconds for which the thread waits if somebody else is writing."""

_LONG_WAL_PAGES: Final = 1500
"""Number of pages in the WAL from which the thread keeps this process from writing for a moment.
SQLite begins to overwrite the WAL only after nobody has added anything since the last page was
copied."""

_CLAIM_KEY: Final = "upkeep"
_CLAIM_SECONDS: Final = 60.0
_RENEW_AFTER: Final = 10.0


class SQLiteUpkeep:
    """What one process does for a file.

    :param connect: returns a new connection to the file, or None if there is no file.
    :param lock: the lock that the process has while it writes to the file.
    :param failures: the exceptions that an unusable file causes.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection | None],
        lock: threading.Lock,
        failures: tuple[type[Exception], ...],
    ) -> None:
        self._connect = connect
        self._lock = lock
        self._upkeep = Upkeep(failures)
        self._mark = secrets.token_hex(8)
        self._written = 0
        # At random, so that processes that live only for a few seconds do their part, too.
        self._look_at = time.monotonic() + random.uniform(0, EVERY)  # noqa: S311

    def count(self, written: int) -> None:
        """Count records that the process has written."""
        self._written += written

    def start_if_due(self, now: float) -> None:
        """Start the upkeep in the background if there may be something to do.

        :param now: what ``time.monotonic`` returns.
        """
        if self._written >= CHECKPOINT_AFTER or now >= self._look_at:
            self._upkeep.start(self._steps)

    def _steps(self) -> Iterator[float]:
        now = time.monotonic()
        is_time_to_look = now >= self._look_at
        if is_time_to_look:
            # Before anything can fail: do not try again at once.
            self._look_at = now + EVERY
        self._written = 0
        connection = self._connect()
        if connection is None:
            return
        with closing(connection):
            # Do not wait for a lock while having the other one: requests of this process need it.
            connection.execute("PRAGMA busy_timeout = 0")
            yield from self._checkpoint(connection)
            if is_time_to_look:
                yield from self._delete_expired(connection)

    def _checkpoint(self, connection: sqlite3.Connection) -> Generator[float, None, int]:
        """Copy the WAL into the file, and return the number of pages that are left.

        Others can read and write at the same time.
        """
        self._written = 0
        left, pages = _checkpoint(connection)
        if not left and pages > _LONG_WAL_PAGES:
            yield 0.0
            # Only the pages that others have written since are copied now, so this is short.
            with self._lock:
                left, _ = _checkpoint(connection)
        return left

    def _delete_expired(self, connection: sqlite3.Connection) -> Iterator[float]:
        """Delete all records that have expired, unless another process is doing so."""
        renew_at = -1.0
        has_more = True
        while has_more:
            if time.monotonic() >= renew_at:
                if not self._find_expired(connection) or not self._claim(connection):
                    return
                renew_at = time.monotonic() + _RENEW_AFTER
            if self._written >= CHECKPOINT_AFTER:
                left = yield from self._checkpoint(connection)
                if left > MAX_WAL_PAGES:
                    log.warning(
                        "expired sessions are not deleted now: a process has been reading the "
                        "session store for long (fuser lists the processes that use the file)"
                    )
                    break
            started = time.perf_counter()
            deleted = self._write(connection, DELETE_EXPIRED, time.time(), _BATCH)
            seconds = time.perf_counter() - started
            if deleted is None:
                yield _GIVE_WAY
                continue
            self._written += deleted
            has_more = deleted == _BATCH
            yield _PAUSE * seconds
        self._write(
            connection, "DELETE FROM record WHERE key = ? AND data = ?", _CLAIM_KEY, self._mark
        )

    def _find_expired(self, connection: sqlite3.Connection) -> bool:
        query = "SELECT 1 FROM record WHERE expires <= ? LIMIT 1"
        return connection.execute(query, (time.time(),)).fetchone() is not None

    def _claim(self, connection: sqlite3.Connection) -> bool:
        """Take the claim or renew it, and return whether this process has it.

        It ends by itself if the process is killed.
        """
        now = time.time()
        taken = self._write(
            connection,
            "INSERT INTO record (key, data, used, expires) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (key) DO UPDATE"
            " SET data = excluded.data, used = excluded.used, expires = excluded.expires"
            " WHERE expires <= excluded.used OR data = excluded.data",
            _CLAIM_KEY,
            self._mark,
            now,
            now + _CLAIM_SECONDS,
        )
        return bool(taken)

    def _write(
        self, connection: sqlite3.Connection, statement: str, *values: str | float
    ) -> int | None:
        """Return how many records a statement has changed, or None if somebody else is writing."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            return connection.execute(statement, values).rowcount
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
            return None
        finally:
            self._lock.release()


def _checkpoint(connection: sqlite3.Connection) -> tuple[int, int]:
    """Copy the WAL, as far as nobody is reading it, and return how many of its pages are left and
    how many it has. If another process is doing the same, both numbers are 0."""
    _, pages, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return (pages - copied, pages) if copied >= 0 else (0, 0)
