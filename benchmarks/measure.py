"""Measures several contenders side by side, because only their ratios mean anything."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol


class Contender(Protocol):
    """What is compared."""

    def round(self, calls: int) -> float:
        """Make a number of calls, and return how many seconds each took on average."""


class Calls:
    """A contender that calls a function."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    def round(self, calls: int) -> float:
        function = self._function
        started = time.perf_counter()
        for _ in range(calls):
            function()
        return (time.perf_counter() - started) / calls


@dataclass(frozen=True)
class Result:
    """What one contender took in each round: seconds per call, and the ratio to the baseline's
    seconds of the same round."""

    name: str
    seconds: list[float]
    ratios: list[float]

    @property
    def median(self) -> float:
        """The median of the seconds."""
        return statistics.median(self.seconds)

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return statistics.median(self.ratios)


def compare(
    contenders: Mapping[str, Contender], baseline: str, *, rounds: int, calls: int
) -> list[Result]:
    """Let the contenders take turns, round by round, and compare each with the baseline.

    :param calls: how many calls each contender makes in one round. One round before the first is
        not measured.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for contender in contenders.values():
        contender.round(calls)
    names = list(contenders)
    with no_garbage_collection():
        for number in range(rounds):
            # Start with another contender each time, so that none always has the same neighbour.
            first = number % len(names)
            for name in names[first:] + names[:first]:
                seconds[name].append(contenders[name].round(calls))
            gc.collect()
    base = seconds[baseline]
    return [
        Result(name, took, [a / b for a, b in zip(took, base, strict=True)])
        for name, took in seconds.items()
    ]


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep the garbage collector from interrupting a measurement."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
