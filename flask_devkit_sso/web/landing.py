"""The landing page: reads an authorization response from the address's fragment.

Browsers do not send the fragment (docs/protocol.md section 1), so a script reads it and posts it to
the callback. If there is no response, the script goes on to the application's page (web/onward.py).
"""

from __future__ import annotations

import json
from typing import Any, Final

from flask import Request, Response, request
from werkzeug.exceptions import RequestEntityTooLarge

from ..errors import LoginFailed
from ..protocol.authorization import AuthorizationResponse
from ..protocol.envelope import NotAnEnvelope, parse_envelope
from ..service import AppState, get_state
from .cookies import login_and_session_cookies
from .onward import create_ticket, use_ticket
from .pages import page
from .place import is_at_sign_in_host, is_landing_path, url_for
from .requests import decode_query, is_page_load
from .returning import accept, current_url, default_url
from .static_files import FILES, script_response

MARKER_LIFETIME: Final = 30 * 24 * 3600
"""Seconds for which a browser counts as one that signs in here."""

_MAX_POST: Final = 32 * 1024
"""Maximum size of the body that the landing script posts, in bytes."""


def landing_page(state: AppState, here: Request) -> Response | None:
    """Return the landing page if the current request may be the end of a login, or None.

    This runs before each request. The page is a 200, because a browser would carry the fragment
    along with a redirect.
    """
    uri = state.redirect_uri
    is_passed_on = False
    if here.endpoint == "devkit_sso_callback.onward":
        decode_query(here)
        is_passed_on = "to" not in here.args
    if not (is_passed_on or is_landing_path(state, here)) or state.session_service is None:
        return None
    if here.method != "GET" or not is_page_load(here):
        return None
    if is_passed_on:
        # A page that is not ours passes a response on.
        return _page(default_url(), has_no_page=True)
    if uri is None or not is_at_sign_in_host():
        return None
    site, ticket = here.headers.get("Sec-Fetch-Site"), None
    if site is None and "Accept" not in here.headers:
        # This is not a browser but a test, for example, and it runs no scripts.
        return None
    if not uri.is_callback:
        if not _may_have_response(state, site):
            return None
        if site in ("same-origin", None) and use_ticket():
            return None
        if site is None or state.shares_origin:
            ticket = create_ticket()
    return _page(accept(current_url()) or default_url(), has_no_page=uri.is_callback, ticket=ticket)


def _page(to: str, *, has_no_page: bool, ticket: str | None = None) -> Response:
    """Return the landing page.

    :param to: the address to which it leads without a response, unless its script knows it better.
    :param has_no_page: whether the application has no page at this address.
    """
    return page(
        "landing.html",
        script=True,
        # A browser that does not say what it loads may load a frame, which is the application's.
        framed=not has_no_page and "Sec-Fetch-Dest" not in request.headers,
        is_callback=has_no_page,
        onward_url=url_for("devkit_sso_callback.onward", to=to, ticket=ticket),
    )


def _may_have_response(state: AppState, site: str | None) -> bool:
    """Return whether the current request may bring an authorization response to a page of the
    application.

    Cookies can only lead to the landing page, never away from it, so another host of the domain
    does no harm by setting one.

    :param site: the header ``Sec-Fetch-Site``, which covers all redirects of the request.
    """
    if site == "same-origin":
        return state.shares_origin
    if site not in ("none", None):
        return True
    has_marker = site == "none" and state.marker_cookie in request.cookies
    return has_marker or bool(login_and_session_cookies())


def landing_js() -> Response:
    """Return the landing page's script: its settings as a JSON list, followed by a static file."""
    settings = json.dumps([{"redirectUri": get_state().settings.redirect_uri}])
    return script_response(f"{settings}\n{FILES['landing.js'].decode()}")


def read_post() -> AuthorizationResponse:
    """Return the authorization response that the landing script posts.

    :raises LoginFailed: ``code_missing`` if the body has another form or is too long.
    """
    request.max_content_length = _MAX_POST
    try:
        # Without the cache, an error tracker cannot read the code from the request.
        fields = parse_envelope(request.get_data(cache=False))
    except (RequestEntityTooLarge, NotAnEnvelope):
        raise LoginFailed("code_missing") from None
    if not request.is_json:
        raise LoginFailed("code_missing")
    lists = {name: fields.get(name, []) for name in ("code", "error", "state", "s")}
    login = fields.get("login", "")
    flat = [login, *(item for found in lists.values() for item in _as_list(found))]
    # JSON may contain half of a surrogate pair, which cannot be signed or sent.
    if not all(isinstance(item, str) and item.isprintable() for item in flat):
        raise LoginFailed("code_missing")
    return AuthorizationResponse(**lists, login=login)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [None]
