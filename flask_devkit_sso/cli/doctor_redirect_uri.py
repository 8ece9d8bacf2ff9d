"""The check of ``doctor`` whether the redirect URI leads to the application.

What the application is mounted at depends on servers and proxies that the settings do not show. So
the running application is asked at the address that browsers use.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import Enum, auto
from typing import Any, Final
from urllib.parse import quote

from flask import Flask
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.routing import RequestRedirect
from werkzeug.sansio.utils import host_is_trusted

from ..config.redirect_uri import RedirectURI, is_loopback
from ..config.settings import PREFIX, Settings
from ..errors import ConfigError, ServerError, ServerUnavailable
from ..protocol.transport import Transport
from ..protocol.trust import Trust
from ..service import AppState
from ..web.place import urls_at
from .findings import Findings

_SUBJECT: Final = "redirect_uri"
_UNKNOWN: Final = "cannot tell whether requests get there"


_ROOT: Final = (
    "If a proxy strips a path, begin the path of the redirect URI with it, and set "
    "APPLICATION_ROOT to it"
)
_RESTART: Final = (
    "Start the application if it is not running, and restart it if you have changed its settings"
)


class _Seen(Enum):
    """What is at the address of the redirect URI."""

    APPLICATION = auto()
    SOMETHING_ELSE = auto()
    UNKNOWN = auto()


def check_redirect_uri(found: Findings, app: Flask, state: AppState) -> None:
    """Check whether the redirect URI points to the callback, or to a page of the application."""
    redirect_uri = state.redirect_uri
    if redirect_uri is None:
        return
    if redirect_uri.is_secure and is_loopback(redirect_uri.host):
        found.warning(
            _SUBJECT,
            f"{redirect_uri.uri} uses https on this machine",
            "Serve https there, by the application or by a proxy in front of it, or use http://",
        )
    root = app.config["APPLICATION_ROOT"].rstrip("/")
    mounts = list(_find_mounts(app.wsgi_app, app))
    if not any(mounts):
        # Servers and proxies may still mount it anywhere.
        mounts = []
    if redirect_uri.is_callback:
        _check_callback(found, redirect_uri, state.settings, root, mounts)
    else:
        _check_page(found, app, redirect_uri, state.settings, [root, *mounts, ""])
    _check_host(found, app, redirect_uri)


def _check_callback(
    found: Findings, redirect_uri: RedirectURI, settings: Settings, root: str, mounts: list[str]
) -> None:
    """Check a redirect URI that ends with the path of the callback.

    :param root: the path at which the application is mounted, as it says itself.
    :param mounts: the paths at which its own middleware mounts it.
    """
    uri, callback = redirect_uri.uri, settings.callback_path
    mount = redirect_uri.path.removesuffix(callback)
    name = "landing page at the callback" if redirect_uri.needs_landing else "callback"
    fix = (
        "Use the path of the callback behind the path at which a server mounts the application "
        f"or that a proxy strips. The callback is {callback}, because {PREFIX}URL_PREFIX is "
        f"{settings.url_prefix}. {_RESTART}"
    )
    # A server may add another path in front of these.
    if mounts and not any(mount.endswith(path) for path in mounts):
        found.error(
            _SUBJECT,
            f"{uri} points to the {name} only if the application is mounted at {mount or '/'}, but "
            f"it is mounted at {' and '.join(mounts)}",
            f"Use the path {mounts[0]}{callback}",
        )
        return
    script = f"{redirect_uri.site}{quote(mount)}{settings.url_prefix}/landing.js"
    seen, why = _look(script, json.dumps([{"redirectUri": uri}]), settings)
    if seen is _Seen.APPLICATION:
        found.ok(_SUBJECT, f"{uri} leads to the {name} of the running application")
    elif seen is _Seen.SOMETHING_ELSE:
        found.error(_SUBJECT, f"{uri} does not lead to the application's {name} ({why})", fix)
    elif mount in (mounts or [root]):
        found.note(_SUBJECT, f"{uri} points to the {name}; {_UNKNOWN}, because {why}")
    else:
        found.warning(
            _SUBJECT,
            f"{uri} points to the {name} only if the application is mounted at {mount or '/'}; "
            f"cannot tell, because {why}",
            fix,
        )


def _check_page(
    found: Findings, app: Flask, redirect_uri: RedirectURI, settings: Settings, mounts: list[str]
) -> None:
    """Check a redirect URI with another path, at which the landing page has to be.

    :param mounts: the paths at which the application may be mounted.
    """
    uri, path = redirect_uri.uri, redirect_uri.path
    below = [mount for mount in mounts if f"{path}/".startswith(f"{mount}/")]
    is_page = any(_is_served(app, redirect_uri, path.removeprefix(m) or "/") for m in below)
    if not is_page and "#" not in uri:
        found.error(
            _SUBJECT,
            f"{uri} points to no page of the application",
            f"Use the path of the callback, {settings.callback_path} "
            f"({PREFIX}URL_PREFIX is {settings.url_prefix})",
        )
        return
    # A front end of another server loads the script, too.
    seen, why = _look(uri.partition("#")[0], "landing.js", settings)
    if seen is _Seen.APPLICATION:
        found.ok(_SUBJECT, f"{uri} leads to the landing page")
    elif seen is _Seen.SOMETHING_ELSE:
        no_page = "" if is_page else "points to no page of the application, and "
        found.error(
            _SUBJECT,
            f"{uri} {no_page}does not lead to the landing page ({why})",
            f"{_ROOT}. If another server serves the front end, its page has to load "
            f"{settings.url_prefix}/landing.js. {_RESTART}",
        )
    elif is_page:
        found.note(
            _SUBJECT, f"{uri} points to a page of the application; {_UNKNOWN}, because {why}"
        )
    else:
        found.warning(
            _SUBJECT,
            f"{uri} points to no page of the application; cannot tell whether another server leads "
            f"to the landing page, because {why}",
            "Ignore this if another server serves the front end, or mounts the application below a "
            f"path. {_ROOT}",
        )


def _find_mounts(wsgi: Any, app: Flask, path: str = "") -> Iterator[str]:
    """Yield the paths at which the application's own middleware mounts it."""
    if isinstance(wsgi, DispatcherMiddleware):
        for below, mounted in wsgi.mounts.items():
            yield from _find_mounts(mounted, app, path + below)
        yield from _find_mounts(wsgi.app, app, path)
    elif getattr(wsgi, "__self__", wsgi) is app:
        yield path
    elif hasattr(wsgi, "app"):
        # Most middleware calls it like this.
        yield from _find_mounts(wsgi.app, app, path)


def _look(url: str, expected: str, settings: Settings) -> tuple[_Seen, str]:
    """Request a page as a browser does that comes back from the server, but without a response.

    :param expected: what the page contains if it is the application's.
    :return: what is there, and the status of the response, or why nobody can tell.
    """
    transport = Transport(trust=Trust(settings.ca_bundle), timeout=settings.timeout)
    try:
        response = transport.get(url)
    except (ServerUnavailable, ServerError):
        return _Seen.UNKNOWN, "there is no usable response now"
    status = f"HTTP {response.status}"
    is_success = 200 <= response.status <= 299
    if is_success and expected.encode() in response.body:
        return _Seen.APPLICATION, status
    if is_success or response.status in (404, 405, 410):
        return _Seen.SOMETHING_ELSE, status
    return _Seen.UNKNOWN, f"the response there is {status}"


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
