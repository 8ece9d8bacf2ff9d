"""What ``check-server`` reports: lines of text, or one JSON object (docs/commands.md)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Final, Literal

from .check_server_checks import CHECKS, CONDITIONAL
from .findings import print_finding
from .output import echo

SCHEMA: Final = 1
"""The version of the JSON object. New fields and names do not change it."""

Level = Literal["ok", "note", "skipped", "warning", "error"]
LEVELS: Final = ("ok", "note", "skipped", "warning", "error")


@dataclass(frozen=True)
class Finding:
    """What one check found, in the words of this package.

    ``text`` and ``fix`` contain neither a secret nor a value that was typed in, and of what the
    server sent only a status or a code of four digits.
    """

    section: int
    interface: str
    check: str
    level: Level
    text: str
    fix: str


class Report:
    """Collects findings. Unless the report is JSON, it prints each of them at once.

    The methods take the subject and the name of a check, as in check_server_checks.py.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._findings: list[Finding] = []

    def section(self, title: str) -> None:
        """Print a heading, unless the findings below it are in the JSON report."""
        if not self.as_json:
            self.tell(f"\n{title}")

    def tell(self, text: str) -> None:
        """Print something that is not a finding."""
        echo(text, error=self.as_json)

    def ok(self, subject: str, check: str, text: str) -> None:
        self._add("ok", subject, check, text)

    def note(self, subject: str, check: str, text: str) -> None:
        """Report something that is neither right nor wrong, because the protocol leaves it open."""
        self._add("note", subject, check, text)

    def warning(self, subject: str, check: str, text: str, fix: str = "") -> None:
        self._add("warning", subject, check, text, fix)

    def error(self, subject: str, check: str, text: str, fix: str = "") -> None:
        self._add("error", subject, check, text, fix)

    def skip(self, subject: str, *checks: str, why: str) -> None:
        """Report that something was not tested. This prints one line, however many checks it is."""
        for check in checks:
            self._record("skipped", subject, check, f"not tested, because {why}", "")
        self._print("skipped", subject, f"{', '.join(checks)}: not tested, because {why}")

    @property
    def has_errors(self) -> bool:
        return any(finding.level == "error" for finding in self._findings)

    def skip_the_rest(self) -> None:
        """Report each check without a finding as not tested: silence would look like success."""
        done = {(f"{found.section}. {found.interface}", found.check) for found in self._findings}
        left = {
            subject: [check for check in checks if (subject, check) not in done]
            for subject, checks in CHECKS.items()
        }
        if any(left.values()):
            self.section("Not tested")
        for subject, checks in left.items():
            if checks:
                self.skip(subject, *checks, why="something before it failed or was skipped")

    def print_json(self, binding: str | None) -> None:
        """Print the whole report.

        :param binding: the value of ``DEVKIT_SSO_BINDING`` that fits, or None if it is unknown.
        """
        levels = [finding.level for finding in self._findings]
        content = {
            "schema": SCHEMA,
            "passed": not self.has_errors,
            "counts": {level: levels.count(level) for level in LEVELS},
            "binding": binding,
            "findings": [asdict(finding) for finding in self._findings],
        }
        echo(json.dumps(content, indent=2))

    def _add(self, level: Level, subject: str, check: str, text: str, fix: str = "") -> None:
        self._record(level, subject, check, text, fix)
        self._print(level, subject, text, fix)

    def _record(self, level: Level, subject: str, check: str, text: str, fix: str) -> None:
        assert check in (*CHECKS[subject], *CONDITIONAL.get(subject, ())), check  # noqa: S101
        section, _, interface = subject.partition(". ")
        self._findings.append(Finding(int(section), interface, check, level, text, fix))

    def _print(self, level: Level, subject: str, text: str, fix: str = "") -> None:
        if not self.as_json:
            print_finding(level, subject, text, fix)
