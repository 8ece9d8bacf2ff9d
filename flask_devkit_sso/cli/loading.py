"""Loads the application as far as possible, so that the commands can help to fix it.

Problems that ``init_app`` would raise are collected. Any other exception is described only by its
type and place, because its text may contain a secret.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Final

from flask import Config, Flask
from flask.cli import NoAppException, ScriptInfo

from ..config.loading import NO_REDIRECT_URI, LoadedSettings, load_settings, parse_setting
from ..config.problem import Problem
from ..config.settings import PREFIX, Settings
from ..errors import ConfigError
from ..service import EXTENSION, AppState, collecting, get_state, refresh_state
from ..web.place import find_route_problems
from ..web.view_checks import find_view_problems
from .output import PACKAGE, describe, echo, libraries

ENVIRONMENT: Final = "FLASK_DEVKIT_SSO"
"""Prefix of the environment variables, without its last underscore."""


@dataclass(frozen=True)
class LoadedApp:
    """An application that may be incomplete.

    :ivar app: the application, or None if it was not created.
    :ivar error: why it could not be loaded completely, or "" if it could.
    """

    app: Flask | None
    error: str = ""

    @property
    def state(self) -> AppState | None:
        """The extension's state, or None without ``init_app``."""
        if self.app is None or EXTENSION not in self.app.extensions:
            return None
        return refresh_state(self.app)

    @cached_property
    def loaded_settings(self) -> LoadedSettings:
        """The application's settings. Without an application, those of the environment."""
        if self.state is not None:
            return self.state.loaded
        if self.app is not None:
            return load_settings(self.app.config, self.app.instance_path)
        return load_settings(read_environment(), None)

    def problems(self) -> list[Problem]:
        """Return what prevents the application from starting, or people from signing in.

        Without an application, nothing counts as missing, because the application may have more
        settings.
        """
        if self.app is None:
            return [*self.loaded_settings.errors]
        more = []
        if self.loaded_settings.settings.redirect_uri is None and not self.app.debug:
            more.append(NO_REDIRECT_URI)
        try:
            with self.app.app_context():
                found = get_state().problems(*more)
        except ConfigError as error:
            return [*self.loaded_settings.errors, Problem(str(error))]
        if self.state is not None:
            found += find_view_problems(self.app, self.state)
            found += find_route_problems(self.app, self.state)
        return found

    def warnings(self) -> list[Problem]:
        """Return problems that may be what somebody intended."""
        return [*self.loaded_settings.warnings, *self._find_ignored_variables()]

    def _find_ignored_variables(self) -> Iterator[Problem]:
        """Find environment variables that are set, but whose values are not in force."""
        if self.app is None:
            return
        settings = self.loaded_settings.settings
        known = {PREFIX + item.name.upper() for item in fields(Settings)}
        for prefix in (ENVIRONMENT, PREFIX.rstrip("_")):
            for key, raw in read_environment(prefix).items():
                # A missing setting is a problem of its own, which names the variable.
                if key not in known or key in settings.missing:
                    continue
                name, assigned = key.removeprefix(PREFIX).lower(), self.app.config.get(key)
                try:
                    value = parse_setting(name, raw)
                except ValueError:
                    value = raw
                if value is None or value in (assigned, getattr(settings, name)):
                    continue
                if prefix != ENVIRONMENT:
                    yield Problem(
                        f"{key} is set in the environment, but no variable of this name is read",
                        f"Rename it to FLASK_{key}",
                    )
                elif assigned is not None:
                    yield Problem(
                        f"FLASK_{key} is set, but the application assigns another value",
                        f"Remove the variable, or the assignment to app.config[{key!r}]",
                    )
                else:
                    yield Problem(
                        f"FLASK_{key} is set but was not read",
                        "Call app.config.from_prefixed_env() before init_app",
                    )


def load_app(info: ScriptInfo) -> LoadedApp:
    """Load the application that the ``flask`` command was called for."""
    with collecting() as apps:
        try:
            return LoadedApp(info.load_app())
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001
            return LoadedApp(apps[-1] if apps else None, _describe(error))


def read_environment(prefix: str = ENVIRONMENT) -> dict[str, Any]:
    """Return the settings in the environment, parsed as ``from_prefixed_env`` does it.

    :param prefix: of the variables' names, without its last underscore.
    """
    config = Config("")
    config.from_prefixed_env(prefix)
    return {PREFIX + key: value for key, value in config.items()}


def print_loading_error(loaded_app: LoadedApp) -> None:
    """Print the error that occurred while the application was loaded, if any."""
    if loaded_app.error:
        echo(f"The application could not be loaded: {loaded_app.error}\n", error=True)


def _describe(error: BaseException) -> str:
    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, NoAppException):
        if error.__context__ is None or "\n" not in error.message:
            return error.message
        # The message is a traceback, which quotes lines of source.
        error = error.__context__
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__} in {error.filename}, line {error.lineno}"
    # The fix belongs in the application's own source, not in what it calls.
    return describe(error, lambda file: not file.startswith((*libraries(), PACKAGE)))
