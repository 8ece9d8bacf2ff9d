"""What prevents an application from signing people in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest


@dataclass(frozen=True)
class Problem:
    """Something wrong or missing in the configuration, and how to fix it.

    Neither text contains the value of a setting that may be secret.
    """

    text: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.text}. {self.fix}" if self.fix else self.text


def without_repeated_fixes(problems: Sequence[Problem]) -> list[Problem]:
    """Return the problems without repeated fixes. If several in a row share a fix, the last keeps
    it."""
    return [
        replace(problem, fix="") if following and following.fix == problem.fix else problem
        for problem, following in zip_longest(problems, problems[1:])
    ]


def describe(problems: Sequence[Problem]) -> str:
    """Return all problems as one text of complete sentences."""
    texts = map(str, without_repeated_fixes(problems))
    return " ".join(text if text.endswith("?") else f"{text}." for text in texts)
