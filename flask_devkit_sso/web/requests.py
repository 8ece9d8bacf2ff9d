"""What kind of request the current one is, and where it comes from."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl

from flask import Request, request
from werkzeug.datastructures import ImmutableMultiDict

from ..errors import LoginFailed
from ..service import find_redirect_uri, get_state

ME: Final = "devkit_sso_authorize.me"
"""The endpoint that returns the current user as JSON."""

OUR_ENDPOINTS = ("devkit_sso_authorize.", "devkit_sso_callback.")
"""The beginnings of the names of our endpoints."""

_TURBO_ACCEPTS = {"text/vnd.turbo-stream.html", "text/html", "application/xhtml+xml"}


def is_page_load(request: Request) -> bool:
    """Return whether a browser requests a page that a person will look at (Fetch Metadata, Accept).

    ``*/*`` alone does not mean a page, because scripts and tools send that. Nor does the handshake
    of a WebSocket.
    """
    upgrade = request.headers.get("Upgrade", "").lower()
    if "websocket" in upgrade or "Sec-WebSocket-Key" in request.headers:
        return False
    destination = request.headers.get("Sec-Fetch-Dest")
    if destination:
        return destination == "document"
    if "X-Requested-With" in request.headers:
        return False
    accept = request.headers.get("Accept")
    return not accept or any(kind == "text/html" for kind in request.accept_mimetypes.values())


def is_frame(request: Request) -> bool:
    """Return whether a browser loads a page into a frame of another page (Fetch Metadata)."""
    return request.headers.get("Sec-Fetch-Dest") in ("iframe", "frame", "embed", "object")


def is_script(request: Request) -> bool:
    """Return whether a script sent the request (or a frame did), so that a response does not
    replace the page that the person is on."""
    is_part = "HX-Request" in request.headers or "Turbo-Frame" in request.headers
    return is_part or not is_page_load(request)


def stands_for_page(request: Request) -> bool:
    """Return whether a script requests a whole page in place of the browser, as htmx does with
    boosted links and in the history, and Turbo with every visit."""
    headers = request.headers
    if "true" in (headers.get("HX-Boosted"), headers.get("HX-History-Restore-Request")):
        return True
    if "Turbo-Frame" in headers or "HX-Request" in headers:
        return False
    # Turbo 7 sends nothing but its own Accept header.
    accepted = {*request.accept_mimetypes.values(), "text/vnd.turbo-stream.html"}
    return "X-Turbo-Request-Id" in headers or accepted == _TURBO_ACCEPTS


def wants_json(request: Request) -> bool:
    """Return whether a request prefers JSON to a page. If it accepts both alike, it prefers JSON if
    it sends JSON or does not load a page."""
    accepted = request.accept_mimetypes
    html, json = accepted["text/html"], accepted["application/json"]
    return json > html if json != html else request.is_json or not is_page_load(request)


def is_same_origin(request: Request) -> bool:
    """Return whether a POST comes from a page of this site, according to Fetch Metadata or
    Origin."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = _origin()
    return bool(origin) and request.headers.get("Origin", "").lower() == origin


def require_same_origin(request: Request) -> None:
    """Refuse a POST that does not come from a page of this site.

    :raises LoginFailed: ``cross_site``.
    """
    if not is_same_origin(request):
        raise LoginFailed("cross_site")


def refuse_other_sites(request: Request) -> None:
    """Refuse a GET that a script or a page of another site makes.

    A request that names no site passes: browsers send neither header if a page of this site makes
    a GET without TLS, and tools never do.

    :raises LoginFailed: ``cross_site``.
    """
    is_named = "Sec-Fetch-Site" in request.headers or "Origin" in request.headers
    # "none": the person typed the address.
    if is_named and request.headers.get("Sec-Fetch-Site") != "none":
        require_same_origin(request)


def has_own_referrer(request: Request) -> bool:
    """Return whether the Referer is a page of this site. It may be that of an earlier page, if
    other sites have redirected the browser since."""
    origin = _origin()
    return bool(origin) and f"{request.referrer}/".startswith(f"{origin}/")


def may_follow_form(request: Request) -> bool:
    """Return whether a form of this site may have led to the request, through redirects.

    If the application's policy has ``form-action``, Chromium then blocks a redirect to another
    site, and the person sees nothing happen.
    """
    if "Accept" not in request.headers or not is_page_load(request):
        return False
    site = request.headers.get("Sec-Fetch-Site")
    return site == "same-origin" if site else has_own_referrer(request)


def is_ours(request: Request) -> bool:
    """Return whether a request is for one of the extension's routes."""
    return (request.endpoint or "").startswith(OUR_ENDPOINTS)


def is_verify(request: Request) -> bool:
    """Return whether a request is a proxy's, for forward authentication (web/verify.py).

    The path decides, because no host that the request names matters.
    """
    return request.path == get_state().verify_path


def decode_query(request: Request) -> None:
    """Decode the query if it is not UTF-8. Werkzeug's ``request.args`` raises an exception then,
    which would be a 500."""
    try:
        request.query_string.decode()
    except UnicodeDecodeError:
        query = request.query_string.decode(errors="replace")
        request.args = ImmutableMultiDict(parse_qsl(query, keep_blank_values=True))


def _origin() -> str:
    uri = find_redirect_uri()
    return uri.origin if uri else ""


def forget_query() -> None:
    """Remove the query from the current request once nobody needs it any more.

    It may contain an authorization code. Error trackers would record it with the frames of Flask,
    and so would the access logs that the application or the WSGI server writes after the response.
    """
    environ = request.environ
    environ["QUERY_STRING"] = ""
    for name in ("RAW_URI", "REQUEST_URI"):
        if name in environ:
            environ[name] = environ[name].partition("?")[0]
    request.query_string = b""
    for name in ("args", "values", "url", "full_path"):
        vars(request._get_current_object()).pop(name, None)  # type: ignore[attr-defined]
