"""The routes: one blueprint starts and ends a sign-in here, the other one completes a login."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from flask import (
    Blueprint,
    Response,
    after_this_request,
    current_app,
    jsonify,
    make_response,
    redirect,
    render_template,
    request,
    url_for,
)
from itsdangerous import BadData

from .. import signals
from ..errors import LoginFailed, LoginRefused, ServerError, ServerUnavailable, StoreUnavailable
from ..protocol.client import Client
from ..service import get_app, get_state
from ..session.logins import Answer, Held, Logins, PendingLogin
from ..session.logouts import Debts
from ..session.sessions import Sessions, Tokens
from ..users import Anonymous
from .guard import visit
from .pages import (
    catalogue,
    failed,
    is_page_load,
    is_same_origin,
    log,
    not_configured,
    page,
    safe_next,
    speaks,
    starts_here,
    wants_json,
)

R = TypeVar("R")

PACKAGE: Final = "flask_devkit_sso"
"""Where the templates and static files are."""

_OUTCOME_TTL: Final = 300
"""Seconds for which the signed-out page repeats what a logout came to."""

_MAX_POST: Final = 32 * 1024
"""Bytes of what the landing script sends."""


def make_authorize_blueprint() -> Blueprint:
    """Return the blueprint with login, logout, the signed-out page and the pages' stylesheet."""
    blueprint = Blueprint(
        "devkit_sso_authorize", PACKAGE, template_folder="templates", static_folder="static"
    )
    blueprint.add_url_rule("/authorize", view_func=login)
    blueprint.add_url_rule("/logout", view_func=logout, methods=["GET", "POST"])
    blueprint.add_url_rule("/signed-out", view_func=signed_out)
    return blueprint


def make_callback_blueprint() -> Blueprint:
    """Return the blueprint to which the authentication server sends the browser back."""
    blueprint = Blueprint("devkit_sso_callback", PACKAGE)
    blueprint.add_url_rule("/callback", view_func=callback, methods=["GET", "POST"])
    blueprint.add_url_rule("/confirm", view_func=confirm, methods=["GET", "POST"])
    blueprint.add_url_rule("/landing.js", view_func=landing_js)
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
    if "lost" in request.args:
        # The page on the way out has seen that this browser keeps no cookie of ours.
        raise LoginFailed(
            "cookie_missing",
            hint="The browser keeps no cookie of this application, or comes back under another "
            "name of it than the redirect_uri's; or the workers have several SECRET_KEYs.",
        )
    parts, state = _parts(), get_state()
    elsewhere = state.right_origin(request)
    if elsewhere and "bounced" not in request.args:
        # Marked, so that a proxy that shows us another host than the browser's makes no loop.
        return _leave_for(
            elsewhere + url_for("devkit_sso_authorize.login", next=next_url, bounced=1)
        )
    if state.settings.binding == "confirm" and not starts_here(request):
        again = url_for("devkit_sso_authorize.login", next=next_url)
        return page("start.html", form=True, start_url=again)
    started = parts.logins.start(next_url, parts.redirect_uri, request.cookies)

    @after_this_request
    def keep(response: Response) -> Response:
        for name in started.stale_cookies:
            _delete_cookie(response, name)
        max_age = int(state.settings.login_ttl)
        _set_cookie(response, started.login.cookie_name, started.cookie, max_age)
        return response

    url = parts.client.authorization_url(
        redirect_uri=started.redirect_uri,
        state=started.state,
        code_verifier=started.login.code_verifier,
    )
    lands = state.lands_on(unquote(urlsplit(parts.redirect_uri).path))
    if lands and request.headers.get("Sec-Fetch-Dest") == "document":
        # Only the browser knows the hash route that was asked for, and it has brought it along.
        return page(
            "leaving.html",
            script=True,
            authorize_url=url,
            login_name=started.login.name,
            redirect_uri=parts.redirect_uri,
        )
    return _leave_for(url)


@_explained
def callback() -> Response:
    """Complete a login: GET for a redirect_uri without a fragment, POST for the landing script."""
    if request.method == "GET":
        query = request.query_string.decode(errors="replace")
        if get_state().settings.binding == "redirect_uri":
            # The vendor adds ?code=… at the very end, where our proof is (section 1).
            query = query.replace("?", "&")
        arrived = parse_qs(query, keep_blank_values=True)
        code, error, state, proof = (
            arrived.get(name, []) for name in ("code", "error", "state", "s")
        )
        answer = Answer(code, error, state, proof)
        return _leave_for(_complete(answer))
    if not is_same_origin(request):
        raise LoginFailed("cross_site")
    request.max_content_length = _MAX_POST
    answer, hash_route = _read_post()
    response = jsonify(next=_complete(answer, hash_route))
    response.headers["Cache-Control"] = "no-store"
    return response


@_explained
def confirm() -> Response:
    """Ask "Continue as …?" and take the answer, where the binding is the person's word."""
    parts = _parts()
    login = parts.logins.find(request.args.get("login", ""), request.cookies)
    if login is None:
        raise LoginFailed("login_unknown")
    if request.method != "POST":
        held = parts.logins.held(login)
        if held is None:
            raise LoginFailed("login_unknown")
        return page(
            "confirm.html",
            form=True,
            username=held.user.username,
            action_url=url_for("devkit_sso_callback.confirm", login=login.name),
        )
    if not is_same_origin(request):
        raise LoginFailed("cross_site")
    held = parts.logins.release(login)
    after_this_request(lambda response: _delete_cookie(response, login.cookie_name))
    if held is None:
        raise LoginFailed("login_unknown")
    if request.form.get("answer") != "yes":
        # Else the server would sign the same account in again, without a question.
        name, expires = secrets.token_hex(16), held.asked + held.tokens.expires_in
        tokens = Tokens(held.tokens.access_token, held.tokens.refresh_token, expires)
        told = parts.debts.pay(parts.debts.owe(name, held.user.uid, tokens), tokens)
        return _leave_for(_signed_out_url(told))
    with _leading_to(held.next):
        _sign_in(parts.sessions, held)
    return _leave_for(held.next)


def landing_js() -> Response:
    """The landing page's script, with the redirect_uri filled in."""
    texts = catalogue()
    no_answer = render_template(
        "devkit_sso/no_answer.html", language=texts.language, sso_text=texts.markup
    )
    script = render_template(
        "devkit_sso/landing.js",
        redirect_uri=get_state().settings.redirect_uri or "",
        no_answer=no_answer,
    )
    response = make_response(script)
    response.mimetype = "text/javascript"
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Content-Type-Options"] = "nosniff"
    speaks(response, texts.language)
    response.add_etag()
    response.make_conditional(request)
    return response


def landing() -> Response | None:
    """Answer for the application where the answer of a login may be in the address's fragment.

    Runs before each request. 200, never a redirect: a browser would carry the fragment along.
    """
    state = get_state()
    if (
        request.method != "GET"
        or not state.lands_on(request.script_root + request.path)
        or not is_page_load(request)
    ):
        return None
    passes = {
        name: value for name, value in request.cookies.items() if name.startswith(state.pass_cookie)
    }
    comes_back = request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site")
    if passes and (not comes_back or "2" in passes.values()):
        # The script was here and found no answer: it is the application's turn. But the pass may
        # be another tab's, and this one come from the server: it sees the page, unless it asks a
        # second time (a browser may call a reload what the first visit was).
        @after_this_request
        def forget(response: Response) -> Response:
            for name in passes:
                _delete_cookie(response, name)
            return response

        return None
    if state.logins is None or not state.logins.pending(request.cookies):
        return None
    return page("landing.html", script=True, pass_cookie=state.pass_cookie)


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
    state, session, user, told = get_state(), now.session, now.user, False
    if session is not None and state.sessions is not None:
        debts, debt, tokens = state.debts, None, state.sessions.tokens(session)
        if tokens is not None and debts is not None:
            # Written down first, for a worker that does not live to tell the server.
            debt = debts.owe(session.name, session.user.uid, tokens)
        ended = state.sessions.end(session)
        now.remember(None)
        if ended is not None and debt is not None and debts is not None:
            told = debts.pay(debt, state.sessions.tokens(ended))
        signals.logged_out.send(get_app(), user=user, server_told=told)
    after_this_request(lambda response: _delete_cookie(response, state.cookie_name))
    next_url = state.settings.after_logout_url
    if next_url is None:
        next_url = _signed_out_url(told if session is not None else None)
    if wants_json(request):
        response = jsonify(server_told=told, next=next_url)
        response.headers["Cache-Control"] = "no-store"
        return response
    return _leave_for(next_url)


def _signed_out_url(told: bool | None) -> str:
    """Return where one reads whether the server was told; None: nothing is known of that."""
    keys = get_state().keys
    outcome = keys.signer("logout-outcome").dumps(told) if keys and told is not None else None
    return url_for("devkit_sso_authorize.signed_out", outcome=outcome)


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
    debts: Debts
    redirect_uri: str


def _parts() -> _Parts:
    state = get_state()
    redirect_uri = state.redirect_uri(request)
    problems = state.problems(request)
    sessions, logins, client, debts = state.sessions, state.logins, state.client, state.debts
    if problems or not (sessions and logins and client and debts and redirect_uri):
        raise not_configured(problems)
    return _Parts(sessions, logins, client, debts, redirect_uri)


def _complete(answer: Answer, hash_route: str = "") -> str:
    """Turn what came back from the server into a session, or into a question to the person.

    :param hash_route: what the login's own tab was asked for besides ``next``.
    :return: where to go then.
    """
    parts = _parts()
    login, redirect_uri = parts.logins.resume(answer, parts.redirect_uri, request.cookies)
    confirming = get_state().settings.binding == "confirm"
    if not confirming:
        after_this_request(lambda response: _delete_cookie(response, login.cookie_name))
    next_url = login.next
    if hash_route and "#" not in next_url and answer.login == login.name:
        next_url = safe_next(next_url + hash_route)
    with _leading_to(next_url):
        held = _exchange(parts.client, login, answer, redirect_uri, next_url)
        if confirming:
            parts.logins.hold(login, held)
            return url_for("devkit_sso_callback.confirm", login=login.name)
        _sign_in(parts.sessions, held)
    return next_url


@contextmanager
def _leading_to(next_url: str) -> Iterator[None]:
    """Let a failure know the page that was asked for, so that another login leads there too."""
    try:
        yield
    except LoginFailed as error:
        error.next = next_url
        raise


def _exchange(
    client: Client, login: PendingLogin, answer: Answer, redirect_uri: str, next_url: str
) -> Held:
    """Ask the server for the tokens and the user that a code stands for."""
    _refuse_error(answer.error)
    code, asked = _single_code(answer.code), time.time()
    try:
        tokens = client.exchange(code, redirect_uri=redirect_uri, code_verifier=login.code_verifier)
        return Held(client.user_info(tokens.access_token), tokens, asked, next_url)
    except (ServerError, ServerUnavailable) as error:
        raise LoginFailed(error.reason, hint=error.description or "") from error


def _sign_in(sessions: Sessions, held: Held) -> None:
    """Start the session, after the application has had its say."""
    state, before = get_state(), visit()
    user = state.hooks.make_user(held.user)
    for hook in state.hooks.on_login:
        try:
            current_app.ensure_sync(hook)(user)
        except LoginRefused as error:
            raise LoginFailed("refused", message=error.why) from error
    cookie = sessions.create(held.user, held.tokens, asked=held.asked)
    if before.session is not None and sessions.end(before.session):
        # The server is not told: tokens of one person may share a grant there.
        signals.session_ended.send(get_app(), uid=before.session.user.uid, why="replaced")
    before.session, before.user = None, user
    after_this_request(lambda response: _set_cookie(response, state.cookie_name, cookie))
    log.info("login succeeded: uid %r", user.uid)
    signals.login_succeeded.send(get_app(), user=user)


def _read_post() -> tuple[Answer, str]:
    """Read what the landing script sends; what is not of its form is no answer."""
    try:
        data = request.get_json(silent=True)
    except RecursionError:
        data = None
    fields = data if isinstance(data, dict) else {}
    lists = {name: fields.get(name, []) for name in ("code", "error", "state", "s")}
    texts = {name: fields.get(name, "") for name in ("login", "hash")}
    flat = [*texts.values(), *(item for found in lists.values() for item in _as_list(found))]
    # JSON may hold half a character, which nothing can sign or send.
    if not all(isinstance(item, str) and item.isprintable() for item in flat):
        raise LoginFailed("code_missing")
    return Answer(**lists, login=texts["login"]), texts["hash"]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [None]


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


def _leave_for(url: str) -> Response:
    """Redirect, leaving neither a cached answer nor a Referer behind."""
    response = make_response(redirect(url, 303))
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def _set_cookie(response: Response, name: str, value: str, max_age: int | None = None) -> Response:
    response.set_cookie(
        name,
        value,
        max_age=max_age,
        path="/",
        secure=get_state().settings.secure,
        httponly=True,
        samesite="Lax",
    )
    return response


def _delete_cookie(response: Response, name: str) -> Response:
    response.delete_cookie(
        name, path="/", secure=get_state().settings.secure, httponly=True, samesite="Lax"
    )
    return response
