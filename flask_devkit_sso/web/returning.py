"""The page to which a login returns."""

from __future__ import annotations

import logging
from posixpath import normpath
from typing import Final
from urllib.parse import quote

from flask import Request, request

from ..service import AppState, find_redirect_uri, get_state
from .place import mount_point
from .requests import is_frame, is_ours, is_script, stands_for_page
from .urls import MAX_LENGTH, contains_response, decoded_path, local_url, shortened

log: Final = logging.getLogger("flask_devkit_sso")

_LOGGED: Final = 200
"""How much of a path is logged, in characters: anyone can send a long one."""

_IN_PATH: Final = "/-._~!$&'()*+,;=:@"
"""What a path contains unencoded, besides letters and digits (RFC 3986 section 3.3)."""

_FROM_HEADERS: Final = "devkit_sso_from_headers"
"""An attribute of the request: True once an address from one of its headers has been used, False
once none may be used any more."""


def default_url() -> str:
    """Return ``DEVKIT_SSO_AFTER_LOGIN_URL``, by default the application's first page."""
    url = get_state().settings.after_login_url
    return quote(f"{mount_point()}/", safe=_IN_PATH) if url == "/" else url


def safe_next(url: str | None) -> str:
    """Return the address to which a login returns: ``url`` if it certainly stays on this site,
    otherwise ``DEVKIT_SSO_AFTER_LOGIN_URL`` (RFC 9700 section 4.11).

    An address that is too long or not acceptable loses its hash, then its query, before the default
    applies. This is logged.
    """
    if not url:
        return default_url()
    if whole := _accept_whole(url):
        return whole
    found = accept(url)
    *_, path = shortened(url)
    change = "ignored" if found is None else "shortened"
    log.warning("the address to return to after a login was %s: %r", change, path[:_LOGGED])
    return found or default_url()


def accept(url: str) -> str | None:
    """Return an address to which a login may return, shortened if necessary, or None if no part of
    ``url`` is acceptable."""
    return next(filter(None, map(_accept_whole, shortened(url))), None)


def _accept_whole(url: str) -> str | None:
    uri = find_redirect_uri()
    found = local_url(url, uri.origin if uri else "")
    if found is None or len(found) > MAX_LENGTH:
        return None
    path = decoded_path(found)
    if uri is not None and uri.lands_on(path) and contains_response(found):
        # An authorization response is not part of a page's address.
        return None
    return None if is_our_path(path) else found


def current_url() -> str:
    """Return the path and the query of the current request, as :func:`safe_next` accepts them."""
    path = quote(mount_point() + request.path, safe=_IN_PATH)
    query = quote(request.query_string, safe="/?-._~!$&'()*+,;=:@%")
    return f"{path}?{query}" if query else path


def return_url() -> str | None:
    """Return the page to which a login should return after the current request, or None if it is
    unknown.

    This is the page that was requested. If a script requested data or a part of a page, it is the
    page that the person is on. In a frame, it is the page around the frame, if that is ours.
    """
    is_read, is_by_script = request.method in ("GET", "HEAD"), is_script(request)
    if is_by_script and not (is_read and stands_for_page(request)):
        found = _page_of_person()
        if found is not None or not is_frame(request):
            return found
    return safe_next(current_url()) if is_read and not is_ours(request) else None


def _page_of_person() -> str | None:
    """Return the page that the person is on, according to the script or browser that sent the
    request."""
    if getattr(request, _FROM_HEADERS, None) is False:
        return None
    for name in ("HX-Current-URL", "Referer"):
        value = request.headers.get(name, "")
        # Browsers send ASCII. Werkzeug decodes anything else as Latin-1.
        if value.isascii() and accept(value) is not None:
            setattr(request, _FROM_HEADERS, True)
            return safe_next(value)
    return None


def close_headers(here: Request) -> bool:
    """Return whether the response may contain an address from a header of the request, and use no
    such address from now on.

    The body of a stream is created after the response's headers have been sent. An address in it
    could not be kept out of caches any more.
    """
    attributes = vars(here)
    used = bool(attributes.get(_FROM_HEADERS))
    attributes[_FROM_HEADERS] = False
    return used


def is_our_path(path: str) -> bool:
    """Return whether a path, decoded and with the mount point, is below our prefix.

    Another spelling counts as well, such as ``/sso//logout`` or ``/x/../sso/logout``: browsers and
    proxies resolve dots, and some proxies merge slashes.
    """
    root = normpath(mount_point()) if mount_point() else ""
    path = "/" + path.lstrip("/")
    below = f"{root}{get_state().settings.url_prefix}/"
    return path.startswith(below) or normpath(path).startswith(below)


def leads_to_us(state: AppState, here: Request) -> bool:
    """Return whether a request's path is below our prefix.

    The path may still begin with the mount point, if a proxy does not strip it.
    """
    if state.prefix_segment not in here.path:
        # Every spelling contains the prefix's last segment.
        return False
    return is_our_path(mount_point() + here.path) or is_our_path(here.path)


def protected_url() -> str | None:
    """Return the address that a proxy asks about in forward authentication, or None if it is
    unknown.

    A client may have sent these headers, so the address counts only as one to return to, and only
    if the headers agree.
    """
    names = ("X-Original-URI", "X-Forwarded-Uri")
    values = {request.headers[name] for name in names if name in request.headers}
    url = values.pop() if len(values) == 1 else ""
    # Proxies pass on the bytes that the client sent. Werkzeug decodes them as Latin-1.
    return accept(url) if url.isascii() else None
