"""Keeps the tokens and the user of each session up to date while it is in use.

Background jobs do the work. A request waits only if the last verification of its user is too old,
or if it calls ``access_token()`` and the token has expired.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from flask import Flask

from ..config.settings import Settings
from ..errors import ServerError, ServerUnavailable, StoreUnavailable
from .jobs import Jobs, Work
from .refresh import TokenRefresh
from .revalidate import Revalidation
from .sessions import Session, Sessions, UnreadableTokens
from .verified_users import VerifiedUsers

PATIENCE: Final = 1.0
"""Seconds that a request waits for a new verification while the old one may still be used."""


class Maintenance:
    """Refreshes tokens and revalidates users of one installation's sessions."""

    def __init__(
        self,
        app: Flask,
        sessions: Sessions,
        users: VerifiedUsers,
        refresh: TokenRefresh,
        revalidation: Revalidation,
        settings: Settings,
    ) -> None:
        self._app = app
        self._sessions = sessions
        self._users = users
        self._refresh = refresh
        self._revalidation = revalidation
        self._timeout = settings.timeout
        self._jobs = Jobs()

    def verify(self, session: Session) -> Session | None:
        """Return the session after its user was verified recently, or None if it has ended.

        :raises ServerUnavailable: if the last verification is too old to rely on, and there is no
            new one.
        """
        if session.sealed_tokens is None:
            return session
        is_due = self._users.should_revalidate(session.verified_at)
        if self._users.is_fresh(session.verified_at):
            if is_due or session.refresh_at <= time.time():
                self._jobs.start(session.key, self._update(session))
            return session
        is_usable = self._users.is_usable(session.verified_at)
        seconds = min(PATIENCE, self._timeout) if is_usable else self._timeout
        failure = ServerUnavailable(
            "The server has not confirmed this user for longer than DEVKIT_SSO_OUTAGE_GRACE."
        )
        try:
            self._jobs.run(session.key, self._update(session), seconds)
        except StoreUnavailable:
            # A store that can be read but not written also prevents a revalidation.
            if not is_usable:
                raise
        except UnreadableTokens as error:
            failure = error
        except (ServerError, ServerUnavailable):
            # Decide below by what is known.
            pass
        latest = self._sessions.reload(session)
        if latest is not None and not self._users.is_usable(latest.verified_at):
            raise failure
        return latest

    def access_token(self, session: Session) -> str | None:
        """Return a valid access token of a session, or None if the session has ended.

        :raises ServerError, ServerUnavailable: if there is none, and it cannot be refreshed now.
        """
        deadline = time.monotonic() + self._refresh.max_seconds
        latest: Session | None = session
        failure: ServerError | ServerUnavailable = ServerUnavailable(
            "The access token is still being refreshed."
        )
        while latest is not None:
            tokens = self._sessions.tokens(latest)
            if tokens is None:
                raise ServerUnavailable("This session has no tokens: a test created it.")
            if tokens.expires_at > time.time():
                if latest.refresh_at <= time.time():
                    self._jobs.start(latest.key, self._update(latest))
                return tokens.access_token
            wait = deadline - time.monotonic()
            if wait <= 0:
                raise failure
            has_failed = False
            try:
                self._jobs.run(latest.key, self._update(latest), wait)
            except (ServerError, ServerUnavailable) as error:
                failure, has_failed = error, True
            latest = self._sessions.reload(latest)
            if has_failed and latest is not None and latest.sealed_tokens == session.sealed_tokens:
                raise failure
        return None

    def _update(self, session: Session) -> Work:
        """Return the job that refreshes a session's tokens and revalidates its user, as far as
        either is due."""

        def update(is_awaited: Callable[[], bool]) -> None:
            with self._app.app_context():
                latest = self._sessions.reload(session)
                if latest is not None and latest.refresh_at <= time.time():
                    # Another worker may have asked about the user all the same.
                    with suppress(UnreadableTokens):
                        latest = self._refresh.refresh(latest, is_awaited)
                if latest is not None and self._users.should_revalidate(latest.verified_at):
                    self._revalidation.revalidate(latest, is_awaited)

        return update
