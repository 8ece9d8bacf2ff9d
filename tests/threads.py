"""Concurrent calls in threads, where an exception in any of them fails the test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")

PATIENCE = 300
"""Seconds after which a thread counts as hanging."""


class Background(Generic[T]):
    """A call in a separate thread, which starts immediately."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._results.append(self._call())
        except BaseException as error:  # noqa: BLE001 - result() raises it
            self._error = error

    def result(self) -> T:
        """Wait for the call and return its result, or raise its exception."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), f"{self._call} hangs"
        if self._error is not None:
            raise self._error
        (result,) = self._results
        return result


def at_once(calls: Iterable[Callable[[], T]]) -> list[T]:
    """Start all calls at the same moment; return their results, in the order of the calls."""
    waiting = list(calls)
    gate = threading.Barrier(len(waiting))

    def after_the_gate(call: Callable[[], T]) -> T:
        gate.wait(PATIENCE)
        return call()

    running = [Background(lambda call=call: after_the_gate(call)) for call in waiting]  # type: ignore[misc]
    return [each.result() for each in running]
