"""Databases of Redis with sessions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, cast

import redis

from ..apps import Site, devkit_sso
from . import HOARDER, TEMPLATE, Filled, copy, create_template, new_keys, one_of_many

_BATCH: Final = 2000


class Redis:
    """A :class:`~benchmarks.stores.Backend`, whose stores are databases of one Redis."""

    name = "Redis"

    def __init__(self, site: Site) -> None:
        self._site = site
        self._next = 1

    def fill(self, count: int, hoarded: int = 0) -> Filled:
        url = self._site.redis.rpartition("/")[0] + f"/{self._next}"
        self._next += 1
        app = devkit_sso.on_redis(replace(self._site, redis=url))
        create_template(app)
        before = self._info("memory")["used_memory"]
        keys = _fill(url, count, one_of_many)
        size = (self._info("memory")["used_memory"] - before) / count
        _fill(url, hoarded, lambda number: HOARDER)
        return Filled(app, keys, size)

    def expire(self, filled: Filled, count: int) -> Filled:
        with _client(filled.app.config["DEVKIT_SSO_STORE_URL"]) as client:
            prefix = _owner(client).partition("owner:")[0]
            for first in range(0, count, _BATCH):
                with client.pipeline(transaction=False) as pipeline:
                    for key in filled.keys[first : min(first + _BATCH, count)]:
                        # Redis removes a key at once if its time is not in the future.
                        pipeline.pexpire(prefix + key, 1)
                    pipeline.execute()
        return replace(filled, keys=filled.keys[count:])

    def expired(self, filled: Filled) -> int:
        # Redis removes expired keys by itself, and counts those that are left as if they were gone.
        return 0

    def residue(self, filled: Filled) -> dict[str, str]:
        return {}

    def cpu(self) -> float:
        found = self._info("cpu")
        return float(found["used_cpu_user"] + found["used_cpu_sys"])

    def _info(self, section: str) -> dict[str, Any]:
        with _client(self._site.redis) as client:
            return cast("dict[str, Any]", client.info(section))


def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, decode_responses=True)


def _owner(client: redis.Redis) -> str:
    """Return the name of the index of the template's user."""
    return cast(str, next(client.scan_iter(f"*:owner:*:{TEMPLATE}", count=10_000)))


def _fill(url: str, count: int, uid: Callable[[int], str]) -> list[str]:
    """Write sessions and return their keys as the store knows them."""
    with _client(url) as client:
        owner = _owner(client)
        ((name, score),) = cast("Any", client.zrange(owner, 0, 0, withscores=True))
        template = cast("dict[str, Any]", client.hgetall(name))
        milliseconds = cast(int, client.pttl(name))
        keys = new_keys(name, count)
        for first in range(0, count, _BATCH):
            with client.pipeline(transaction=False) as pipeline:
                for number, key in enumerate(keys[first : first + _BATCH], first):
                    pipeline.hset(key, mapping=copy(template, uid(number)))
                    pipeline.pexpire(key, milliseconds)
                    pipeline.zadd(owner.replace(TEMPLATE, uid(number)), {key: score})
                pipeline.execute()
    prefix = owner.partition("owner:")[0]
    return [key.removeprefix(prefix) for key in keys]
