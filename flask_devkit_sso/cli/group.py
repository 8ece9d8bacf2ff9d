"""The command group ``flask devkit-sso``, an entry point of ``flask.commands``."""

from __future__ import annotations

import click

from .boundary import SafeGroup
from .check_server import check_server
from .doctor import doctor
from .register import register
from .sessions import sessions
from .show import show


@click.group("devkit-sso", cls=SafeGroup, commands=[check_server, doctor, register, sessions, show])
def group() -> None:
    """Set up and check DevKit single sign-on."""
