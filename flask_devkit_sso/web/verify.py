"""Forward authentication: a proxy asks whether a request to another program may pass.

A proxy lets a request pass if the response is a success. So no function of the application may
change a response here, such as an error handler that turns a 500 into a page with status 200. Nor
may the application respond if the proxy asks for a wrong path below our prefix. Flask dispatches
these requests to nobody: :func:`watch_verify` answers them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final
from urllib.parse import parse_qs, quote

from flask import Flask, Request, Response, has_request_context, request
from werkzeug.exceptions import BadRequest, HTTPException, MethodNotAllowed, NotFound

from ..errors import RETRY_AFTER, ConfigError, LoginFailed
from ..service import EXTENSION, AppState, get_request, get_service, get_state
from ..users import Anonymous, User
from .failures import as_login_failed
from .guard import forbidden, login_required_json
from .pages import page, set_private
from .place import is_landing_path, url_for
from .request_user import verified_user
from .requests import OUR_ENDPOINTS, is_frame, is_ours, is_page_load, is_verify
from .responses import http_error, is_cors, json_response, release
from .returning import leads_to_us, protected_url

log: Final = logging.getLogger("flask_devkit_sso")

_REQUIRED_ROLES: Final[dict[bytes, tuple[str, ...]]] = {
    b"": (),
    b"role=Admin": ("Admin",),
    b"role=User": ("User",),
}
"""The queries that exist, and the roles of which a user needs one."""

_LOGGED: Final = 100
"""How much of an unknown role is logged, in characters: anyone can send a long one."""


def watch_verify(app: Flask, prepare: Callable[..., AppState]) -> None:
    """Extend Flask's two methods that create responses, so that forward authentication depends on
    no function of the application and sets no cookie.

    :param prepare: does what precedes each request.
    """
    dispatch, handle_exception = app.full_dispatch_request, app.handle_exception

    def full_dispatch_request(*args: Any) -> Any:
        state, here = app.extensions[EXTENSION], get_request()
        if state.prefix_segment not in here.path:
            # This is nearly every request: all our paths contain the segment.
            return dispatch(*args)
        if is_verify(here):
            return _respond(app, here, prepare)
        # The landing page may be there, which _before_request serves.
        if is_unknown(state, here) and not is_landing_path(state, here):
            # What is wrong with the application matters to the next request.
            with suppress(ConfigError, HTTPException):
                prepare(app, here)
            return release(unknown_path(here))
        return dispatch(*args)

    def handle(*args: Any) -> Any:
        # Opening the application's own session can fail before anything is dispatched.
        here = get_request() if has_request_context() else None
        if here is not None and is_verify(here):
            log.error("forward authentication failed", exc_info=args[-1])
            return _finish(_unavailable())
        if here is not None and is_unknown(get_state(), here) and not _will_be_ours(app, here):
            log.error("a request for an unknown path failed", exc_info=args[-1])
            return release(unknown_path(here))
        return handle_exception(*args)

    app.full_dispatch_request = full_dispatch_request  # type: ignore[method-assign]
    app.handle_exception = handle  # type: ignore[assignment, method-assign]


def is_unknown(state: AppState, here: Request) -> bool:
    """Return whether a request's path is below our prefix, although none of our routes matches."""
    return leads_to_us(state, here) and not is_ours(here)


def unknown_path(here: Request) -> Response:
    """Return the response to a request that :func:`is_unknown`.

    Neither a view nor an error handler of the application may see it: a proxy would take its
    response for ours.
    """
    error = here.routing_exception
    return http_error(error if isinstance(error, BadRequest | MethodNotAllowed) else NotFound())


def verify() -> Response:
    """Return 204 with the user's name, uid and role if the current request may pass.

    Only the session's cookie and the query decide. The response is 401 if nobody is signed in, and
    403 if the user has another role or the query is unknown.

    :raises LoginFailed: as :func:`verified_user`.
    """
    roles = _REQUIRED_ROLES.get(request.query_string)
    if roles is None:
        query = request.query_string.decode("ascii", "replace")
        named = ", ".join(parse_qs(query, keep_blank_values=True).get("role", []))
        log.error(
            "nobody passes forward authentication with the role %r: write ?role=Admin, ?role=User "
            "or nothing, and no other parameter",
            named[:_LOGGED],
        )
        return json_response(403, error="unknown_query")
    user = verified_user().user
    if isinstance(user, Anonymous):
        # Without settings, the login's address leads nowhere.
        get_service()
        return _ask_to_sign_in()
    if roles and user.role not in roles:
        return forbidden(user, roles)
    return _pass(user)


def _will_be_ours(app: Flask, here: Request) -> bool:
    """Return whether Flask, which has not matched a request yet, would find one of our routes."""
    urls = None if here.routing_exception else app.create_url_adapter(here)
    try:
        return urls is not None and urls.match()[0].startswith(OUR_ENDPOINTS)
    except HTTPException:
        return False


def _respond(app: Flask, here: Request, prepare: Callable[..., AppState]) -> Response:
    """Return the response to a request, whatever fails."""
    try:
        # A proxy may name its own host, which TRUSTED_HOSTS does not contain.
        prepare(app, here, at_any_host=True)
        if here.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(["GET", "HEAD"])
        return _finish(verify())
    except LoginFailed as error:
        failure = as_login_failed(error)
        return _finish(failure.response if failure.code == 503 else None)
    except HTTPException as error:
        return _finish(http_error(error))
    except Exception:
        log.exception("forward authentication failed")
        return _finish(None)


def _finish(response: Any) -> Response:
    """Add the headers that every response has.

    :param response: None for the response that nothing is known now.
    """
    finished = release(set_private(response or _unavailable()))
    finished.vary.add("Cookie")
    headers_of = finished.get_wsgi_headers

    def get_wsgi_headers(environ: Any) -> Any:
        # An extension such as Flask-CORS may have replaced the methods after us.
        headers = headers_of(environ)
        for name in {name for name, _ in headers}:
            if is_cors(name) or name.lower() == "set-cookie":
                del headers[name]
        return headers

    finished.get_wsgi_headers = get_wsgi_headers  # type: ignore[method-assign]
    return finished


def _unavailable() -> Response:
    response = json_response(503, error="unavailable")
    response.headers["Retry-After"] = str(RETRY_AFTER)
    return response


def _pass(user: User) -> Response:
    """Return the response that lets a request pass.

    Each header is present and has a value: otherwise a proxy could pass on the one that the client
    sent.
    """
    response = Response(status=204)
    del response.headers["Content-Type"]
    for name, value in (("Uid", user.uid), ("Username", user.username), ("Role", user.role or "-")):
        if not value:
            raise ValueError(f"the user has no {name}")
        response.headers[f"X-DevKit-SSO-{name}"] = quote(value, safe="")
    return response


def _ask_to_sign_in() -> Response:
    login_url = url_for("devkit_sso_authorize.login", next=protected_url())
    if is_page_load(request):
        response = page("sign_in.html", 401, login_url=login_url)
    elif is_frame(request):
        response = page("framed.html", 401, framed=True, login_url=login_url)
    else:
        response = login_required_json(login_url)
    response.headers["X-DevKit-SSO-Login-URL"] = login_url
    return response
