"""Stores with many sessions: what a read and a login's write take, and ending many sessions at once.

The records are copies of one that the package wrote, under other keys.
"""

from __future__ import annotations

import random
import secrets
import sqlite3
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import redis

from flask_devkit_sso.store.base import Store
from flask_devkit_sso.store.redis import RedisStore
from flask_devkit_sso.store.sqlite import SQLiteStore

_DATA = "x" * 1100
"""A record of a session has this length."""

_READS, _WRITES = 5000, 3000


@dataclass(frozen=True)
class Times:
    """What single operations took, in microseconds."""

    median: float
    p99: float
    worst: float


def measure(call: Callable[[], object], times: int) -> Times:
    """Return what a call takes."""
    took = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        took.append((time.perf_counter() - started) * 1e6)
    took.sort()
    return Times(statistics.median(took), took[int(len(took) * 0.99)], took[-1])


def fill_sqlite(path: Path, count: int, *, expired: int = 0) -> list[str]:
    """Write records into the file of a store, of which some have expired, and return their keys."""
    SQLiteStore(path).read("k")
    now = time.time()
    keys = [f"i:session:{secrets.token_hex(32)}" for _ in range(count + expired)]
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executemany(
            "INSERT INTO record (key, owner, data, used, expires) VALUES (?, ?, ?, ?, ?)",
            (
                (
                    key,
                    f"i:user:{number % 100_000}",
                    _DATA,
                    now,
                    now + (-60 if number < expired else 1e5),
                )
                for number, key in enumerate(keys)
            ),
        )
    connection.close()
    return keys[expired:]


def fill_redis(url: str, count: int) -> list[str]:
    """Write records into Redis and return their keys."""
    keys = [f"i:session:{secrets.token_hex(32)}" for _ in range(count)]
    client = redis.Redis.from_url(url)
    now = time.time()
    for first in range(0, count, 2000):
        with client.pipeline(transaction=False) as pipeline:
            for number, key in enumerate(keys[first : first + 2000], first):
                name = f"devkit_sso:{key}"
                fields = {"data": _DATA, "used": now, "expires": now + 1e5}
                pipeline.hset(name, mapping=fields)
                pipeline.expire(name, 100_000)
                pipeline.zadd(f"devkit_sso:owner:i:user:{number % 100_000}", {name: now + 1e5})
            pipeline.execute()
    return keys


def reads(store: Store, keys: list[str]) -> Times:
    """Read random records."""

    def read() -> None:
        if store.read(random.choice(keys)) is None:  # noqa: S311
            raise AssertionError("a record is missing")

    read()
    return measure(read, _READS)


def writes(store: Store) -> Times:
    """Write records as a login does: one for the login, removed again, and one for the session."""

    def login() -> None:
        now, key = time.time(), secrets.token_hex(16)
        store.add(f"i:login:{key}", "x" * 300, expires=now + 600)
        store.remove(f"i:login:{key}")
        store.add(f"i:session:{key}", _DATA, expires=now + 1e5, owner="i:user:new")

    return measure(login, _WRITES)


def end_all(store: Store, count: int) -> float:
    """Give one user many sessions, end them, and return how many seconds the second step takes."""
    for _ in range(count):
        key = f"i:session:{secrets.token_hex(32)}"
        store.add(key, _DATA, expires=time.time() + 1e5, owner="i:user:many")
    started = time.perf_counter()
    ended = len(store.remove_owner("i:user:many"))
    if ended != count:
        raise AssertionError(f"{ended} of {count} sessions ended")
    return time.perf_counter() - started


def on_sqlite(folder: Path, count: int) -> dict[str, Times | float]:
    """Return what operations take with few sessions, with many, and with many expired ones."""
    found: dict[str, Times | float] = {}
    folder.mkdir()
    few = folder / "few.db"
    found["read, 1,000 sessions"] = reads(SQLiteStore(few), fill_sqlite(few, 1000))
    found["login, 1,000 sessions"] = writes(SQLiteStore(few))
    many = folder / "many.db"
    keys = fill_sqlite(many, count, expired=100_000)
    found[f"login, {count:,} sessions, 100,000 expired"] = writes(SQLiteStore(many))
    found[f"read, {count:,} sessions"] = reads(SQLiteStore(many), keys)
    found["seconds to end 20,000 sessions of a user"] = end_all(SQLiteStore(many), 20_000)
    found["MB of WAL at the end"] = many.with_name("many.db-wal").stat().st_size / 1e6
    return found


def on_redis(url: str, count: int) -> dict[str, Times | float]:
    """Return what operations take with few sessions and with many."""
    store = RedisStore(url)
    found: dict[str, Times | float] = {}
    found["read, 1,000 sessions"] = reads(store, fill_redis(url, 1000))
    found["login, 1,000 sessions"] = writes(store)
    keys = fill_redis(url, count)
    found[f"read, {count:,} sessions"] = reads(store, keys)
    found[f"login, {count:,} sessions"] = writes(store)
    found["seconds to end 20,000 sessions of a user"] = end_all(store, 20_000)
    return found
