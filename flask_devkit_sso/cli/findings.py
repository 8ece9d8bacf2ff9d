"""Prints the findings of ``doctor`` line by line, and lists problems."""

from __future__ import annotations

from collections.abc import Sequence

from ..config.problem import Problem, without_repeated_fixes
from ..errors import ServerError, ServerUnavailable
from .output import echo


class Findings:
    """Prints findings and counts the errors.

    No text may contain a secret, or anything that a server sent except a code of four digits, a
    status or a known name.
    """

    def __init__(self) -> None:
        self.error_count = 0

    def section(self, title: str) -> None:
        echo(f"\n{title}")

    def ok(self, subject: str, text: str) -> None:
        self._print("ok", subject, text)

    def note(self, subject: str, text: str) -> None:
        """Print something that is neither right nor wrong, because the protocol leaves it open."""
        self._print("note", subject, text)

    def warning(self, subject: str, text: str, fix: str = "") -> None:
        self._print("warning", subject, text, fix)

    def error(self, subject: str, text: str, fix: str = "") -> None:
        self.error_count += 1
        self._print("error", subject, text, fix)

    def _print(self, level: str, subject: str, text: str, fix: str = "") -> None:
        print_finding(level, subject, text, fix)


def print_finding(level: str, subject: str, text: str, fix: str = "") -> None:
    echo(f"{level:8} {subject}: {text}")
    if fix:
        echo(f"{'':8} Fix: {fix}")


def describe_error(error: ServerError | ServerUnavailable) -> str:
    """Return the text of an error, which contains nothing that the server sent."""
    return str(error.description).rstrip(".")


def list_problems(problems: Sequence[Problem]) -> str:
    """Return a text with one line for each problem and each fix."""
    lines = []
    for problem in without_repeated_fixes(problems):
        lines.append(f"  - {problem.text}")
        if problem.fix:
            lines.append(f"    Fix: {problem.fix}")
    return "\n".join(lines)
