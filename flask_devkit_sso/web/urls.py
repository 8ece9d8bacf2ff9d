"""The addresses to which a login may return."""

from __future__ import annotations

import re
from posixpath import normpath
from typing import Final
from urllib.parse import quote, unquote

from flask import current_app, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

from ..service import get_state
from .place import mount_point
from .requests import OUR_ENDPOINTS

MAX_NEXT: Final = 1500
"""Maximum length of an address to return to, in characters. A longer one is ignored."""


def current_url() -> str:
    """Return the current page's path and query, as :func:`safe_next` accepts them."""
    path = quote(mount_point() + request.path, safe="/-._~!$&'()*+,;=:@")
    query = quote(request.query_string, safe="/?-._~!$&'()*+,;=:@%")
    return f"{path}?{query}" if query else path


def safe_next(url: str | None) -> str:
    """Return the address to which a login returns: ``url`` if it certainly stays on this site,
    otherwise ``DEVKIT_SSO_AFTER_LOGIN_URL`` (RFC 9700 section 4.11).

    The allowed characters are those that neither Werkzeug nor a browser rewrites, so that what is
    checked here is what will be sent. Our own routes are not allowed either.
    """
    state = get_state()
    default = state.settings.after_login_url
    if default == "/":
        default = mount_point() + "/"
    if not url or len(url) > MAX_NEXT:
        return default
    if not re.fullmatch(r"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?#]|%[0-9A-Fa-f]{2})*", url):
        return default
    path = unquote(re.split(r"[?#]", url, maxsplit=1)[0])
    if "//" in path or "\\" in path or not {".", ".."}.isdisjoint(path.split("/")):
        return default
    lands = state.redirect_uri is not None and state.redirect_uri.lands_on(path)
    if lands and re.search(r"[?&]code=", url):
        # An authorization code is not part of a page's address.
        return default
    return default if is_our_path(path) else url


def is_our_path(path: str) -> bool:
    """Return whether a path, decoded and with the mount point, leads to one of our routes.

    Another spelling counts as well, such as ``/sso//logout``, ``/sso/./logout`` or
    ``/sso/logout/``: browsers and proxies resolve dots, and some proxies merge slashes.
    """
    adapter = current_app.create_url_adapter(request)
    root = normpath(mount_point()) if mount_point() else ""
    path = normpath("/" + path.lstrip("/"))
    if adapter is None or not path.startswith(f"{root}{get_state().settings.url_prefix}/"):
        return False
    try:
        endpoint: str = adapter.match(path.removeprefix(root), method="GET")[0]
    except RequestRedirect:
        return False
    except HTTPException:
        # Nothing responds to a GET of this path.
        return True
    return endpoint.startswith(OUR_ENDPOINTS)
