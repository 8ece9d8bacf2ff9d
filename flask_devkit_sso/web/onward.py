"""The way from the landing page to the application's page, if there is no authorization response.

The landing page's script loads the same address again. Browsers say that this request comes from
this origin (``Sec-Fetch-Site``), so the application responds. A browser that does not say so needs
a *ticket*: the landing page contains one, :func:`onward` turns it into a cookie, and the next load
uses it up. A ticket is signed with a key of this installation, so it is bound to the path of its
redirect URI, and it is bound to the browser's session and logins.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from flask import Response, after_this_request, request
from werkzeug.datastructures import Headers

from ..service import get_session_service, get_state
from ..session.keys import Signer
from ..store.base import SKEW, is_recent
from .cookies import delete_cookie, login_and_session_cookies, set_cookie
from .failures import handles_failures
from .requests import has_own_referrer
from .responses import keep
from .returning import safe_next

_TICKET_TTL: Final = 10
"""Seconds for which a ticket is valid."""


class _ExactRedirect(Response):
    """A redirect whose address is sent unchanged. Werkzeug would encode characters that browsers
    send as they are, such as ``[``."""

    def get_wsgi_headers(self, environ: Any) -> Headers:
        headers = super().get_wsgi_headers(environ)
        headers["Location"] = self.headers["Location"]
        return headers


@handles_failures
def onward() -> Response:
    """Redirect the landing page's script to a page of this site. The browser keeps the hash."""
    to = request.args.get("to", "")
    lands = _is_landing_address(to)
    response = keep(_ExactRedirect(status=303, content_type="text/html; charset=utf-8"))
    response.headers["Location"] = to if lands else safe_next(to)
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = "same-origin"
    if lands and _is_valid(request.args.get("ticket", ""), "landing-ticket", _browser()):
        ticket = _signer("onward-ticket").sign([_browser(), _comes_from_landing()])
        set_cookie(response, get_state().ticket_cookie, ticket, _TICKET_TTL)
    return response


def create_ticket() -> str:
    """Return the ticket for a landing page. It allows nothing until the page's script uses it."""
    return _signer("landing-ticket").sign(_browser())


def use_ticket() -> bool:
    """Return whether the current request has a valid ticket, and delete it."""
    name = get_state().ticket_cookie
    # Another tab may receive an authorization response before this ticket is used. That request has
    # no Referer of the landing page.
    value = [_browser(), _comes_from_landing()]
    if not _is_valid(request.cookies.get(name, ""), "onward-ticket", value):
        return False
    after_this_request(lambda response: delete_cookie(response, name))
    return True


def _is_landing_address(to: str) -> bool:
    """Return whether an address is that of the landing page, with any query.

    The query is the application's, so it stays as it is, in whatever form the browser sent it.
    """
    uri, path = get_state().redirect_uri, to.partition("?")[0]
    if uri is None or uri.is_callback or not re.fullmatch(r"/(?!/)[!\"$-~]*", to):
        return False
    return uri.lands_on(unquote(path))


def _browser() -> str:
    """Return a hash of this browser's session and login cookies, which lead to the landing page."""
    found = sorted(login_and_session_cookies().items())
    return hashlib.sha256(repr(found).encode()).hexdigest()


def _comes_from_landing() -> bool:
    uri = get_state().redirect_uri
    if uri is None or not has_own_referrer(request):
        return False
    return uri.lands_on(unquote(urlsplit(request.referrer or "").path))


def _is_valid(ticket: str, purpose: str, value: object) -> bool:
    signed = _signer(purpose).read(ticket) if ticket else None
    return signed is not None and signed.value == value and is_recent(signed.at, _TICKET_TTL + SKEW)


def _signer(purpose: str) -> Signer:
    return get_session_service().keys.signer(purpose)
