"""Clocks that a test can advance.

This module replaces both clocks of the process, for the package and for the tests. Other processes
(Redis, a browser) are not affected, and a thread that sleeps or waits does so in real time.
"""

from __future__ import annotations

import math
import time

_real_time, _real_monotonic = time.time, time.monotonic
_passed = _ahead = 0.0
_stopped_at: tuple[float, float] | None = None


def install() -> None:
    """Replace the clocks of this process."""
    time.time = lambda: (_stopped_at[0] if _stopped_at else _real_time()) + _passed + _ahead
    time.monotonic = lambda: (_stopped_at[1] if _stopped_at else _real_monotonic()) + _passed


def advance(seconds: float) -> None:
    """Advance both clocks without waiting."""
    global _passed
    _passed += seconds


def differ(seconds: float) -> None:
    """Let the wall clock be ahead by some seconds, as it may be on another host."""
    global _ahead
    _ahead = seconds


def stop() -> None:
    """Stop both clocks: from now on only :func:`advance` changes them.

    They stop at a whole second, so that sums and differences are exact.
    """
    global _stopped_at
    _stopped_at = float(math.ceil(_real_time())), float(math.ceil(_real_monotonic()))


def reset() -> None:
    """Return to real time."""
    global _passed, _ahead, _stopped_at
    _passed, _ahead, _stopped_at = 0.0, 0.0, None
