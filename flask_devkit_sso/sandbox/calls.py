"""What tests observe and arrange: the calls that arrived, and faults for the next ones."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from .expiring import LIMIT


@dataclass
class Call:
    """One POST of the application's server.

    ``code`` is the response's code, or the fault; ``connection`` is the number of the TCP
    connection.
    """

    interface: str
    code: str
    connection: int


class CallLog:
    """The latest calls, oldest first. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: deque[Call] = deque(maxlen=LIMIT)

    def add(self, call: Call) -> None:
        with self._lock:
            self._calls.append(call)

    def all(self) -> list[Call]:
        with self._lock:
            return list(self._calls)

    def clear(self) -> None:
        with self._lock:
            self._calls.clear()


class FaultQueue:
    """The faults of the next calls, for each interface. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: dict[str, deque[str]] = {}

    def add(self, interface: str, fault: str, times: int) -> None:
        """Let calls of an interface fail, after those that are to fail already."""
        with self._lock:
            queue = self._faults.setdefault(interface, deque(maxlen=LIMIT))
            queue.extend([fault] * times)

    def take(self, interface: str) -> str | None:
        """Return the fault of this call of an interface, or None."""
        with self._lock:
            queue = self._faults.get(interface)
            return queue.popleft() if queue else None

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()
