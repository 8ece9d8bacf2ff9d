"""The routes of a logout."""

from __future__ import annotations

import logging
from typing import Final

from flask import Response, after_this_request, request

from .. import audit, signals
from ..service import get_app, get_session_service, get_state
from ..session.sessions import Session, UnreadableTokens
from ..store.base import is_recent
from ..users import Anonymous
from . import stray
from .cookies import delete_cookie, set_cookie
from .failures import handles_failures
from .flask_session import clear_flask_session
from .pages import lead_to, page, see_other, set_private
from .place import url_for
from .request_user import load_user
from .requests import require_same_origin, wants_json
from .responses import json_response
from .returning import default_url

log: Final = logging.getLogger("flask_devkit_sso")

_OUTCOME_TTL: Final = 300
"""Seconds for which the signed-out page can show the outcome of a logout."""


@handles_failures
def logout() -> Response:
    """Ask for confirmation (GET), or end the session here and then at the server (POST;
    docs/protocol.md section 6)."""
    current = load_user()
    if request.method != "POST":
        if isinstance(current.user, Anonymous):
            return see_other(url_for("devkit_sso_authorize.signed_out"))
        return page(
            "stray.html" if stray.PARAMETER in request.args else "logout.html",
            form=True,
            username=current.user.username,
            action_url=url_for("devkit_sso_authorize.logout"),
            cancel_url=default_url(),
        )
    require_same_origin(request)
    # Only the form of our own page has this field. An application's form gets a redirect.
    is_our_form = "asked" in request.form
    state, session, user = get_state(), current.session, current.user
    is_confirmed = False
    if session is not None:
        is_confirmed = _end_session(session)
        current.set_session(None)
    # Do this before the signal, because a receiver may raise an exception.
    after_this_request(lambda response: delete_cookie(response, state.session_cookie))
    if session is not None:
        clear_flask_session()
        confirmed = "confirmed" if is_confirmed else "not confirmed"
        log.info("logout succeeded: uid %r, %s by the server", session.user.uid, confirmed)
        reason = "server_told" if is_confirmed else "server_not_told"
        audit.record("logout", reason, uid=session.user.uid, session=session.name)
        signals.logged_out.send(get_app(), user=user, server_told=is_confirmed)
    chosen_url = state.settings.after_logout_url
    next_url = chosen_url or signed_out_url(is_confirmed if session is not None else None)
    if wants_json(request):
        return set_private(json_response(server_told=is_confirmed, next=next_url))
    return lead_to(next_url) if chosen_url and is_our_form else see_other(next_url)


def _end_session(session: Session) -> bool:
    """End a session here, and return whether the server confirmed the logout."""
    service, sessions = get_state().service, get_session_service().sessions
    if session.sealed_tokens is None or service is None:
        sessions.end(session)
        return False
    # Record the logout first, in case this worker is killed before it has notified the server.
    logouts, uid, pending = service.logouts, session.user.uid, None
    try:
        if tokens := sessions.tokens(session):
            pending = logouts.record(session.name, uid, tokens)
    except UnreadableTokens:
        logouts.record_sealed(session.name, uid, session.sealed_tokens)
    ended = sessions.end(session)
    if ended is None or ended.sealed_tokens is None:
        return False
    try:
        latest = sessions.tokens(ended)
    except UnreadableTokens:
        pending = None
    if pending is None:
        # Only a worker that has the key can report it. It may also have refreshed the tokens since.
        logouts.record_sealed(session.name, uid, ended.sealed_tokens, replaces=True)
        return False
    return logouts.report(pending, latest)


def signed_out_url(is_confirmed: bool | None) -> str:
    """Return the URL of the signed-out page, and let this browser's page show the outcome.

    The outcome is in a cookie, because an address could be sent to somebody else, who would believe
    it.

    :param is_confirmed: whether the server confirmed the logout, or None if nothing is known.
    """
    local = get_state().session_service
    if local is not None and is_confirmed is not None:
        outcome = local.keys.signer("logout-outcome").sign(is_confirmed)
        after_this_request(
            lambda response: set_cookie(response, _outcome_cookie(), outcome, _OUTCOME_TTL)
        )
    return url_for("devkit_sso_authorize.signed_out")


def forget_outcome() -> None:
    """Delete the outcome of an earlier logout from the browser: somebody has signed in again."""
    if _outcome_cookie() in request.cookies:
        after_this_request(lambda response: delete_cookie(response, _outcome_cookie()))


@handles_failures
def signed_out() -> Response:
    """Show the outcome of a logout, as far as it is certain."""
    user = load_user().user
    return page(
        "signed_out.html",
        outcome="signed_in" if user.is_authenticated else _outcome(),
        username=user.username,
        login_url=url_for("devkit_sso_authorize.login"),
        logout_url=url_for("devkit_sso_authorize.logout"),
        home_url=default_url(),
    )


def _outcome_cookie() -> str:
    return f"{get_state().session_cookie}_outcome"


def _outcome() -> str:
    local = get_state().session_service
    if local is None:
        return "unknown"
    signed = local.keys.signer("logout-outcome").read(request.cookies.get(_outcome_cookie(), ""))
    if signed is None or not is_recent(signed.at, _OUTCOME_TTL):
        return "unknown"
    return "told" if signed.value else "not_told"
