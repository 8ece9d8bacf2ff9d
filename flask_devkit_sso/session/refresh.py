"""Refreshes the tokens of sessions (docs/protocol.md section 4).

A server may rotate refresh tokens and revoke the whole sign-in if an old one is used again. So only
one worker refreshes a token, and a new refresh token must not get lost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from flask import Flask

from .. import signals
from ..config.settings import Settings
from ..errors import ServerError, ServerUnavailable, StoreUnavailable
from ..protocol.client import Client
from ..protocol.contract import Tokens
from ..protocol.error_codes import INVALID_REFRESH_TOKEN
from ..store.base import SKEW, Store
from ..store.claim import POLL, Claim
from ..users import Hooks
from .ending import end_if_unchanged
from .logouts import PendingLogouts
from .sessions import Session, Sessions, refresh_claim_key
from .single_flight import single_flight

log: Final = logging.getLogger("flask_devkit_sso")


class TokenRefresh:
    """Refreshes the tokens of one installation's sessions.

    :param hooks: creates the user objects that are sent with signals.
    """

    def __init__(
        self,
        app: Flask,
        hooks: Hooks,
        store: Store,
        sessions: Sessions,
        client: Client,
        logouts: PendingLogouts,
        settings: Settings,
    ) -> None:
        self._app = app
        self._hooks = hooks
        self._store = store
        self._sessions = sessions
        self._client = client
        self._logouts = logouts
        self._installation = settings.installation
        self._timeout = settings.timeout
        self.max_seconds = settings.timeout + 5
        """Maximum duration of a refresh: the deadline of a call, and time for the store."""

    def refresh(
        self, session: Session, is_awaited: Callable[[], bool], *, refused: bool = False
    ) -> Session | None:
        """Refresh a session's tokens, unless another worker is already doing so.

        :param is_awaited: returns whether anybody is waiting for the result.
        :param refused: whether the server refused the access token before it expired.
        :return: the session with its new tokens, or None if it has ended.
        :raises ServerError, ServerUnavailable: if there is no usable access token.
        :raises UnreadableTokens: if the tokens cannot be decrypted here. This worker has claimed
            nothing then, so another one can refresh them.
        """
        tokens = self._sessions.tokens(session)
        is_usable = not refused and tokens is not None and tokens.expires_at > time.time()

        def is_done() -> bool:
            latest = self._sessions.reload(session)
            return latest is None or latest.sealed_tokens != session.sealed_tokens

        claim = Claim(
            self._store,
            refresh_claim_key(self._installation, session.name),
            life=self.max_seconds,
            # On a host whose clock is ahead, the record must outlive the call and the write after
            # it.
            expires_in=2 * self.max_seconds + SKEW,
        )
        try:
            single_flight(
                claim,
                lambda: self._refresh(session, claim, background=not is_awaited()),
                is_done=is_done,
                is_awaited=is_awaited,
                # Long enough to take over from a worker that was killed.
                wait_seconds=0 if is_usable else self.max_seconds + 1,
                # The call must have ended before anybody else can send this refresh token.
                min_seconds_left=self._timeout,
            )
        except (ServerError, ServerUnavailable):
            if not is_usable:
                raise
        return self._sessions.reload(session)

    def _refresh(self, session: Session, claim: Claim, *, background: bool) -> None:
        # If this worker is paused from here on, it must not send what another worker has sent.
        deadline = time.monotonic() + claim.seconds_left()
        tokens = self._sessions.tokens(session)
        if tokens is None or tokens.refresh_token is None:
            end_if_unchanged(self._app, self._sessions, session, "no_refresh_token")
            return
        try:
            new = self._client.refresh(tokens, background=background, deadline=deadline)
        except ServerError as error:
            if error.server_code != INVALID_REFRESH_TOKEN:
                raise
            end_if_unchanged(self._app, self._sessions, session, "refresh_refused")
            return
        if self._write(session, tokens, new):
            signals.token_refreshed.send(self._app, user=self._hooks.make_user(session.user))

    def _write(self, session: Session, old: Tokens, new: Tokens) -> bool:
        """Replace the tokens that were refreshed, and return whether that was done.

        It is not done if the session has ended, or if it has other tokens: this worker was paused,
        and another one has refreshed them since. The old refresh token may be invalid by now, so if
        the store fails, the write is repeated.
        """
        with_new = self._sessions.with_tokens(new, previous=session.sealed_tokens or "")
        written = with_new(session).sealed_tokens

        def change(latest: Session) -> Session:
            return with_new(latest) if latest.sealed_tokens == session.sealed_tokens else latest

        deadline = time.monotonic() + self.max_seconds
        while True:
            try:
                changed = self._sessions.change(session, change)
                if changed is None:
                    # A logout may have ended the session, and needs valid tokens for the server.
                    self._logouts.replace_tokens(session.name, session.user.uid, old, new)
                elif changed.sealed_tokens != written:
                    log.warning("new tokens dropped: the session has others by now")
                return changed is not None and changed.sealed_tokens == written
            except StoreUnavailable:
                if time.monotonic() > deadline:
                    raise
            time.sleep(POLL)
