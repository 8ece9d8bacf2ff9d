"""Bulkheads: keep a service that does not respond from occupying all threads of the application.

A call to a service that hangs occupies its thread until the call's deadline. So only a few calls
are made until one of them is answered, and the other callers wait. If nothing is answered for about
a second, the service counts as silent: callers for whom there is no place are refused at once.

Somebody may be able to make some calls take long, for instance with invalid authorization codes. So
the last of the few places stays free until the service is nearly silent, and the newest caller gets
it. If that call is answered, there are more places, and the other callers are not refused.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final

FEW: Final = 4
"""Number of places while nothing is answered. The last one is for the newest caller: the probe."""

SILENT_AFTER: Final = 1.1
"""Seconds without any answer after which a service is silent. It is twice the time of the slowest
answers if that is longer, and never more than half of the deadline."""

_PROBE_AFTER: Final = 0.75
"""The probe is sent after this fraction of that time."""

PAUSE_AFTER: Final = 3
"""Number of calls without an answer after which a service is not called for a while. Calls that
failed quickly do not count."""

_PATIENCE_AFTER_FAILURE: Final = 0.25
"""If the last calls had no answer, a service is silent again after this fraction of that time."""

_FORGET: Final = 0.05
"""How quickly the slowest answer is forgotten, in seconds per second."""


class Pace:
    """How many seconds the slowest answers of a service take. Its bulkheads share it.

    The slowest answers count, not the average. Otherwise there would be too few places if somebody
    made a few calls take long: these could occupy all of them.
    """

    def __init__(self) -> None:
        self._slowest = (0.0, 0.0)

    def record(self, seconds: float, now: float) -> None:
        """Record how long an answer took."""
        if seconds > self.slow(now):
            self._slowest = (seconds, now)

    def slow(self, now: float) -> float:
        """Return how many seconds the slowest answers take. They are forgotten gradually."""
        seconds, at = self._slowest
        return max(0.0, seconds - _FORGET * (now - at))


class Place:
    """A place at a bulkhead, for one call. The end of its ``with`` block gives it back.

    :ivar deadline: when the call has to end, by ``time.monotonic``.
    :ivar answered: whether the service answered; an error is an answer too. None means that the
        call has not been made.
    """

    __slots__ = ("_bulkhead", "answered", "deadline", "is_background", "started")

    def __init__(self, bulkhead: Bulkhead, now: float, deadline: float, background: bool) -> None:
        self._bulkhead = bulkhead
        self.started = now
        self.deadline = deadline
        self.is_background = background
        self.answered: bool | None = False

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._bulkhead._leave(self)


class Bulkhead:
    """The places for calls to one interface of a service. The threads of one process share it.

    :param refuse: creates the exception to raise, from a text.
    :param name: what the service is called in that text.
    :param pace: how long answers take.
    :param timeout: deadline of each call in seconds, which includes waiting for a place.
    :param most: number of places if answers take long.
    :param rate: how many calls should be possible in each second. The number of places between
        :data:`FEW` and ``most`` follows from it and from how long answers take.
    :param quick: for this many seconds after an answer, calls do not take the lock, because that
        would take longer than the calls themselves. The limit is then not exact.
    :param pause: seconds for which a service is not called after :data:`PAUSE_AFTER` calls without
        an answer. After that, one call at a time is made until one is answered. With 0, there is no
        pause.
    """

    def __init__(
        self,
        refuse: Callable[[str], Exception],
        name: str,
        pace: Pace,
        *,
        timeout: float,
        most: int,
        rate: float,
        quick: float = 0.0,
        pause: float = 0.0,
    ) -> None:
        self._refuse = refuse
        self._name = name
        self._pace = pace
        self._timeout = timeout
        self._most = most
        self._rate = rate
        self._quick = quick
        self._pause = pause
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        # Ordered by the time at which the calls started.
        self._places: dict[Place, None] = {}
        self._background = 0
        self._queue: deque[Place] = deque()
        self._waiting = 0
        self._answered_at = -math.inf
        # Calls since the last answer that occupied a thread for long.
        self._failures = 0
        self._paused_until = -math.inf

    def enter(self, *, background: bool = False, wait: float = math.inf) -> Place:
        """Take a place for a call. Wait for one until the deadline, unless the service is silent.

        :param background: whether nobody waits for the result. Such calls take at most half of
            the places, wait until no other caller waits, and are not made while the service is
            silent and others are calling it.
        :param wait: seconds to wait at most.
        :raises Exception: what ``refuse`` creates, if there is no place.
        """
        now = time.monotonic()
        place = Place(self, now, now + self._timeout, background)
        if now - self._answered_at < self._quick and not (background or self._waiting):
            self._places[place] = None
            return place
        with self._lock:
            if not self._is_idle():
                self._wait(place, min(place.deadline, now + wait))
            self._places[place] = None
            self._background += background
        return place

    def check(self) -> None:
        """Return unless :meth:`enter` would refuse a place at once.

        :raises Exception: as :meth:`enter`.
        """
        with self._lock:
            if self._is_idle():
                return
            now = time.monotonic()
            if len(self._places) >= self._limit(now) and self._silence(now) >= 1:
                raise self._silent()

    def _is_idle(self) -> bool:
        """Return whether there is certainly a place: no call is in progress or waits for one, and
        none has hung since the last answer."""
        return not (self._places or self._waiting or self._failures)

    def _wait(self, place: Place, deadline: float) -> None:
        # Before the first look at the places, so that no _leave is missed.
        self._waiting += 1
        if not place.is_background:
            self._queue.append(place)
        failures = self._failures
        try:
            while not self._is_free(place, now := time.monotonic()):
                silence = self._silence(now)
                if silence >= 1:
                    raise self._silent()
                if now >= deadline:
                    raise self._refuse(
                        f"Too many calls to {self._name} are already in progress. This one was not "
                        "made: try again in a few seconds."
                    )
                until_next = (_PROBE_AFTER if silence < _PROBE_AFTER else 1) - silence
                self._changed.wait(min(until_next * self._patience(now), deadline - now))
                if self._failures > failures:
                    # On a busy machine, this thread may wake up after these calls have ended.
                    raise self._silent()
            place.started = now
        finally:
            self._waiting -= 1
            if not place.is_background:
                self._queue.remove(place)
            if self._waiting:
                self._changed.notify_all()

    def _is_free(self, place: Place, now: float) -> bool:
        limit, silence = self._limit(now), self._silence(now)
        if len(self._places) >= limit:
            return False
        if not place.is_background:
            return self._queue[0 if silence < _PROBE_AFTER else -1] is place
        if self._queue:
            return False
        # If nobody else is calling the service, only this call can find out whether it responds.
        return not self._places or (silence < 1 and self._background < limit // 2)

    def _limit(self, now: float) -> int:
        """Return how many places there are now."""
        if self._is_resting():
            return int(now >= self._paused_until)
        if now - self._answered_at < self._quick:
            return self._most
        if now - self._answered_at > self._patience(now):
            return FEW if self._silence(now) >= _PROBE_AFTER else FEW - 1
        return min(max(FEW, int(self._rate * self._slow(now))), self._most)

    def _silence(self, now: float) -> float:
        """Return for how long calls have had no answer: 1 or more if the service is silent."""
        if self._is_resting() and now < self._paused_until:
            return math.inf
        return (now - max(self._oldest(), self._answered_at)) / self._patience(now)

    def _is_resting(self) -> bool:
        return self._pause > 0 and self._failures >= PAUSE_AFTER

    def _patience(self, now: float) -> float:
        """Return after how many seconds without an answer the service is silent."""
        # After calls without an answer, wait only long enough to see whether it responds again.
        return self._long(now) * (_PATIENCE_AFTER_FAILURE if self._failures else 1)

    def _long(self, now: float) -> float:
        """Return after how many seconds a call counts as long."""
        return min(max(SILENT_AFTER, 2 * self._slow(now)), self._timeout / 2)

    def _slow(self, now: float) -> float:
        oldest = self._oldest()
        # Other calls have been answered since the oldest one was made.
        slow = now - oldest if oldest < self._answered_at else 0.0
        return max(slow, self._pace.slow(now))

    def _oldest(self) -> float:
        """Return when the oldest call started, or infinity if there is none."""
        while True:
            try:
                return next(iter(self._places)).started
            except StopIteration:
                return math.inf
            except RuntimeError:
                # Another thread has just made a call or ended one.
                pass

    def _silent(self) -> Exception:
        return self._refuse(
            f"Earlier calls to {self._name} are still without a response. This one was not made: "
            "try again in a few seconds."
        )

    def _leave(self, place: Place) -> None:
        now = time.monotonic()
        seconds = now - place.started
        del self._places[place]
        if place.answered and seconds < self._quick and not (self._waiting or self._failures):
            self._answered_at = now
            return
        with self._lock:
            self._background -= place.is_background
            if place.answered:
                self._pace.record(seconds, now)
                self._answered_at = now
                self._failures = 0
            elif (
                # A call that failed quickly did not occupy a thread.
                seconds >= self._long(now)
                and place.answered is False
                and place.started > self._answered_at
            ):
                self._failures += 1
                self._paused_until = now + self._pause
            if self._waiting:
                self._changed.notify_all()
