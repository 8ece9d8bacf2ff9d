"""A store in Redis or Valkey, for workers on many hosts.

A record is a hash. The keys of an owner's records are in a sorted set, ordered by the time at which
they expire. Every write is one script, so that record and index change together.

A connection can break after Redis has carried out a command and before its reply arrives. So every
call can be sent again. Each call has an id, by which a script recognises a repeated call and
returns the same result as before.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar, cast

import redis
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,
    RedisError,
    TimeoutError,
)

from ..bulkhead import Place
from ..errors import StoreUnavailable
from ..per_process import PerProcess
from . import redis_scripts as scripts
from .base import Row, Unreplicated
from .redis_client import check_url, create_client, has_sentinels
from .redis_errors import explain, is_read_only
from .redis_scripts import PREFIX
from .threaded import ThreadedBulkheads

T = TypeVar("T")

_WAIT: Final = 500
"""Milliseconds in which a replica has to confirm a removal."""

_UNREPLICATED: Final = (
    "The session store in Redis has removed this, but no replica has confirmed it: a failover "
    "could undo it"
)
_REPEAT: Final = "Do it again, and check the replicas"

_LOOK_EVERY: Final = 1.0
"""Seconds after which a process asks the Sentinels for the primary again."""

_BATCH: Final = 250
"""How many records of an owner one operation reads or removes."""


class RedisStore:
    """A :class:`~flask_devkit_sso.store.base.Store` in one Redis or Valkey (not a cluster).

    Threads, processes and forks may share it.

    :param url: as redis-py accepts it, with its options such as ``ssl_ca_certs`` after a ``?``. Or
        the URL of Sentinels, such as ``redis+sentinel://host:26379,host:26379/service/0``.
    :raises ConfigError: if redis-py rejects the URL.
    """

    def __init__(self, url: str) -> None:
        check_url(url)
        self._has_sentinels = has_sentinels(url)
        self._process = PerProcess(lambda: _Process(create_client(url)))

    def add(self, key: str, data: str, *, expires: float, owner: str | None = None) -> bool:
        values = (data, time.time(), expires, owner or "", _call_id())
        return self._run(lambda client: bool(_eval(client, scripts.ADD, key, *values)))

    def read(self, key: str) -> Row | None:
        process = self._process.get()
        with process.reads.enter() as place:
            # Every request reads, and handing a call to another thread takes longer than Redis
            # takes to reply. On a connection that is open, the socket's timeout limits the read.
            if self._has_sentinels:
                process.look_for_primary()
            found = _translated(lambda: _read(process, key))
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

    def remove(self, key: str, *, data: str | None = None, lasting: bool = False) -> str | None:
        values = (time.time(), int(data is not None), data or "", _call_id())

        def remove(client: redis.Redis) -> tuple[list[str], bool]:
            has_replicas = lasting and self._has_replicas(client)
            with client.pipeline(transaction=False) as pipeline:
                _eval(pipeline, scripts.REMOVE, key, *values)
                return _execute_removal(pipeline, 1, has_replicas=has_replicas)

        removed, is_replicated = self._run(remove)
        if not is_replicated:
            raise Unreplicated(_UNREPLICATED, _REPEAT, removed)
        return removed[0] if removed else None

    def remove_owner(self, owner: str) -> list[str]:
        removed: list[str] = []
        are_replicated = True
        while True:
            calls: dict[str, str] = {}
            some, is_replicated = self._run(partial(self._remove_some, owner, calls))
            removed += some
            are_replicated &= is_replicated
            if len(calls) < _BATCH:
                break
        if not are_replicated:
            raise Unreplicated(_UNREPLICATED, _REPEAT, removed)
        return removed

    def _remove_some(
        self, owner: str, calls: dict[str, str], client: redis.Redis
    ) -> tuple[list[str], bool]:
        """Remove some records of an owner. Return their data, and whether that is replicated.

        :param calls: the id of each call by key. It is empty at first: a repetition removes the
            same records.
        """
        index = f"{PREFIX}owner:{owner}"
        if not calls:
            names = cast("list[str]", client.zrange(index, 0, _BATCH - 1))
            calls.update({name.removeprefix(PREFIX): _call_id() for name in names})
        has_replicas = self._has_replicas(client)
        with client.pipeline(transaction=False) as pipeline:
            for key, call in calls.items():
                _eval(pipeline, scripts.REMOVE, key, time.time(), 0, "", call)
            if calls:
                pipeline.zrem(index, *[PREFIX + key for key in calls])
            return _execute_removal(pipeline, len(calls), has_replicas=has_replicas)

    def _has_replicas(self, client: redis.Redis) -> bool:
        """Return whether the server has replicas, or should have some."""
        if self._has_sentinels:
            return True
        role = client.execute_command("ROLE")  # type: ignore[no-untyped-call]
        return isinstance(role, list) and len(role) == 3 and bool(role[2])

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

    def eviction_policy(self) -> str | None:
        """Return which records Redis deletes when its memory is full (``maxmemory-policy``), or
        None if this cannot be found out."""

        def ask(client: redis.Redis) -> object:
            # Users that may not use CONFIG, as in a cloud, may often use INFO.
            return client.info("memory").get("maxmemory_policy")

        try:
            policy = self._run(ask, is_read=True)
        except StoreUnavailable:
            return None
        return policy if isinstance(policy, str) else None

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
        call = partial(_attempt, operation, process, place.deadline)
        return process.in_thread(place, partial(_translated, call))


_FIELDS: Final = ["data", "used", "expires"]


_Found = tuple[Row | None, Any]
"""A record, and the connection over which it was read. redis-py does not type its connections."""


class _Process(ThreadedBulkheads):
    """What one process has: a client, threads, and idle connections for reads."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__("Redis")
        self.client = client
        self.idle: deque[Any] = deque()
        self._look_at = 0.0

    def look_for_primary(self) -> None:
        """Ask the Sentinels in the background which server is the primary, every second.

        Soon after a failover, one of them may still name the old primary. If that has restarted, it
        accepts connections, and works for ten seconds as if it still were the primary.
        """
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK_EVERY
            pool: Any = self.client.connection_pool
            # The pool closes its own connections to another server. If the interpreter is shutting
            # down, there is no thread.
            with suppress(RuntimeError):
                self.in_background(pool.get_master_address)

    def disconnect_idle(self) -> None:
        """Close all connections that are not in use."""
        self.client.connection_pool.disconnect(inuse_connections=False)
        with suppress(IndexError):
            while True:
                self.idle.pop().disconnect()


def _read(process: _Process, key: str) -> _Found | None:
    """Read a record over an idle connection. Return None if there is none, or if it breaks."""
    pool: Any = process.client.connection_pool
    try:
        connection = process.idle.pop()
        while not pool.owns_connection(connection):
            # It leads to a server that was the primary before.
            connection.disconnect()
            connection = process.idle.pop()
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
    pool: Any = client.connection_pool
    # Not make_connection, which counts the connections for max_connections and would never forget
    # this one: the pool does not learn when it is closed.
    connection: Any = pool.connection_class(**pool.connection_kwargs)
    connection.connect()
    return _hmget(connection, key), connection


def _hmget(connection: Any, key: str) -> Row | None:
    try:
        connection.send_command("HMGET", PREFIX + key, *_FIELDS)
        return _row(connection.read_response())
    except BaseException:
        connection.disconnect()
        raise


def _attempt(operation: Callable[[redis.Redis], T], process: _Process, deadline: float) -> T:
    """Carry out an operation. If the connection breaks or the server has become a replica, repeat
    it once on a new connection.

    redis-py closes a broken connection. Before it uses an idle one, it checks whether Redis has
    closed it.
    """
    client = process.client
    try:
        return operation(client)
    except RedisError as error:
        if isinstance(error, AuthenticationError | BusyLoadingError):
            raise
        if is_read_only(error):
            # It was the primary until now. Close its connections, so that the next ones resolve
            # the name again.
            process.disconnect_idle()
        elif not isinstance(error, ConnectionError | TimeoutError):
            raise
        if time.monotonic() > deadline:
            raise
    return operation(client)


def _translated(call: Callable[[], T]) -> T:
    """Return what a call returns, and turn its exceptions into StoreUnavailable."""
    try:
        return call()
    except (ValueError, TypeError, AttributeError, LookupError, OverflowError, RecursionError):
        # A reply that Redis never sends causes these, here or in redis-py, and so does a record
        # that is not text.
        text, fix = "The session store is not Redis, or it contains unreadable records.", ""
    except RedisError as error:
        reason, fix = explain(error)
        text = f"The session store in Redis {reason}"
    # Outside the except blocks, so that it does not lead to frames of redis-py, which contain the
    # password.
    raise StoreUnavailable(text, fix)


def _eval(client: redis.Redis, script: str, key: str, *values: str | float) -> Any:
    # Do not use EVALSHA: the scripts are short, and Redis forgets them when it restarts.
    return client.eval(script, 1, PREFIX + key, *[str(value) for value in values])


def _execute_removal(pipeline: Any, number: int, *, has_replicas: bool) -> tuple[list[str], bool]:
    """Send a pipeline that begins with a number of removals. Return the data that they removed, and
    whether a replica has confirmed everything that was written so far.

    Replication is asynchronous: if a replica that lags behind becomes the primary, it still has
    these records.
    """
    if has_replicas:
        # On the same connection: WAIT is about what its connection has written.
        pipeline.execute_command("WAIT", 1, _WAIT)
    replies = pipeline.execute()
    found = map(_data, replies[:number])
    return [data for data in found if data is not None], not has_replicas or replies[-1] >= 1


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
    is_readable = data is not None and "\ufffd" not in data
    # No comparison with NaN is true.
    return Row(data or "", used) if is_readable and expires > time.time() else None


def _call_id() -> str:
    return secrets.token_hex(8)
