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

    def turn(self, calls: int) -> float:
        """Make a number of calls, and return how many seconds each took on average."""


class Calls:
    """A contender that calls a function."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    def turn(self, calls: int) -> float:
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
    contenders: Mapping[str, Contender], baseline: str, *, rounds: int, calls: int, turns: int = 1
) -> list[Result]:
    """Let the contenders take turns, round by round, and compare each with the baseline.

    :param calls: how many calls each contender makes in one turn. One turn before the first is not
        measured.
    :param turns: how many turns each contender has in one round. With many short turns, whatever
        else runs on the machine disturbs all contenders of the round alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for contender in contenders.values():
        contender.turn(calls)
    names = list(contenders)
    with no_garbage_collection():
        for _ in range(rounds):
            took = dict.fromkeys(names, 0.0)
            for _ in range(turns):
                for name in names:
                    took[name] += contenders[name].turn(calls) / turns
                # Start with another contender each time, so that none always has the same
                # neighbour.
                names.append(names.pop(0))
            for name in names:
                seconds[name].append(took[name])
            gc.collect()
    base = seconds[baseline]
    return [
        Result(name, found, [a / b for a, b in zip(found, base, strict=True)])
        for name, found in seconds.items()
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
