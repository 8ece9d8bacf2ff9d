"""Time that passes because a test says so.

Both clocks of this process obey, for the package and the tests alike. Other processes (Redis, a
browser) do not notice, and a thread that sleeps or waits does so in real time.
"""

from __future__ import annotations

import math
import time

_real_time, _real_monotonic = time.time, time.monotonic
_passed = 0.0
_stopped_at: tuple[float, float] | None = None


def install() -> None:
    """Put the clocks of this process under the control of this module."""
    time.time = lambda: (_stopped_at[0] if _stopped_at else _real_time()) + _passed
    time.monotonic = lambda: (_stopped_at[1] if _stopped_at else _real_monotonic()) + _passed


def advance(seconds: float) -> None:
    """Let time pass, without waiting."""
    global _passed
    _passed += seconds


def stop() -> None:
    """Let no more time pass than :func:`advance` says, however slow the machine is.

    Both clocks stop at a whole second, so that sums and differences of them are exact.
    """
    global _stopped_at
    _stopped_at = float(math.ceil(_real_time())), float(math.ceil(_real_monotonic()))


def reset() -> None:
    """Go back to the real time."""
    global _passed, _stopped_at
    _passed, _stopped_at = 0.0, None
