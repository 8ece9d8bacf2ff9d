"""Measures several contenders side by side, because only their ratios mean anything."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """What one contender took in each round, in seconds per call."""

    name: str
    seconds: list[float]
    ratios: list[float]

    @property
    def median(self) -> float:
        """The median of the seconds."""
        return statistics.median(self.seconds)

    @property
    def ratio(self) -> float:
        """The median of the ratios to the baseline of the same round."""
        return statistics.median(self.ratios)


def compare(
    contenders: Mapping[str, Callable[[], object]], baseline: str, *, rounds: int, calls: int
) -> list[Result]:
    """Call each contender in turn, round by round, and compare each round with the baseline's.

    :param contenders: functions by name. Each is called once before anything is measured. If it has
        a method ``prepare``, that is called before each round with the number of calls.
    :param calls: how often each function is called in one round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for call in contenders.values():
        _time(call, 1)
    names = list(contenders)
    with _no_garbage_collection():
        for number in range(rounds):
            # Start with another contender each time, so that none always has the same neighbour.
            first = number % len(names)
            for name in names[first:] + names[:first]:
                seconds[name].append(_time(contenders[name], calls))
            gc.collect()
    base = seconds[baseline]
    return [
        Result(name, took, [a / b for a, b in zip(took, base, strict=True)])
        for name, took in seconds.items()
    ]


def _time(call: Callable[[], object], calls: int) -> float:
    if hasattr(call, "prepare"):
        call.prepare(calls)
    started = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - started) / calls


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
