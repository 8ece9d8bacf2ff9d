"""``flask devkit-sso show``."""

from __future__ import annotations

import re
from dataclasses import Field, fields
from typing import Any

import click
from flask import Flask
from flask.cli import ScriptInfo

from ..config.loading import APP_CONFIG, LoadedSettings
from ..config.settings import PREFIX, Settings
from ..protocol.contract import INTERFACE_PATHS
from ..service import AppState
from .findings import list_problems
from .loading import ENVIRONMENT, load_app, print_loading_error
from .output import echo


@click.command()
@click.pass_context
def show(ctx: click.Context) -> None:
    """Show the settings in force and where each comes from.

    Secrets are masked. The exit status is 1 if something is wrong or missing.
    """
    loaded_app = load_app(ctx.ensure_object(ScriptInfo))
    print_loading_error(loaded_app)
    if loaded_app.app is None:
        echo(f"These are the settings in the environment ({ENVIRONMENT}_…):\n")
    for item in fields(Settings):
        value, origin = _find_value(loaded_app.loaded_settings, item.name)
        _print_row(PREFIX + item.name.upper(), origin, _mask(item, value))
    if loaded_app.app is not None:
        _print_secret_key(loaded_app.app, loaded_app.state)

    problems, warnings = loaded_app.problems(), loaded_app.warnings()
    if problems or warnings:
        echo(f"\nProblems:\n{list_problems([*problems, *warnings])}")
    elif not loaded_app.error:
        echo("\nNo problems found.")
    ctx.exit(1 if problems or loaded_app.error else 0)


def _find_value(loaded: LoadedSettings, name: str) -> tuple[Any, str]:
    """Return the value of a setting and where it comes from."""
    settings = loaded.settings
    value = loaded.credentials_path if name == "credentials_file" else getattr(settings, name)
    if name in loaded.origins:
        return value, loaded.origins[name]
    if value is None and name in INTERFACE_PATHS:
        value = settings.interface_url(name)
        return value, "server URL" if value else "default"
    return value, "default"


def _mask(item: Field[Any], value: Any) -> str:
    if value is None:
        return "-"
    if item.name == "client_secret":
        return "(set, not shown)"
    if isinstance(value, float):
        return f"{value:g}"
    # A password may be before the host and, for redis-py, in the query.
    shown = re.sub(r"(?<=://)[^/]*@", "***@", str(value))
    return shown if item.repr else re.sub(r"[?].*", "?***", shown)


def _print_secret_key(app: Flask, state: AppState | None) -> None:
    if not app.config.get("SECRET_KEY"):
        _print_row("SECRET_KEY", "default", "-")
        return
    is_weak = state is not None and state.has_weak_key
    _print_row("SECRET_KEY", APP_CONFIG, f"(set, not shown{', but weak' if is_weak else ''})")


def _print_row(key: str, origin: str, value: str) -> None:
    echo(f"{key:29} {origin:18} {value}")
