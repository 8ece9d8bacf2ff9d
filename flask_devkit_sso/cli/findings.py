"""What a command that examines something has found, told line by line as it is found."""

from __future__ import annotations

import click


class Findings:
    """Prints findings and counts those that are wrong; what is told must hold no secret."""

    def __init__(self) -> None:
        self.wrong_count = 0

    def section(self, title: str) -> None:
        click.echo(f"\n{title}")

    def ok(self, what: str, text: str) -> None:
        self._tell("ok", what, text)

    def note(self, what: str, text: str) -> None:
        """Tell what is neither right nor wrong: the protocol leaves it open."""
        self._tell("note", what, text)

    def warning(self, what: str, text: str, mend: str = "") -> None:
        self._tell("warning", what, text, mend)

    def wrong(self, what: str, text: str, mend: str = "") -> None:
        self.wrong_count += 1
        self._tell("wrong", what, text, mend)

    def _tell(self, level: str, what: str, text: str, mend: str = "") -> None:
        click.echo(f"{level:8} {what}: {text}")
        if mend:
            click.echo(f"{'':8} Mend: {mend}")
