"""A store in PostgreSQL, for workers on many hosts.

Every operation is a single conditional statement in autocommit mode, at PostgreSQL's default
isolation level, READ COMMITTED. Nothing depends on what a connection was used for before, so
PgBouncer may be in between, in any of its modes.

A connection can break after PostgreSQL has carried out a statement and before its reply arrives. So
every statement can be sent again: a record contains the id of the call that added or removed it.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

import psycopg

from ..errors import StoreUnavailable
from ..per_process import PerProcess
from .base import SKEW, Row
from .postgresql_connections import Connection, Connections, Written, execute
from .threaded import ThreadedBulkheads
from .upkeep import Upkeep

T = TypeVar("T")

EVERY: Final = 30.0
"""Seconds after which a process looks for expired records again."""

_BATCH: Final = 250
"""How many records one statement reads, removes or deletes."""

_PAUSE: Final = 8
"""Duration of the pause after a deletion, as a multiple of the deletion's."""


class PostgreSQLStore:
    """A :class:`~flask_devkit_sso.store.base.Store` in a table of a PostgreSQL database.

    Threads, processes and forks may share it.

    :param url: as libpq accepts it, with its parameters such as ``sslmode`` after a ``?``.
    :raises ConfigError: if libpq rejects the URL.
    """

    def __init__(self, url: str) -> None:
        self.connections = Connections(url)
        self._process = PerProcess(_Process)

    def add(self, key: str, data: str, *, expires: float, owner: str | None = None) -> bool:
        statement = (
            "INSERT INTO devkit_sso_record AS old (key, owner, data, used, expires, call)"
            " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (key) DO UPDATE SET"
            " owner = excluded.owner, data = excluded.data, used = excluded.used,"
            " expires = excluded.expires, call = excluded.call"
            " WHERE old.expires <= excluded.used OR old.call = excluded.call"
        )
        values = (key, owner, data, time.time(), expires, _call_id())
        return self._write(statement, *values).changed == 1

    def read(self, key: str) -> Row | None:
        rows = self._read(
            "SELECT data, used FROM devkit_sso_record WHERE key = %s AND expires > %s",
            key,
            time.time(),
        )
        return Row(*rows[0]) if rows else None

    def update(self, key: str, data: str, *, expected: str | None = None) -> bool:
        # If PostgreSQL carries this out twice, the second result may be False. A caller that passes
        # ``expected`` reads the record then.
        statement = (
            "UPDATE devkit_sso_record SET data = %s"
            " WHERE key = %s AND expires > %s AND data = coalesce(%s, data)"
        )
        return self._write(statement, data, key, time.time(), expected).changed == 1

    def touch(self, key: str, *, used: float, expires: float) -> None:
        statement = (
            "UPDATE devkit_sso_record SET used = %s, expires = %s"
            " WHERE key = %s AND used < %s AND expires > %s"
        )
        self._write(statement, used, expires, key, used, time.time())

    def remove(self, key: str, *, data: str | None = None, lasting: bool = False) -> str | None:
        removed = self._remove([key], "data = coalesce(%s, data)", data)
        return removed[0] if removed else None

    def remove_owner(self, owner: str) -> list[str]:
        removed: list[str] = []
        for page in self._pages("owner = %s", owner):
            removed += self._remove(list(page), "owner = %s", owner)
        return removed

    def _remove(self, keys: list[str], condition: str, value: str | None) -> list[str]:
        """Remove records that fulfil a condition, and return their data."""
        # The records expire first, at -1, so that a repeated statement returns the same data. They
        # are locked in the same order by every call, so that no two wait for each other.
        expire = (
            "UPDATE devkit_sso_record AS record SET expires = -1, call = %s FROM"  # noqa: S608
            " (SELECT key FROM devkit_sso_record WHERE key = ANY(%s) ORDER BY key FOR UPDATE) one"
            f" WHERE record.key = one.key AND (expires > %s AND {condition}"
            " OR expires = -1 AND call = %s) RETURNING data"
        )
        delete = "DELETE FROM devkit_sso_record WHERE key = ANY(%s) AND call = %s AND expires = -1"
        call = _call_id()
        values = (call, keys, time.time(), value, call)

        def remove(connection: Connection) -> list[str]:
            rows = execute(connection, expire, values).rows
            if rows:
                # If the connection breaks now, _delete_expired deletes them.
                with suppress(psycopg.OperationalError):
                    execute(connection, delete, (keys, call))
            return [data for (data,) in rows]

        return self._run(remove)

    def of_owner(self, owner: str) -> dict[str, Row]:
        return {key: row for page in self._pages("owner = %s", owner) for key, row in page.items()}

    def below(self, prefix: str) -> dict[str, Row]:
        pages = self._pages("key >= %s AND key < %s", prefix, prefix + "\U0010ffff")
        return {key: row for page in pages for key, row in page.items()}

    def _pages(self, condition: str, *values: str) -> Iterator[dict[str, Row]]:
        """Read the records that fulfil a condition, ordered by key."""
        statement = (
            f"SELECT key, data, used FROM devkit_sso_record WHERE {condition}"  # noqa: S608
            " AND key > %s AND expires > %s ORDER BY key LIMIT %s"
        )
        after = ""
        while True:
            rows = self._read(statement, *values, after, time.time(), _BATCH)
            yield {key: Row(data, used) for key, data, used in rows}
            if len(rows) < _BATCH:
                return
            after = rows[-1][0]

    def _delete_expired(self) -> Iterator[float]:
        """Delete expired records in steps."""
        process = self._process.get()
        process.clean_at = time.monotonic() + EVERY
        # Several processes may do so at the same time: each skips what another one is deleting.
        statement = (
            "DELETE FROM devkit_sso_record WHERE key IN (SELECT key FROM devkit_sso_record"
            " WHERE expires <= %s ORDER BY expires LIMIT %s FOR UPDATE SKIP LOCKED)"
        )
        count = _BATCH
        while count == _BATCH:
            started = time.perf_counter()
            # A host whose clock is slow may still use a record that has just expired.
            limit = time.time() - SKEW
            delete = partial(execute, statement=statement, values=(limit, _BATCH))
            count = self._run(delete, is_background=True).changed
            yield _PAUSE * (time.perf_counter() - started)

    def _read(self, statement: str, *values: Any) -> list[Any]:
        return self._run(lambda one: execute(one, statement, values).rows, is_read=True)

    def _write(self, statement: str, *values: Any) -> Written:
        return self._run(partial(execute, statement=statement, values=values))

    def _run(
        self,
        operation: Callable[[Connection], T],
        *,
        is_read: bool = False,
        is_background: bool = False,
    ) -> T:
        process = self._process.get()
        bulkhead = process.reads if is_read else process.writes
        with bulkhead.enter(background=is_background) as place:
            call = self.connections.call(operation, place.deadline)
            result = process.in_thread(place, call, give_up=call.give_up)
            place.answered = True
        if time.monotonic() >= process.clean_at:
            process.upkeep.start(self._delete_expired)
        return result


class _Process(ThreadedBulkheads):
    """What one process has."""

    def __init__(self) -> None:
        super().__init__("PostgreSQL")
        self.upkeep = Upkeep((StoreUnavailable,))
        # At random, so that processes that live only for a few seconds do their part, too.
        self.clean_at = time.monotonic() + random.uniform(0, EVERY)  # noqa: S311


def _call_id() -> str:
    return secrets.token_hex(8)
