"""The current user's access token, refreshed by one of however many requests need it."""

from __future__ import annotations

import time
from dataclasses import replace

from werkzeug.exceptions import Unauthorized

from . import signals
from .client import Client
from .errors import ServerError, ServerUnavailable
from .guard import visit
from .pages import log
from .sessions import EARLY, Session, Sessions, Tokens
from .state import get_app, get_state


def current_access_token() -> str:
    """See :meth:`DevKitSSO.access_token`; within a request."""
    state, session = get_state(), visit().session
    if session is None or state.sessions is None:
        raise Unauthorized("Nobody is signed in.")
    tokens = state.sessions.tokens(session)
    if tokens is None or state.client is None:
        raise ServerUnavailable("This session has no tokens: tests made it, or its key is gone.")
    if tokens.expires - time.time() > EARLY:
        return tokens.access_token
    return _refreshed(state.sessions, state.client, session, state.settings.timeout)


def _refreshed(sessions: Sessions, client: Client, session: Session, timeout: float) -> str:
    """Refresh, or wait for who does: a refresh token used twice can end the sign-in
    (docs/protocol.md, "What standard servers do besides")."""
    deadline = time.monotonic() + timeout
    while True:
        # Longer than a call may take, so that no other refreshes while this one does.
        mine = sessions.lock(session, timeout + 5)
        now = sessions.reload(session)
        tokens = sessions.tokens(now) if now else None
        try:
            if now is None or tokens is None:
                raise Unauthorized("The session has ended.")
            if tokens.expires - time.time() > (EARLY if mine else 0):
                return tokens.access_token
            if mine:
                return _refresh(sessions, client, now, tokens)
        finally:
            if mine:
                sessions.unlock(session, mine)
        if time.monotonic() > deadline:
            raise ServerUnavailable("The access token is being refreshed by another request.")
        time.sleep(0.05)


def _refresh(sessions: Sessions, client: Client, session: Session, tokens: Tokens) -> str:
    if tokens.refresh_token is None:
        raise Unauthorized("The session's access token has expired.")
    asked = time.time()
    try:
        answer = client.refresh(tokens.refresh_token)
    except ServerError as error:
        if error.server_code == "8206" and sessions.end(session):
            signals.session_ended.send(get_app(), uid=session.user.uid, why="refresh_refused")
            raise Unauthorized("The session has ended at the server.") from error
        log.warning("the access token could not be refreshed: %s", error.description)
        raise
    # The old refresh token stays unless a new one comes (section 4).
    kept = replace(answer, refresh_token=answer.refresh_token or tokens.refresh_token)
    if not sessions.replace_tokens(session, kept, asked=asked):
        raise Unauthorized("The session has ended.")
    signals.token_refreshed.send(get_app(), user=visit().user)
    return answer.access_token
