"""A store in Redis or Valkey, for workers on many hosts.

A record is a hash. The keys of an owner's records are in a sorted set, ordered by the time at which
they expire. Every write is one script, so that record and index change together.

A connection can break after Redis has carried out a command and before its reply arrives. So every
call can be sent again. Each call has an id, by which a script recognises a repeated call and
returns the same result as before.
"""

from __future__ import annotations

import re
import secrets
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar, cast

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)
from redis.retry import Retry

from ..bulkhead import Place
from ..errors import ConfigError, StoreUnavailable
from ..per_process import PerProcess
from . import redis_scripts as scripts
from .base import Row
from .redis_scripts import PREFIX
from .threaded import ThreadedBulkheads

T = TypeVar("T")

_SOCKET_TIMEOUT: Final = 0.7
"""Seconds for one reply, so that a dead connection leaves time for a second attempt."""

_BATCH: Final = 250
"""How many records of an owner one operation reads or removes."""


class RedisStore:
    """A :class:`~flask_devkit_sso.store.base.Store` in one Redis or Valkey (not a cluster).

    Threads, processes and forks may share it.

    :param url: as redis-py accepts it, with its options such as ``ssl_ca_certs`` after a ``?``.
    :raises ConfigError: if redis-py rejects the URL.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._process = PerProcess(lambda: _Process(self._client()))
        try:
            pool = self._client().connection_pool
            pool.connection_class(**pool.connection_kwargs)
        except (ValueError, TypeError, RedisError):
            # Do not chain the exception, because it may quote the URL with its password.
            raise ConfigError(
                "redis-py rejects DEVKIT_SSO_STORE_URL: it must be like "
                "redis://user:password@host:6379/0, with special characters in the password "
                "percent-encoded, and after a ? only options of redis-py's connections"
            ) from None

    def add(self, key: str, data: str, *, expires: float, owner: str | None = None) -> bool:
        values = (data, time.time(), expires, owner or "", _call_id())
        return self._run(lambda client: bool(_eval(client, scripts.ADD, key, *values)))

    def read(self, key: str) -> Row | None:
        process = self._process.get()
        with process.reads.enter() as place:
            # Every request reads, and handing a call to another thread takes longer than Redis
            # takes to reply. On a connection that is open, the socket's timeout limits the read.
            found = _translated(process, lambda: _read(process.idle, key))
            if found is None:
                found = self._in_thread(process, place, lambda client: _connect(client, key))
            place.answered = True
        row, connection = found
        process.idle.append(connection)
        return row

    def update(self, key: str, data: str, *, expected: str | None = None) -> bool:
        # If Redis carries this out twice, the second result may be False. A caller that passes
        # ``expected`` reads the record then.
        values = (data, time.time(), int(expected is not None), expected or "")
        return self._run(lambda client: bool(_eval(client, scripts.UPDATE, key, *values)))

    def touch(self, key: str, *, used: float, expires: float) -> None:
        now = time.time()
        self._run(lambda client: _eval(client, scripts.TOUCH, key, used, now, expires))

    def remove(self, key: str, *, data: str | None = None) -> str | None:
        values = (time.time(), int(data is not None), data or "", _call_id())
        return self._run(lambda client: _data(_eval(client, scripts.REMOVE, key, *values)))

    def remove_owner(self, owner: str) -> list[str]:
        removed: list[str] = []
        while True:
            calls: dict[str, str] = {}
            removed += self._run(partial(self._remove_some, owner, calls))
            if len(calls) < _BATCH:
                return removed

    def _remove_some(self, owner: str, calls: dict[str, str], client: redis.Redis) -> list[str]:
        """Remove some records of an owner and return their data.

        :param calls: the id of each call by key. It is empty at first: a repetition removes the
            same records.
        """
        index = f"{PREFIX}owner:{owner}"
        if not calls:
            names = cast("list[str]", client.zrange(index, 0, _BATCH - 1))
            calls.update({name.removeprefix(PREFIX): _call_id() for name in names})
        with client.pipeline(transaction=False) as pipeline:
            for key, call in calls.items():
                _eval(pipeline, scripts.REMOVE, key, time.time(), 0, "", call)
            if calls:
                pipeline.zrem(index, *[PREFIX + key for key in calls])
            answers = pipeline.execute()
        found = map(_data, answers[: len(calls)])
        return [data for data in found if data is not None]

    def of_owner(self, owner: str) -> dict[str, Row]:
        index = f"{PREFIX}owner:{owner}"

        def scan(client: redis.Redis, cursor: int) -> tuple[int, list[str]]:
            following, pairs = cast(
                "tuple[int, list[tuple[str, float]]]", client.zscan(index, cursor, count=_BATCH)
            )
            return following, [name for name, _ in pairs]

        return self._scan(scan)

    def below(self, prefix: str) -> dict[str, Row]:
        return self._scan(
            lambda client, cursor: cast(
                "tuple[int, list[str]]", client.scan(cursor, f"{PREFIX}{prefix}*", 1000)
            )
        )

    def _scan(self, scan: Callable[[redis.Redis, int], tuple[int, list[str]]]) -> dict[str, Row]:
        """Return the records whose names a scan finds, a few at a time: everybody waits for a long
        command."""
        rows: dict[str, Row] = {}
        cursor = 0

        def page(client: redis.Redis) -> tuple[int, dict[str, Row]]:
            following, names = scan(client, cursor)
            return following, _read_all(client, [name.removeprefix(PREFIX) for name in names])

        while True:
            cursor, found = self._run(page, is_read=True)
            rows |= found
            if cursor == 0:
                return rows

    def _run(self, operation: Callable[[redis.Redis], T], *, is_read: bool = False) -> T:
        process = self._process.get()
        with (process.reads if is_read else process.writes).enter() as place:
            result = self._in_thread(process, place, operation)
            place.answered = True
            return result

    def _in_thread(
        self, process: _Process, place: Place, operation: Callable[[redis.Redis], T]
    ) -> T:
        call = partial(_attempt, operation, process.client, place.deadline)
        return process.in_thread(place, partial(_translated, process, call))

    def _client(self) -> redis.Redis:
        return redis.Redis(
            connection_pool=redis.ConnectionPool.from_url(
                self._url,
                decode_responses=True,
                # Redis before version 6 and some proxies understand only this protocol.
                protocol=2,
                retry=Retry(NoBackoff(), 0),
                socket_connect_timeout=_SOCKET_TIMEOUT,
                socket_keepalive=True,
                socket_timeout=_SOCKET_TIMEOUT,
            )
        )


_FIELDS: Final = ["data", "used", "expires"]


_Found = tuple[Row | None, Any]
"""A record, and the connection over which it was read. redis-py does not type its connections."""


class _Process(ThreadedBulkheads):
    """What one process has: a client, threads, and idle connections for reads."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__("Redis")
        self.client = client
        self.idle: deque[Any] = deque()

    def disconnect_idle(self) -> None:
        """Close all connections that are not in use."""
        self.client.connection_pool.disconnect(inuse_connections=False)
        with suppress(IndexError):
            while True:
                self.idle.pop().disconnect()


def _read(idle: deque[Any], key: str) -> _Found | None:
    """Read a record over an idle connection. Return None if there is none, or if it breaks."""
    try:
        connection = idle.pop()
    except IndexError:
        return None
    try:
        if not connection.can_read():
            return _hmget(connection, key), connection
        # Somebody's late reply would be taken for the reply to this call.
        connection.disconnect()
        return None
    except (ConnectionError, TimeoutError):
        return None


def _connect(client: redis.Redis, key: str) -> _Found:
    """Read a record over a new connection."""
    connection: Any = client.connection_pool.make_connection()
    connection.connect()
    return _hmget(connection, key), connection


def _hmget(connection: Any, key: str) -> Row | None:
    try:
        connection.send_command("HMGET", PREFIX + key, *_FIELDS)
        return _row(connection.read_response())
    except BaseException:
        connection.disconnect()
        raise


def _attempt(operation: Callable[[redis.Redis], T], client: redis.Redis, deadline: float) -> T:
    """Carry out an operation. If the connection breaks, repeat it once on a new connection.

    redis-py closes a broken connection. Before it uses an idle one, it checks whether Redis has
    closed it.
    """
    try:
        return operation(client)
    except (AuthenticationError, BusyLoadingError):
        raise
    except (ConnectionError, TimeoutError):
        if time.monotonic() > deadline:
            raise
        return operation(client)


def _translated(process: _Process, call: Callable[[], T]) -> T:
    """Return what a call returns, and turn its exceptions into StoreUnavailable."""
    try:
        return call()
    except (ValueError, TypeError, AttributeError, LookupError, OverflowError, RecursionError):
        # A reply that Redis never sends causes these, here or in redis-py, and so does a record
        # that is not text.
        text = "The session store is not Redis, or it contains unreadable records."
    except RedisError as error:
        if isinstance(error, ReadOnlyError):
            # It may have been the primary until now. Close its connections, so that the next ones
            # resolve the name again.
            process.disconnect_idle()
        # Do not quote the error, because Redis repeats what it did not understand.
        text = f"The session store in Redis {_explain(error)}."
    # Outside the except blocks, so that it does not lead to frames of redis-py, which contain the
    # password.
    raise StoreUnavailable(text)


def _explain(error: RedisError) -> str:
    match error:
        case AuthenticationError():
            return (
                "refuses the user or password of DEVKIT_SSO_STORE_URL (special characters in them "
                "must be percent-encoded)"
            )
        case BusyLoadingError():
            return "is starting and loading its data"
        case TimeoutError():
            return "did not respond in time"
        case ConnectionError():
            return (
                "cannot be reached: check DEVKIT_SSO_STORE_URL, and whether Redis is running there"
            )
        case ReadOnlyError():
            return "is a read-only replica"
        case ResponseError():
            code = re.match(r"[A-Z]{2,20}\b", str(error))
            return f"refuses a command ({code[0] if code else type(error).__name__})"
        case _:
            return f"cannot be used ({type(error).__name__})"


def _eval(client: redis.Redis, script: str, key: str, *values: str | float) -> Any:
    # Do not use EVALSHA: the scripts are short, and Redis forgets them when it restarts.
    return client.eval(script, 1, PREFIX + key, *[str(value) for value in values])


def _read_all(client: redis.Redis, keys: list[str]) -> dict[str, Row]:
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.hmget(PREFIX + key, _FIELDS)
        rows = [_row(answer) for answer in pipeline.execute()]
    return {key: row for key, row in zip(keys, rows, strict=True) if row is not None}


def _data(reply: Any) -> str | None:
    """Return the data of a record, or None if there is none.

    :raises TypeError: for a reply that Redis never sends.
    """
    if not isinstance(reply, str | None):
        raise TypeError
    return reply


def _row(fields: Any) -> Row | None:
    try:
        data, used, expires = _data(fields[0]), float(fields[1]), float(fields[2])
    except (ValueError, TypeError):
        # There is no such record, or it is not ours.
        return None
    return Row(data, used) if data is not None and expires > time.time() else None


def _call_id() -> str:
    return secrets.token_hex(8)
