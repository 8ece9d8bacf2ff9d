"""The routes that start and complete a login."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from flask import Response, after_this_request, current_app, request
from werkzeug.exceptions import MethodNotAllowed

from .. import audit, signals
from ..errors import LoginFailed, LoginRefused, ServerError, ServerUnavailable, SSOError
from ..protocol.authorization import AuthorizationResponse, parse_query
from ..protocol.contract import Tokens, UserInfo
from ..service import get_app, get_redirect_uri, get_service, get_state, request_host
from ..session.ending import record_ends
from ..session.login_results import LoginResult
from ..session.logins import PendingLogin
from .cookies import delete_cookie, set_cookie
from .failures import handles_failures
from .flask_session import flask_session_of
from .landing import MARKER_LIFETIME, read_post
from .logout import forget_outcome, signed_out_url
from .pages import lead_to, page, see_other, set_private
from .place import url_for
from .request_user import load_user
from .requests import forget_query, is_page_load, may_follow_form, require_same_origin
from .responses import json_response
from .returning import default_url, safe_next
from .stray import ignore_stray, signed_in_url

log: Final = logging.getLogger("flask_devkit_sso")


@handles_failures
def login() -> Response:
    """Start a login: redirect the browser to the server (docs/protocol.md section 1).

    With the binding ``confirm``, the person starts the login with the button of a page. Otherwise
    another site could start one by opening this address, and then have its own code exchanged.
    """
    next_url = safe_next(request.args.get("next"))
    needs_button = get_state().settings.binding == "confirm"
    if request.method == "POST":
        if not needs_button:
            raise MethodNotAllowed(["GET", "HEAD", "OPTIONS"])
        require_same_origin(request)
    elif load_user().user.is_authenticated and not needs_button:
        return see_other(next_url)
    if "lost" in request.args:
        # leaving.js noticed that the browser keeps none of our cookies.
        raise LoginFailed(
            "cookie_missing",
            hint="The browser does not keep this application's cookies, the application was opened "
            "under a different host name than the redirect_uri's, a proxy changes the path or the "
            "domain of cookies, or the workers have different SECRET_KEYs.",
        )
    service, uri = get_service(), get_redirect_uri()
    if request.method != "POST":
        if uri.is_at_other_host(request_host()) and "bounced" not in request.args:
            # "bounced" prevents a loop behind a proxy that changes the Host header.
            url = url_for("devkit_sso_authorize.login", next=next_url, bounced=1)
            return see_other(uri.site + url)
        if needs_button:
            return _start_page(next_url)
    started = service.logins.start(next_url, uri.uri, request.cookies)

    @after_this_request
    def set_cookies(response: Response) -> Response:
        for name in started.stale_cookies:
            delete_cookie(response, name)
        max_age = int(get_state().settings.login_ttl)
        set_cookie(response, started.login.cookie_name, started.cookie, max_age)
        if uri.lands_on_application:
            set_cookie(response, get_state().marker_cookie, "1", MARKER_LIFETIME)
        return response

    url = service.client.authorization_url(
        redirect_uri=started.redirect_uri,
        state=started.state,
        code_verifier=started.login.code_verifier,
    )
    # Without Accept it is no browser, and so it runs no script: a test, for example.
    is_page = needs_button or ("Accept" in request.headers and is_page_load(request))
    if uri.needs_landing and is_page:
        # Only the browser knows the hash of the requested page. A script on this page stores it.
        return page(
            "leaving.html",
            script=True,
            authorize_url=url,
            login_name=started.login.name,
            redirect_uri=uri.uri,
        )
    return lead_to(url) if needs_button or may_follow_form(request) else see_other(url)


def _start_page(next_url: str) -> Response:
    """Return the page that says who is signed in, with the button that starts a login."""
    user = load_user().user
    return page(
        "start.html",
        form=True,
        script=True,
        username=user.username,
        uid=user.uid,
        action_url=url_for("devkit_sso_authorize.login", next=next_url),
        next_url=next_url,
    )


@handles_failures
def callback() -> Response:
    """Complete a login. The landing script sends a POST. If the redirect URI is this route, the
    server redirects the browser here with a GET. A HEAD request uses nothing up."""
    if request.method == "HEAD":
        raise MethodNotAllowed(["GET", "POST", "OPTIONS"])
    if request.method == "GET":
        authorization_response = parse_query(
            request.query_string.decode(errors="replace"),
            nonce_in_uri=get_state().settings.binding == "redirect_uri",
        )
        forget_query()
        return see_other(_complete_or_ignore(authorization_response))
    require_same_origin(request)
    next_url = _complete_or_ignore(read_post())
    response = set_private(json_response(next=next_url))
    # The script reads the header, which nobody rewrites.
    response.headers["X-DevKit-SSO-Next"] = next_url
    return response


@handles_failures
def confirm() -> Response:
    """Ask "Continue as …?" and act on the person's decision (binding ``confirm``)."""
    service = get_service()
    login = service.logins.find(request.args.get("login", ""), request.cookies)
    if login is None:
        return _confirmed_before()
    if request.method != "POST":
        result = service.login_results.get(login)
        if result is None:
            return _confirmed_before()
        return page(
            "confirm.html",
            form=True,
            username=result.user.username,
            uid=result.user.uid,
            action_url=url_for("devkit_sso_callback.confirm", login=login.name),
        )
    require_same_origin(request)
    result = service.login_results.take(login)
    after_this_request(lambda response: delete_cookie(response, login.cookie_name))
    if result is None:
        return _confirmed_before()
    if request.form.get("answer") != "yes":
        audit.record("login_failed", "declined", uid=result.user.uid)
        # Sign out at the server too: otherwise it would sign in the same account again.
        return see_other(signed_out_url(_sign_out_at_server(result.user, result.tokens)))
    with _ending_at(result.next):
        _sign_in(result, login)
    return page(
        "signed_in.html",
        script=True,
        login_name=login.name,
        next_url=result.next,
        home_url=default_url(),
    )


def _confirmed_before() -> Response:
    """Respond to a person who comes back to the question after they have answered it."""
    if not load_user().user.is_authenticated:
        raise LoginFailed("login_unknown")
    return see_other(signed_in_url())


def _complete_or_ignore(response: AuthorizationResponse) -> str:
    """Complete the login that an authorization response belongs to, and return the URL to redirect
    to. If this browser has no such login, the response is stray, and is not exchanged.

    :raises LoginFailed: if the login fails, and for a stray response if nobody is signed in.
    """
    try:
        return _complete(response)
    except LoginFailed as error:
        return ignore_stray(response, error)


def _complete(response: AuthorizationResponse) -> str:
    """Complete a login with its authorization response: create the session, or with the binding
    ``confirm`` store the result until the person confirms it.

    :return: the URL to redirect to.
    """
    service = get_service()
    uri = get_redirect_uri().uri
    login, sent_redirect_uri = service.logins.resume(response, uri, request.cookies)
    is_confirmed = get_state().settings.binding != "confirm"

    @after_this_request
    def name_login(sent: Response) -> Response:
        # The tab that started this login keeps the hash of the requested page. With ``confirm``, a
        # later page needs it.
        if is_confirmed or sent.status_code != 200:
            sent.headers["X-DevKit-SSO-Login"] = login.name
        return sent

    with _ending_at(login.next):
        result = _exchange(login, response, sent_redirect_uri)
        # An error tracker would record the nonce in it if the application's code below fails.
        del sent_redirect_uri
        if not is_confirmed:
            service.login_results.put(login, result)
            return url_for("devkit_sso_callback.confirm", login=login.name)
        _sign_in(result, login)
    return login.next


@contextmanager
def _ending_at(next_url: str) -> Iterator[None]:
    """Add the requested page to a failure, so that the next login can return to it."""
    try:
        yield
    except LoginFailed as error:
        error.next = next_url
        raise


@contextmanager
def _about(uid: str) -> Iterator[None]:
    """Add the account to an error, for the audit trail."""
    try:
        yield
    except SSOError as error:
        error.uid = uid
        raise


def _exchange(
    login: PendingLogin, response: AuthorizationResponse, redirect_uri: str
) -> LoginResult:
    """Exchange the authorization code, and ask the server who signed in.

    This uses the login up, unless the server does not respond to earlier calls: then loading the
    same address again repeats it.
    """
    client = get_service().client
    try:
        response.require_code()
    except LoginFailed:
        _use(login)
        raise
    try:
        with client.reserve_exchange() as place:
            _use(login)
            tokens = client.exchange(
                response.require_code(),
                redirect_uri=redirect_uri,
                code_verifier=login.code_verifier,
                place=place,
            )
        user = client.user_info(tokens.access_token)
        with _about(user.uid):
            is_valid = client.is_valid(user, tokens.access_token)
    except (ServerError, ServerUnavailable) as error:
        failure = LoginFailed(error.reason, hint=error.description or "")
        failure.uid = error.uid
        raise failure from error
    if not is_valid:
        with _about(user.uid):
            # Otherwise the next login would continue with the same account, without a question.
            _sign_out_at_server(user, tokens)
            raise LoginFailed("denied", hint="The server says that the user is not valid.")
    return LoginResult(user, tokens, login.next)


def _sign_out_at_server(user: UserInfo, tokens: Tokens) -> bool:
    """End a sign-in at the server that is not used here, and return whether that is confirmed.

    If the server cannot be reached, any worker reports it later.
    """
    logouts = get_service().logouts
    pending = logouts.record(secrets.token_hex(16), user.uid, tokens)
    return logouts.report(pending, tokens)


def _use(login: PendingLogin) -> None:
    """Mark a login as used. Its cookie ends too, unless the person still has to confirm it."""
    get_service().logins.use(login)
    if get_state().settings.binding != "confirm":
        after_this_request(lambda response: delete_cookie(response, login.cookie_name))


def _sign_in(result: LoginResult, login: PendingLogin) -> None:
    """Create the session, unless the application refuses the user."""
    state, sessions, current = get_state(), get_service().sessions, load_user()
    user = state.hooks.make_user(result.user)
    with _about(user.uid), flask_session_of(user.uid, current.user.uid):
        for hook in state.hooks.on_login:
            try:
                current_app.ensure_sync(hook)(user)
            except LoginRefused as error:
                raise LoginFailed("refused", message=error.why) from error
        name, set_session_cookie = _create_session(result, login)
    if current.session is not None and sessions.end(current.session):
        # Do not notify the server: if both logins share a grant there, both would end.
        record_ends([current.session], "replaced")
        signals.session_ended.send(get_app(), uid=current.session.user.uid, why="replaced")
    current.set_user(user)
    forget_outcome()
    after_this_request(set_session_cookie)
    log.info("login succeeded: uid %r", user.uid)
    audit.record("login", uid=user.uid, session=name)
    signals.login_succeeded.send(get_app(), user=user)


def _create_session(
    result: LoginResult, login: PendingLogin
) -> tuple[str | None, Callable[[Response], Response]]:
    """Create a session, and return its name and a function that sets its cookie.

    So no variable of the caller contains the cookie's value: an error tracker would record it if a
    signal's receiver fails.
    """
    service = get_service()
    cookie = service.sessions.create(
        result.user,
        result.tokens,
        verified_at=result.tokens.requested_at,
        login=service.logins.mark(login),
        next_url="" if result.next == default_url() else result.next,
    )
    name = service.sessions.name_of(cookie)
    return name, lambda response: set_cookie(response, get_state().session_cookie, cookie)
