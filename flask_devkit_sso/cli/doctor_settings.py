"""The checks of ``doctor`` in the application: settings, SECRET_KEY and redirect URI."""

from __future__ import annotations

import os
from typing import Any, Final

from flask import Flask
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

from ..config.problem import without_repeated_fixes
from ..config.redirect_uri import is_loopback
from ..config.settings import PREFIX
from ..service import AppState
from .doctor_store import find_credentials_file, format_mode
from .findings import Findings
from .loading import LoadedApp

_PROXY_VARIABLES: Final = ("http_proxy", "https_proxy", "all_proxy")


def check_settings(found: Findings, loaded_app: LoadedApp) -> None:
    loaded, problems = loaded_app.loaded_settings, loaded_app.problems()
    for problem in without_repeated_fixes(problems):
        found.error("settings", problem.text, problem.fix)
    for problem in loaded.warnings:
        found.warning("settings", problem.text, problem.fix)
    if not problems and not loaded.settings.missing:
        sources = " and ".join(sorted(set(loaded.origins.values()))) or "the defaults"
        found.ok("settings", f"complete and valid, from {sources}")
    path = find_credentials_file(loaded)
    if path is not None:
        found.ok("credentials file", f"{path}, mode {format_mode(path.stat().st_mode)}")
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


def check_redirect_uri(found: Findings, app: Flask, state: AppState) -> None:
    """Check whether the redirect URI points to the callback, or to a page of the application."""
    subject, redirect_uri, settings = "redirect_uri", state.redirect_uri, state.settings
    if redirect_uri is None:
        return
    uri, path, callback = redirect_uri.uri, redirect_uri.path or "/", settings.callback_path
    if redirect_uri.is_secure and is_loopback(redirect_uri.host):
        found.warning(
            subject,
            f"{uri} uses https on this machine",
            "Serve https there, by the application or by a proxy in front of it, or use http://",
        )
    if path == callback:
        name = "landing page at the callback" if redirect_uri.needs_landing else "callback"
        found.ok(subject, f"{uri} points to the {name}")
    elif path.endswith(callback):
        found.warning(
            subject,
            f"{uri} points to the callback only if the application is mounted at "
            f"{path.removesuffix(callback)}",
            f"If it is not, use the path {callback} ({PREFIX}URL_PREFIX is {settings.url_prefix})",
        )
    elif _is_served(app.url_map.bind("localhost"), path):
        found.ok(subject, f"{uri} points to a page of the application, and so to the landing page")
    elif "#" in uri:
        found.warning(
            subject,
            f"{uri} points to no page of the application",
            "Ignore this if another server serves the front end, or if the application is mounted "
            "below a path",
        )
    else:
        found.error(
            subject,
            f"{uri} points to no page of the application",
            f"Use the path of the callback, {callback} "
            f"({PREFIX}URL_PREFIX is {settings.url_prefix})",
        )


def _is_served(urls: Any, path: str) -> bool:
    try:
        urls.match(path, "GET")
    except RequestRedirect:
        return True
    except HTTPException:
        return False
    return True


def check_proxies(found: Findings) -> None:
    # Their values are not shown, because a proxy's URL may contain a password.
    names = [name for name in os.environ if name.lower() in _PROXY_VARIABLES and os.environ[name]]
    if names:
        found.ok("proxies", f"ignored ({', '.join(sorted(names))}); the server is called directly")
    else:
        found.ok("proxies", "none in the environment; they would be ignored")
