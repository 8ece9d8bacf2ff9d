"""A circuit breaker: keeps a process from waiting for a server that does not respond."""

from __future__ import annotations

import threading
import time
from typing import Final

from ..errors import ServerUnavailable

BREAK_AFTER: Final = 3
"""After this many calls in a row without a response, a process stops calling an interface."""

BREAK_FOR: Final = 5.0
"""Seconds until the process tries again, with one call at a time."""


class Breaker:
    """The breaker of one interface. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0
        self._next_attempt = 0.0

    def check(self, timeout: float) -> None:
        """Return if a call may be made now.

        :param timeout: the call's deadline in seconds.
        :raises ServerUnavailable: if no call may be made.
        """
        with self._lock:
            if self._failures < BREAK_AFTER:
                return
            now = time.monotonic()
            if now < self._next_attempt:
                raise ServerUnavailable(
                    "The server did not respond to the last calls. It will be tried again in a few "
                    "seconds."
                )
            self._next_attempt = now + timeout + BREAK_FOR

    def record(self, *, responded: bool) -> None:
        """Record whether the server responded to a call."""
        with self._lock:
            self._failures = 0 if responded else self._failures + 1
            self._next_attempt = time.monotonic() + BREAK_FOR
