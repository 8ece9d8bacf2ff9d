"""The routes: one blueprint starts and ends a sign-in here, the other one completes a login."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import wraps
from typing import NamedTuple, TypeVar

from flask import (
    Blueprint,
    Response,
    after_this_request,
    current_app,
    jsonify,
    make_response,
    redirect,
    request,
    url_for,
)
from itsdangerous import BadData

from . import signals
from .client import Client
from .contract import TokenAnswer, UserInfo
from .errors import LoginFailed, LoginRefused, ServerError, ServerUnavailable, StoreUnavailable
from .guard import make_user, visit
from .logins import Logins
from .pages import failed, is_same_origin, log, not_configured, page, safe_next, wants_json
from .sessions import Session, Sessions
from .state import get_app, get_state
from .users import Anonymous

R = TypeVar("R")

_OUTCOME_TTL = 300
"""Seconds for which the signed-out page repeats what a logout came to."""


def make_authorize_blueprint() -> Blueprint:
    """Return the blueprint with login, logout, the signed-out page and the pages' stylesheet."""
    blueprint = Blueprint(
        "devkit_sso_authorize", __name__, template_folder="templates", static_folder="static"
    )
    blueprint.add_url_rule("/authorize", view_func=login)
    blueprint.add_url_rule("/logout", view_func=logout, methods=["GET", "POST"])
    blueprint.add_url_rule("/signed-out", view_func=signed_out)
    return blueprint


def make_callback_blueprint() -> Blueprint:
    """Return the blueprint to which the authentication server sends the browser back."""
    blueprint = Blueprint("devkit_sso_callback", __name__)
    blueprint.add_url_rule("/callback", view_func=callback)
    return blueprint


def _explained(view: Callable[[], R]) -> Callable[[], R]:
    """Give each failure of a view its page and log line; tell ``login_failed`` of them."""

    @wraps(view)
    def explained() -> R:
        try:
            return view()
        except StoreUnavailable as error:
            failure = LoginFailed("store_unavailable", hint=str(error))
            failure.__cause__ = error
        except LoginFailed as error:
            failure = error
        if failure.response is None:
            failed(failure)
        if failure.reason != "cross_site":
            signals.login_failed.send(get_app(), reason=failure.reason, error=failure)
        raise failure

    return explained


@_explained
def login() -> Response:
    """Start a login: send the browser to the authentication server (docs/protocol.md section 1)."""
    next_url = safe_next(request.args.get("next"))
    if visit().user.is_authenticated:
        return _leave_for(next_url)
    parts = _parts()
    started = parts.logins.start(next_url, request.cookies)

    @after_this_request
    def keep(response: Response) -> Response:
        for name in started.stale_cookies:
            _delete_cookie(response, name)
        max_age = int(get_state().settings.login_ttl)
        _set_cookie(response, started.cookie_name, started.cookie, max_age)
        return response

    return _leave_for(
        parts.client.authorization_url(
            redirect_uri=parts.redirect_uri,
            state=started.state,
            code_verifier=started.code_verifier,
        )
    )


@_explained
def callback() -> Response:
    """Complete a login whose redirect_uri has no fragment (docs/protocol.md section 1)."""
    parts = _parts()
    login = parts.logins.resume(request.args.getlist("state"), request.cookies)

    @after_this_request
    def forget(response: Response) -> Response:
        _delete_cookie(response, login.cookie_name)
        return response

    _refuse_error(request.args.getlist("error"))
    code = _single_code(request.args.getlist("code"))
    asked = time.time()
    tokens, info = _ask_server(parts, code, login.code_verifier)
    user = make_user(info)
    for hook in get_state().hooks.on_login:
        try:
            current_app.ensure_sync(hook)(user)
        except LoginRefused as error:
            raise LoginFailed("refused", message=error.why) from error

    before = visit()
    cookie = parts.sessions.create(info, tokens, asked=asked)
    if before.session is not None and parts.sessions.end(before.session):
        # The server is not told: tokens of one person may share a grant there.
        signals.session_ended.send(get_app(), uid=before.session.user.uid, why="replaced")
    before.user = user

    @after_this_request
    def keep(response: Response) -> Response:
        _set_cookie(response, get_state().cookie_name, cookie)
        return response

    log.info("login succeeded: uid %r", info.uid)
    signals.login_succeeded.send(get_app(), user=user)
    return _leave_for(login.next)


@_explained
def logout() -> Response:
    """Ask (GET), or end the session here and then at the server (POST; section 6)."""
    now = visit()
    if request.method != "POST":
        if isinstance(now.user, Anonymous):
            return _leave_for(url_for("devkit_sso_authorize.signed_out"))
        return page(
            "logout.html",
            form=True,
            username=now.user.username,
            action_url=url_for("devkit_sso_authorize.logout"),
            cancel_url=safe_next(None),
        )
    if not is_same_origin(request):
        raise LoginFailed("cross_site")
    state, user, told = get_state(), now.user, False
    if now.session is not None and state.sessions is not None:
        ended = state.sessions.end(now.session)
        now.user = Anonymous()
        told = ended and _tell_server(state.sessions, state.client, now.session)
        signals.logged_out.send(get_app(), user=user, server_told=told)

    @after_this_request
    def forget(response: Response) -> Response:
        _delete_cookie(response, state.cookie_name)
        return response

    next_url = state.settings.after_logout_url
    if next_url is None:
        outcome = None
        if now.session is not None and state.keys is not None:
            outcome = state.keys.signer("logout-outcome").dumps(told)
        next_url = url_for("devkit_sso_authorize.signed_out", outcome=outcome)
    if wants_json(request):
        response = jsonify(server_told=told, next=next_url)
        response.headers["Cache-Control"] = "no-store"
        return response
    return _leave_for(next_url)


@_explained
def signed_out() -> Response:
    """Say what a logout came to; what is not known for sure is not claimed."""
    user = visit().user
    outcome = "unknown"
    keys = get_state().keys
    if user.is_authenticated:
        outcome = "signed_in"
    elif keys is not None:
        try:
            told = keys.signer("logout-outcome").loads(
                request.args.get("outcome", ""), max_age=_OUTCOME_TTL
            )
            outcome = "told" if told else "not_told"
        except BadData:
            pass
    return page(
        "signed_out.html",
        outcome=outcome,
        username=user.username,
        login_url=url_for("devkit_sso_authorize.login"),
        logout_url=url_for("devkit_sso_authorize.logout"),
        home_url=safe_next(None),
    )


class _Parts(NamedTuple):
    """What a login needs; there when nothing is missing."""

    sessions: Sessions
    logins: Logins
    client: Client
    redirect_uri: str


def _parts() -> _Parts:
    state = get_state()
    redirect_uri = state.redirect_uri(request)
    problems = state.problems(request)
    if problems or not (state.sessions and state.logins and state.client and redirect_uri):
        raise not_configured(problems)
    return _Parts(state.sessions, state.logins, state.client, redirect_uri)


def _refuse_error(errors: list[str]) -> None:
    """Understand an error answer of the authorize interface (RFC 6749 section 4.1.2.1)."""
    if "access_denied" in errors:
        raise LoginFailed("denied")
    if errors:
        named = errors[0] if re.fullmatch(r"[a-z_]{1,40}", errors[0]) else "an unknown error"
        raise LoginFailed("authorize_error", hint=f"The server's authorize said {named}.")


def _single_code(codes: list[str]) -> str:
    """Return the one code; RFC 6749 appendix A.11 says what it may be made of."""
    if len(codes) != 1 or not re.fullmatch(r"[ -~]{1,4096}", codes[0]):
        raise LoginFailed("code_missing")
    return codes[0]


def _ask_server(
    parts: _Parts, code: str, code_verifier: str | None
) -> tuple[TokenAnswer, UserInfo]:
    try:
        tokens = parts.client.exchange(
            code, redirect_uri=parts.redirect_uri, code_verifier=code_verifier
        )
        return tokens, parts.client.user_info(tokens.access_token)
    except ServerUnavailable as error:
        raise LoginFailed("server_unavailable", hint=error.description or "") from error
    except ServerError as error:
        reason = "server_rejected" if error.server_code else "server_answer_invalid"
        raise LoginFailed(reason, hint=error.description or "") from error


def _tell_server(sessions: Sessions, client: Client | None, session: Session) -> bool:
    """Have the server end its sign-in too; an expired access token is refreshed before."""
    tokens = sessions.tokens(session)
    if client is None or tokens is None:
        return False
    try:
        access_token = tokens.access_token
        if tokens.expires <= time.time() and tokens.refresh_token is not None:
            access_token = client.refresh(tokens.refresh_token).access_token
        client.logout(access_token)
    except (ServerError, ServerUnavailable) as error:
        log.warning("logout: the server was not told: %s", error.description)
        return False
    return True


def _leave_for(url: str) -> Response:
    """Redirect, leaving neither a cached answer nor a Referer behind."""
    response = make_response(redirect(url, 303))
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def _set_cookie(response: Response, name: str, value: str, max_age: int | None = None) -> None:
    response.set_cookie(
        name,
        value,
        max_age=max_age,
        path="/",
        secure=get_state().settings.secure,
        httponly=True,
        samesite="Lax",
    )


def _delete_cookie(response: Response, name: str) -> None:
    response.delete_cookie(
        name, path="/", secure=get_state().settings.secure, httponly=True, samesite="Lax"
    )
