"""Storage for items that expire."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from typing import Generic, TypeVar

from .hashing import hashed

T = TypeVar("T")

DAY = 86_400
"""Seconds."""

LIMIT = 10_000
"""How many items of one kind a sandbox keeps."""


def now() -> float:
    """Return the time in seconds that every lifetime is measured by."""
    return time.time()


class ExpiringStore(Generic[T]):
    """Items that all expire after the same lifetime, in seconds.

    A full store drops its oldest items. Like a server's database, it contains only hashes of the
    keys, because many keys are codes and tokens. It is not thread-safe: its owner has the lock.
    """

    def __init__(self, lifetime: float) -> None:
        self._lifetime = lifetime
        # Oldest first, since all lifetimes are equal.
        self._items: OrderedDict[str, tuple[float, T]] = OrderedDict()

    def put(self, key: str, item: T) -> None:
        """Store an item, replacing one with the same key; its lifetime starts now."""
        key_hash = hashed(key)
        self._items.pop(key_hash, None)
        while self._items:
            expires_at, _ = next(iter(self._items.values()))
            if now() < expires_at and len(self._items) < LIMIT:
                break
            self._items.popitem(last=False)
        self._items[key_hash] = (now() + self._lifetime, item)

    def add(self, item: T) -> str:
        """Store an item under a new key of 256 random bits; return the key."""
        key = secrets.token_urlsafe(32)
        self.put(key, item)
        return key

    def get(self, key: str) -> T | None:
        """Return an item, or None if it does not exist or has expired."""
        found = self._items.get(hashed(key))
        return found[1] if found and now() < found[0] else None

    def pop(self, key: str) -> T | None:
        """Remove an item and return it, or None if it does not exist or has expired."""
        item = self.get(key)
        self._items.pop(hashed(key), None)
        return item

    def __len__(self) -> int:
        return len(self._items)
