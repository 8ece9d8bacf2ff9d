"""Redis or Valkey for workers on many hosts.

A record is a hash; an owner's records are in a sorted set of their keys by the time at which they
expire. Every write is one script, so that record and index change together and at once.

A connection can break when Redis has done what it was told and before it says so. Each call is
therefore made such that it can be sent again: a script knows a call that it has carried out by its
id, and answers as it did the first time.
"""

from __future__ import annotations

import builtins
import os
import re
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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

from ..errors import ConfigError, StoreUnavailable
from .base import DEADLINE, Row

T = TypeVar("T")

PREFIX: Final = "devkit_sso:"
"""Of every key, so that a Redis that others use too shows whose they are."""

MAX_CALLS: Final = 32
"""Calls in flight in one process; a further one waits for a place within its own deadline."""

SLACK: Final = 60.0
"""Seconds for which Redis keeps a record beyond its end, which readers judge by their own clocks:
so much may these differ."""

_SOCKET_TIMEOUT: Final = 0.7
"""Seconds for one answer: a connection that leads nowhere leaves time for a second try."""

_INDEX: Final = f"""
local function index(owner, expires, now, ttl)
    if owner and owner ~= '' then
        local name = '{PREFIX}owner:' .. owner
        redis.call('ZADD', name, expires, KEYS[1])
        redis.call('ZREMRANGEBYSCORE', name, '-inf', now - {SLACK:.0f})
        if redis.call('PTTL', name) < ttl then redis.call('PEXPIRE', name, ttl) end
    end
end
local function alive(now)
    local expires = redis.call('HGET', KEYS[1], 'expires')
    return expires and tonumber(expires) > now
end
"""

_ADD: Final = f"""{_INDEX}
local data, now, expires, owner, call = unpack(ARGV)
if alive(tonumber(now)) then
    return redis.call('HGET', KEYS[1], 'call') == call and 1 or 0
end
local ttl = math.floor((expires - now + {SLACK:.0f}) * 1000)
-- The first write is one that Redis refuses when it is out of memory.
redis.call('HSET', KEYS[1], 'data', data, 'used', now, 'expires', expires, 'owner', owner,
    'call', call)
redis.call('PEXPIRE', KEYS[1], ttl)
index(owner, expires, tonumber(now), ttl)
return 1
"""

_UPDATE: Final = f"""{_INDEX}
local data, now, condition, expected = unpack(ARGV)
if not alive(tonumber(now)) then return 0 end
if condition == '1' and redis.call('HGET', KEYS[1], 'data') ~= expected then return 0 end
redis.call('HSET', KEYS[1], 'data', data)
return 1
"""

_TOUCH: Final = f"""{_INDEX}
local used, now, expires = unpack(ARGV)
local before, owner = unpack(redis.call('HMGET', KEYS[1], 'used', 'owner'))
if not alive(tonumber(now)) or tonumber(before) >= tonumber(used) then return 0 end
local ttl = math.floor((expires - now + {SLACK:.0f}) * 1000)
redis.call('HSET', KEYS[1], 'used', used, 'expires', expires)
redis.call('PEXPIRE', KEYS[1], ttl)
index(owner, expires, tonumber(now), ttl)
return 1
"""

_REMOVE: Final = f"""{_INDEX}
local now, condition, wanted, call = unpack(ARGV)
local answer = '{PREFIX}removed:' .. call
local before = redis.call('GET', answer)
if before then return before end
local data, owner = unpack(redis.call('HMGET', KEYS[1], 'data', 'owner'))
local found = alive(tonumber(now))
if not data or (condition == '1' and data ~= wanted) then return false end
redis.call('DEL', KEYS[1])
if owner and owner ~= '' then redis.call('ZREM', '{PREFIX}owner:' .. owner, KEYS[1]) end
if not found then return false end
redis.call('SET', answer, data, 'PX', {DEADLINE * 2000:.0f})
return data
"""


class RedisStore:
    """A :class:`~flask_devkit_sso.stores.Store` in one Redis or Valkey (no cluster), for threads,
    processes and forks.

    Each operation runs in a thread of a small pool, and its caller waits no longer than the
    deadline: no timeout of a socket covers the resolver, or all steps of connecting.

    :param url: as redis-py takes it, whose options may follow a ``?``: ``ssl_ca_certs`` and so on.
    :raises ConfigError: when redis-py refuses it.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        # By process, as in transport.py: sockets and threads don't survive a fork.
        self._by_process: dict[int, tuple[redis.Redis, ThreadPoolExecutor]] = {}
        try:
            pool = self._client().connection_pool
            pool.connection_class(**pool.connection_kwargs)
        except (ValueError, TypeError, RedisError):
            # Without the cause: it may repeat what is in the URL, and that may be a password.
            raise ConfigError(
                "DEVKIT_SSO_STORE_URL is not understood by redis-py: it must be like "
                "redis://user:password@host:6379/0, with what is special in the password "
                "percent-encoded, and after a ? only options of redis-py's connections"
            ) from None

    def add(self, key: str, data: str, *, expires: float, owner: str | None = None) -> bool:
        values = (data, time.time(), expires, owner or "", _call_id())
        return self._run(lambda client: bool(_eval(client, _ADD, key, *values)))

    def read(self, key: str) -> Row | None:
        return self._run(lambda client: _row(client.hmget(PREFIX + key, _FIELDS)))

    def update(self, key: str, data: str, *, expected: str | None = None) -> bool:
        # Sent again after it was done, it may answer False: whoever expects something then looks.
        values = (data, time.time(), int(expected is not None), expected or "")
        return self._run(lambda client: bool(_eval(client, _UPDATE, key, *values)))

    def touch(self, key: str, *, used: float, expires: float) -> None:
        now = time.time()
        self._run(lambda client: _eval(client, _TOUCH, key, used, now, expires))

    def remove(self, key: str, *, data: str | None = None) -> str | None:
        values = (time.time(), int(data is not None), data or "", _call_id())
        return self._run(lambda client: cast("str | None", _eval(client, _REMOVE, key, *values)))

    def remove_owner(self, owner: str) -> list[str]:
        calls: dict[str, str] = {}

        def remove(client: redis.Redis) -> list[str]:
            # Asked once: sent again, the removals must be the same ones.
            if not calls:
                calls.update({key: _call_id() for key in self._keys_of(client, owner)})
            with client.pipeline(transaction=False) as pipeline:
                for key, call in calls.items():
                    _eval(pipeline, _REMOVE, key, time.time(), 0, "", call)
                if calls:
                    pipeline.zrem(f"{PREFIX}owner:{owner}", *[PREFIX + key for key in calls])
                answers = pipeline.execute()
            return [data for data in answers[: len(calls)] if data is not None]

        return self._run(remove)

    def of_owner(self, owner: str) -> dict[str, Row]:
        return self._run(lambda client: _read_all(client, self._keys_of(client, owner)))

    def below(self, prefix: str) -> dict[str, Row]:
        rows: dict[str, Row] = {}
        cursor = 0

        def page(client: redis.Redis) -> tuple[int, dict[str, Row]]:
            following, names = cast(
                "tuple[int, list[str]]", client.scan(cursor, f"{PREFIX}{prefix}*", 1000)
            )
            keys = [name.removeprefix(PREFIX) for name in names]
            return following, _read_all(client, keys)

        while True:
            cursor, found = self._run(page)
            rows |= found
            if cursor == 0:
                return rows

    def _keys_of(self, client: redis.Redis, owner: str) -> list[str]:
        keys = cast("list[str]", client.zrange(f"{PREFIX}owner:{owner}", 0, -1))
        return [key.removeprefix(PREFIX) for key in keys]

    def _run(self, operation: Callable[[redis.Redis], T]) -> T:
        pid = os.getpid()
        try:
            client, threads = self._by_process[pid]
        except KeyError:
            threads = ThreadPoolExecutor(MAX_CALLS, thread_name_prefix="devkit-sso-store")
            client, threads = self._by_process.setdefault(pid, (self._client(), threads))
        deadline = time.monotonic() + DEADLINE
        try:
            future = threads.submit(_attempt, operation, client, deadline)
        except RuntimeError:
            # The interpreter is ending. A refresh that is still under way may write what it got.
            return _attempt(operation, client, deadline)
        try:
            return future.result(DEADLINE)
        except builtins.TimeoutError:
            future.cancel()
            raise StoreUnavailable(
                f"The session store in Redis gave no answer within {DEADLINE:g} seconds."
            ) from None

    def _client(self) -> redis.Redis:
        return redis.Redis(
            connection_pool=redis.ConnectionPool.from_url(
                self._url,
                decode_responses=True,
                # What Redis before 6 and proxies understand, too.
                protocol=2,
                retry=Retry(NoBackoff(), 0),
                socket_connect_timeout=_SOCKET_TIMEOUT,
                socket_keepalive=True,
                socket_timeout=_SOCKET_TIMEOUT,
            )
        )


_FIELDS: Final = ["data", "used", "expires"]


def _attempt(operation: Callable[[redis.Redis], T], client: redis.Redis, deadline: float) -> T:
    """Carry an operation out, if need be once more on another connection.

    The second one is a new one: redis-py closes a broken connection, and before it uses another
    idle one it looks whether Redis has closed that.
    """
    try:
        try:
            return operation(client)
        except (AuthenticationError, BusyLoadingError):
            raise
        except (ConnectionError, TimeoutError):
            if time.monotonic() > deadline:
                raise
            return operation(client)
    except (ValueError, TypeError, RecursionError):
        # What redis-py makes of an answer that no Redis gives, and of a record that is not text.
        raise StoreUnavailable("What answers is no Redis, or has odd records.") from None
    except RedisError as error:
        if isinstance(error, ReadOnlyError):
            # It may have been the primary until now: ask the name anew where that is.
            client.connection_pool.disconnect(inuse_connections=False)
        # Neither chained nor quoted: Redis repeats what it does not understand.
        raise StoreUnavailable(f"The session store in Redis {_explain(error)}.") from None


def _explain(error: RedisError) -> str:
    match error:
        case AuthenticationError():
            return (
                "refuses the user or password of DEVKIT_SSO_STORE_URL (what is special in them has "
                "to be percent-encoded)"
            )
        case BusyLoadingError():
            return "is starting: it is loading its data"
        case TimeoutError():
            return "did not answer in time"
        case ConnectionError():
            return "can't be reached: check DEVKIT_SSO_STORE_URL, and whether Redis runs there"
        case ReadOnlyError():
            return "is a read-only replica"
        case ResponseError():
            code = re.match(r"[A-Z]{2,20}\b", str(error))
            return f"refuses a command ({code[0] if code else type(error).__name__})"
        case _:
            return f"can't be used ({type(error).__name__})"


def _eval(client: redis.Redis, script: str, key: str, *values: str | float) -> Any:
    # EVAL, not EVALSHA: the text is short, and Redis forgets scripts when it is restarted.
    return client.eval(script, 1, PREFIX + key, *[str(value) for value in values])


def _read_all(client: redis.Redis, keys: list[str]) -> dict[str, Row]:
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.hmget(PREFIX + key, _FIELDS)
        rows = [_row(answer) for answer in pipeline.execute()]
    return {key: row for key, row in zip(keys, rows, strict=True) if row is not None}


def _row(fields: Any) -> Row | None:
    try:
        data, used, expires = fields[0], float(fields[1]), float(fields[2])
    except (ValueError, TypeError):
        # Not there, or not ours.
        return None
    return Row(data, used) if data is not None and expires > time.time() else None


def _call_id() -> str:
    return secrets.token_hex(8)
