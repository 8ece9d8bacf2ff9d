"""Clients of redis-py, for one Redis or for the primary that Sentinels name."""

from __future__ import annotations

import copy
import re
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from ..errors import ConfigError

_SOCKET_TIMEOUT: Final = 0.7
"""Seconds for one reply, so that a dead connection leaves time for a second attempt."""

_SENTINEL_PORT: Final = 26379


def has_sentinels(url: str) -> bool:
    """Return whether a URL names Sentinels."""
    return urlsplit(url).scheme.endswith("+sentinel")


def check_url(url: str) -> None:
    """Check whether redis-py accepts a URL.

    :raises ConfigError: if it does not.
    """
    example = "redis://user:password@host:6379/0"
    if has_sentinels(url):
        example = "redis+sentinel://user:password@host:26379,host:26379/service/0"
    try:
        pool = create_client(url).connection_pool
        pool.connection_class(**pool.connection_kwargs)
    except (ValueError, TypeError, RedisError):
        pass
    else:
        return
    # Outside the except block, because the exception may quote the URL with its password.
    raise ConfigError(
        f"redis-py rejects DEVKIT_SSO_STORE_URL: it must be like {example}, with special "
        "characters in the password percent-encoded, and after a ? only options of redis-py's "
        "connections"
    )


def create_client(url: str) -> redis.Redis:
    """Return a client, which connects when it is first used.

    :raises ValueError, TypeError, RedisError: if the URL is not valid.
    """
    options: dict[str, Any] = {
        "decode_responses": True,
        # A damaged record must not keep those beside it from being read.
        "encoding_errors": "replace",
        # Redis before version 6 and some proxies understand only this protocol.
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": _SOCKET_TIMEOUT,
        "socket_keepalive": True,
        "socket_timeout": _SOCKET_TIMEOUT,
    }
    if has_sentinels(url):
        return redis.Redis(connection_pool=_sentinel_pool(url, options))
    return redis.Redis(connection_pool=redis.ConnectionPool.from_url(url, **options))


def _sentinel_pool(url: str, options: dict[str, Any]) -> SentinelConnectionPool:
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    service, _, number = parts.path.removeprefix("/").partition("/")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    sentinel_options = {
        name: query.pop(f"sentinel_{name}", None) for name in ("username", "password")
    }
    # redis-py converts the options of such a URL.
    given = parse_url(f"redis://{credentials}@host/{number}?{urlencode(query)}")  # type: ignore[no-untyped-call]
    options = {name: value for name, value in given.items() if name != "host"} | options
    if parts.scheme.startswith("rediss"):
        options["ssl"] = True
    shared = {
        name: value
        for name, value in options.items()
        if name.startswith(("ssl", "socket_", "retry", "protocol", "decode_"))
    }
    addresses = [_address(host) for host in hosts.split(",")]
    sentinels = _Sentinels(addresses, sentinel_kwargs=shared | sentinel_options)  # type: ignore[no-untyped-call]
    # Replicas may lag behind, so everything is read from the primary.
    return SentinelConnectionPool(unquote(service), sentinels, is_master=True, **options)  # type: ignore[no-untyped-call]


class _Sentinels(Sentinel):
    """The Sentinels that a URL names. Several threads may ask them at the same time.

    redis-py moves the one that has responded to the beginning of its list. Two threads that do so
    at the same time would remove a Sentinel from the list for ever.
    """

    def discover_master(self, service_name: str) -> Any:
        mine = copy.copy(self)
        mine.sentinels = list(self.sentinels)
        try:
            return super(_Sentinels, mine).discover_master(service_name)  # type: ignore[no-untyped-call]
        finally:
            self.sentinels = mine.sentinels


def _address(text: str) -> tuple[str, int]:
    found = re.fullmatch(r"(?:\[([^]]+)]|([^:]+))(?::([0-9]+))?", text)
    if found is None:
        raise ValueError
    return unquote(found[1] or found[2]), int(found[3] or _SENTINEL_PORT)
