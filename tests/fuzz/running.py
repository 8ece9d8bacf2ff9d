"""Runs one target for some seconds."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

BATCH: Final = 100
"""Inputs that Hypothesis generates before the clock is checked."""


@dataclass(frozen=True)
class Target:
    """Something to fuzz. ``check`` receives an input and raises an exception for a finding."""

    name: str
    inputs: SearchStrategy[Any]
    check: Callable[[Any], None]


@dataclass(frozen=True)
class Result:
    """What happened: how many inputs in how many seconds, and the finding with its traceback or an
    empty text."""

    name: str
    inputs: int
    seconds: float
    finding: str


def run(target: Target, seconds: float, first_seed: int) -> Result:
    """Fuzz one target until the time is up or there is a finding.

    :param first_seed: the same seed generates the same inputs in the same order.
    """
    began = time.monotonic()
    count = 0
    has_failed = False

    def attempt(value: Any) -> None:
        nonlocal count, has_failed
        # After a finding, Hypothesis must see the same result for the same input. The first input
        # may take long to generate, so it is tried even if the time is up.
        if count and not has_failed and time.monotonic() - began > seconds:
            return
        count += 1
        try:
            target.check(value)
        except Exception:
            has_failed = True
            raise

    finding, batch = "", 0
    while not finding and (not count or time.monotonic() - began < seconds):
        prepared = settings(
            database=None,
            deadline=None,
            max_examples=BATCH,
            phases=(Phase.generate, Phase.shrink),
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )(given(target.inputs)(attempt))
        try:
            seed(first_seed * 1_000_000 + batch)(prepared)()
        except Exception:  # noqa: BLE001 - it is the finding
            finding = f"{target.name}:\n{traceback.format_exc(limit=-4)}"
        batch += 1
    return Result(target.name, count, time.monotonic() - began, finding)
