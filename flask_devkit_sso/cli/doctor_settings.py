"""The checks of ``doctor`` in the application: settings, SECRET_KEY and proxies."""

from __future__ import annotations

import os
from typing import Final

from flask import Flask

from ..config.loading import APP_CONFIG
from ..config.problem import without_repeated_fixes
from ..service import AppState
from .doctor_store import find_credentials_files, format_mode
from .findings import Findings
from .loading import LoadedApp

_PROXY_VARIABLES: Final = ("http_proxy", "https_proxy", "all_proxy")


def check_settings(found: Findings, loaded_app: LoadedApp) -> None:
    loaded, problems = loaded_app.loaded_settings, loaded_app.problems()
    for problem in without_repeated_fixes(problems):
        found.error("settings", problem.text, problem.fix)
    for problem in loaded_app.warnings():
        found.warning("settings", problem.text, problem.fix)
    if not problems and not loaded.settings.missing:
        origins = set(loaded.origins.values())
        if loaded_app.app is None:
            # Without an application, they were read from the environment into a configuration.
            origins = {"the environment" if name == APP_CONFIG else name for name in origins}
        sources = " and ".join(sorted(origins)) or "the defaults"
        found.ok("settings", f"complete and valid, from {sources}")
    for name, path in find_credentials_files(loaded).items():
        found.ok(name, f"{path}, mode {format_mode(path.stat().st_mode)}")
    if loaded_app.app is None:
        found.warning(
            "settings", "only those in the environment are known, because there is no application"
        )


def check_secret_key(found: Findings, app: Flask, state: AppState) -> None:
    """Check the SECRET_KEY. :func:`check_settings` reports a missing key and, except with debug or
    testing, a weak one."""
    if state.has_weak_key and (app.debug or app.testing):
        found.warning("SECRET_KEY", "weak, which is accepted only with debug or testing")
    elif state.has_secret_key and not state.has_weak_key:
        found.ok("SECRET_KEY", "set and long enough")


def check_proxies(found: Findings) -> None:
    # Their values are not shown, because a proxy's URL may contain a password.
    names = [name for name in os.environ if name.lower() in _PROXY_VARIABLES and os.environ[name]]
    if names:
        found.ok("proxies", f"ignored ({', '.join(sorted(names))}); the server is called directly")
    else:
        found.ok("proxies", "none in the environment; they would be ignored")
