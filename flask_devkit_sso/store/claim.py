"""Claims: the right of one worker, among all workers and hosts, to do something."""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from typing import Final

from ..errors import RETRY_AFTER, ServerUnavailable, StoreUnavailable
from .base import SKEW, Store

POLL: Final = 0.05
"""Seconds between two checks of what another worker is doing."""

_FAILED: Final = "failed"


class Claim:
    """The exclusive right to do one thing. It expires by itself if its holder is killed.

    :param seconds: how long it lasts.
    """

    def __init__(self, store: Store, key: str, seconds: float) -> None:
        self._store = store
        self._key = key
        self._seconds = seconds
        self._holder = secrets.token_hex(8)

    def take(self) -> bool:
        """Take the claim if it is free, and return whether that succeeded.

        :raises ServerUnavailable: if its last holder failed a moment ago.
        """
        row = self._store.read(self._key)
        now = time.time()
        if row is not None and row.data == _FAILED:
            if row.used - now <= SKEW:
                raise ServerUnavailable("The last attempt failed a moment ago.")
            # The clock has been set back, so the mark would stay for that much longer.
            self._store.remove(self._key, data=_FAILED)
            row = None
        return row is None and self._store.add(self._key, self._holder, expires=now + self._seconds)

    def release(self) -> None:
        """Release the claim, unless somebody else has taken it over."""
        # If the store fails here, the work has been done anyway, and the claim expires.
        with suppress(StoreUnavailable):
            self._store.remove(self._key, data=self._holder)

    def fail(self) -> None:
        """Release the claim, and keep everybody from trying again for a few seconds."""
        with suppress(StoreUnavailable):
            if self._store.remove(self._key, data=self._holder) is not None:
                self._store.add(self._key, _FAILED, expires=time.time() + RETRY_AFTER)


def is_claimed(store: Store, key: str) -> bool:
    """Return whether a worker has taken the claim with this key."""
    row = store.read(key)
    return row is not None and row.data != _FAILED
