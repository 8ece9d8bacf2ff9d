"""The checks of ``doctor`` in the application: settings, SECRET_KEY and redirect URI."""

from __future__ import annotations

import os
from typing import Final

from flask import Flask
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect
from werkzeug.sansio.utils import host_is_trusted

from ..config.problem import without_repeated_fixes
from ..config.redirect_uri import RedirectURI, is_loopback
from ..config.settings import PREFIX
from ..errors import ConfigError
from ..service import AppState
from ..web.place import urls_at
from .doctor_store import find_credentials_files, format_mode
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


def check_redirect_uri(found: Findings, app: Flask, state: AppState) -> None:
    """Check whether the redirect URI points to the callback, or to a page of the application."""
    subject, redirect_uri, settings = "redirect_uri", state.redirect_uri, state.settings
    if redirect_uri is None:
        return
    uri, callback, root = redirect_uri.uri, settings.callback_path, app.config["APPLICATION_ROOT"]
    mount = redirect_uri.mount_point(root)
    path = redirect_uri.path.removeprefix(mount) or "/"
    if redirect_uri.is_secure and is_loopback(redirect_uri.host):
        found.warning(
            subject,
            f"{uri} uses https on this machine",
            "Serve https there, by the application or by a proxy in front of it, or use http://",
        )
    if path == callback and mount not in ("", root.rstrip("/")):
        found.warning(
            subject,
            f"{uri} points to the callback only if the application is mounted at {mount}",
            "If no server mounts it there and no proxy strips this path, use the path "
            f"{callback} ({PREFIX}URL_PREFIX is {settings.url_prefix})",
        )
    elif path == callback:
        name = "landing page at the callback" if redirect_uri.needs_landing else "callback"
        found.ok(subject, f"{uri} points to the {name}")
    elif _is_served(app, redirect_uri, path):
        found.ok(subject, f"{uri} points to a page of the application, and so to the landing page")
    elif "#" in uri:
        found.warning(
            subject,
            f"{uri} points to no page of the application",
            "Ignore this if another server serves the front end, or mounts the application below a "
            "path. If a proxy strips a path, set APPLICATION_ROOT to it",
        )
    else:
        found.error(
            subject,
            f"{uri} points to no page of the application",
            f"Use the path of the callback, {callback} "
            f"({PREFIX}URL_PREFIX is {settings.url_prefix})",
        )
    _check_host(found, app, redirect_uri)


def _check_host(found: Findings, app: Flask, redirect_uri: RedirectURI) -> None:
    trusted = app.config["TRUSTED_HOSTS"]
    if trusted and not host_is_trusted(redirect_uri.netloc, trusted):
        found.warning(
            "TRUSTED_HOSTS",
            f"does not contain {redirect_uri.host}, the redirect URI's host, so people who come "
            "back from the server receive 400",
            "Add it, unless a proxy sends the application another Host",
        )


def _is_served(app: Flask, redirect_uri: RedirectURI, path: str) -> bool:
    try:
        urls_at(app, redirect_uri).match(path, "GET")
    except RequestRedirect:
        return True
    except (HTTPException, ConfigError):
        return False
    return True


def check_proxies(found: Findings) -> None:
    # Their values are not shown, because a proxy's URL may contain a password.
    names = [name for name in os.environ if name.lower() in _PROXY_VARIABLES and os.environ[name]]
    if names:
        found.ok("proxies", f"ignored ({', '.join(sorted(names))}); the server is called directly")
    else:
        found.ok("proxies", "none in the environment; they would be ignored")
