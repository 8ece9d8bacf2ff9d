"""Limits how often somebody may guess a secret."""

from __future__ import annotations

import threading

from .expiring import ExpiringStore


class Guesses:
    """Counts wrong guesses, separately for each key. Thread-safe.

    :param limit: the number of wrong guesses, after which further ones are refused unseen.
    :param seconds: how long they are refused.
    """

    def __init__(self, limit: int, seconds: int) -> None:
        self.seconds = seconds
        self._limit = limit
        self._lock = threading.Lock()
        self._counts: ExpiringStore[int] = ExpiringStore(seconds)

    def take(self, key: str) -> bool:
        """Count a guess, and return whether it may be looked at.

        Call it before comparing anything: if guesses were counted afterwards, any number of them
        could be compared at the same time.
        """
        with self._lock:
            count = self._counts.get(key) or 0
            if count >= self._limit:
                return False
            self._counts.put(key, count + 1)
            return True

    def forget(self, key: str) -> None:
        """Forget the guesses, because the last one was right."""
        with self._lock:
            self._counts.pop(key)
