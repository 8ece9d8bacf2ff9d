"""The command group ``flask devkit-sso``, an entry point of ``flask.commands``."""

from __future__ import annotations

from importlib import import_module
from typing import Final, cast

import click

from .boundary import SafeGroup

_COMMANDS: Final = ("check-server", "doctor", "register", "sessions", "show")
"""Their names. The module and the function have underscores instead of hyphens."""


class _Group(SafeGroup):
    """Imports a command when it is used, because every ``flask`` command loads the group, also
    ``flask run``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        return cast(click.Command, getattr(import_module(f".{name}", __package__), name))


@click.group("devkit-sso", cls=_Group)
def group() -> None:
    """Set up and check DevKit single sign-on."""
