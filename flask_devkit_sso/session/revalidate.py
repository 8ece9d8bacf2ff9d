"""Asks the server whether users are still valid and what their role is (sections 3 and 5)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from flask import Flask

from .. import audit, signals
from ..config.settings import Settings
from ..errors import ServerError
from ..protocol.client import Client
from ..protocol.contract import UserInfo
from ..protocol.error_codes import INVALID_ACCESS_TOKEN
from ..store.base import Store
from ..store.claim import Claim
from ..users import Hooks
from .ending import end_if_unchanged, record_refusal, report_end
from .refresh import TokenRefresh
from .sessions import Session, Sessions, UnreadableTokens
from .single_flight import single_flight
from .verified_users import VerifiedUser, VerifiedUsers

log: Final = logging.getLogger("flask_devkit_sso")


class Revalidation:
    """Revalidates the users of one installation's sessions.

    A session ends if the server says that its tokens or its user are invalid. A fault of the server
    or of the settings never ends one.

    :param hooks: creates the user objects that are sent with signals.
    """

    def __init__(
        self,
        app: Flask,
        hooks: Hooks,
        store: Store,
        sessions: Sessions,
        users: VerifiedUsers,
        client: Client,
        refresh: TokenRefresh,
        settings: Settings,
    ) -> None:
        self._app = app
        self._hooks = hooks
        self._store = store
        self._sessions = sessions
        self._users = users
        self._client = client
        self._refresh = refresh
        self._timeout = settings.timeout

    def revalidate(self, session: Session, is_awaited: Callable[[], bool]) -> None:
        """Update a session's user. Ask the server, unless another session of this user has just
        done so.

        :param is_awaited: returns whether anybody is waiting for the result.
        :raises ServerError, ServerUnavailable: if the server gave no usable response.
        :raises UnreadableTokens: if it cannot be asked here. This worker has claimed nothing then,
            so another one can ask.
        """
        uid = session.user.uid
        try:
            self._sessions.tokens(session)
        except UnreadableTokens:
            if self._users.get(uid) is None:
                raise
        max_seconds = self._refresh.max_seconds
        single_flight(
            Claim(
                self._store,
                f"{self._users.key(uid)}:ask",
                # If its holder was killed, people who wait get their answer within the timeout.
                # Asking twice does no harm.
                life=self._timeout / 2,
                # A revalidation may include a refresh and asking twice.
                expires_in=5 * max_seconds,
            ),
            lambda: self._ask(session, is_awaited),
            is_done=lambda: self._users.get(uid) is not None,
            is_awaited=is_awaited,
            wait_seconds=0 if self._users.is_fresh(session.verified_at) else max_seconds,
        )
        user = self._users.get(uid)
        if user is None:
            return
        role = session.user.role

        def change(latest: Session) -> Session:
            nonlocal role
            role = latest.user.role
            return self._with_user(latest, user)

        changed = self._sessions.change(session, change)
        if changed is not None and changed.user.role != role:
            reason = audit.role_change(role, changed.user.role)
            audit.record("role_changed", reason, uid=uid, session=session.name)
        if changed is not None and changed.before is not None:
            self._announce(changed, changed.before)

    def _with_user(self, session: Session, user: VerifiedUser) -> Session:
        if self._users.is_fresh(session.verified_at) and session.verified_at >= user.verified_at:
            # Another worker wrote a later verification.
            return session
        before = session.before if user.info == session.user else session.user
        return replace(session, user=user.info, verified_at=user.verified_at, before=before)

    def _announce(self, session: Session, before: UserInfo) -> None:
        """Send the signal ``user_changed``.

        The session's record says so until every receiver has succeeded. If one fails, or if this
        worker is killed, the next revalidation sends the signal again.
        """
        users = {
            "user": self._hooks.make_user(session.user),
            "before": self._hooks.make_user(before),
        }
        has_failed = False
        for receiver in signals.user_changed.receivers_for(self._app):
            try:
                # A context of its own: what a receiver opens there is closed when it returns.
                with self._app.app_context():
                    self._app.ensure_sync(receiver)(self._app, **users)
            except Exception:  # the new role counts whatever the application does about it
                has_failed = True
                log.exception("a receiver of user_changed failed: uid %r", session.user.uid)
        if not has_failed:
            self._sessions.change(session, lambda latest: _without_before(latest, session))

    def _ask(self, session: Session, is_awaited: Callable[[], bool]) -> None:
        requested_at = time.time()
        try:
            info = self._user_info(session, background=not is_awaited())
        except ServerError as error:
            if error.server_code != INVALID_ACCESS_TOKEN:
                raise
            # A newer login elsewhere may have revoked only this access token.
            refreshed = self._refresh.refresh(session, is_awaited, refused=True)
            if refreshed is None:
                return
            session, requested_at = refreshed, time.time()
            try:
                info = self._user_info(session, background=not is_awaited())
            except ServerError as again:
                if again.server_code != INVALID_ACCESS_TOKEN:
                    raise
                end_if_unchanged(self._app, self._sessions, session, "token_refused")
                return
        if info is None:
            record_refusal(session, "user_invalid")
            ended, in_doubt = self._sessions.end_all(session.user.uid)
            if in_doubt is not None:
                log.warning("sessions ended: uid %r. %s", session.user.uid, in_doubt)
            # If the store has lost the user's index, the session still ends by its own key.
            if not ended and self._sessions.end(session):
                ended = [session]
            if ended:
                report_end(self._app, ended, "user_invalid")
        elif info.uid != session.user.uid:
            end_if_unchanged(self._app, self._sessions, session, "another_user")
        else:
            self._users.put(VerifiedUser(info, requested_at))

    def _user_info(self, session: Session, *, background: bool) -> UserInfo | None:
        """Return what the server says about a session's user, or None for an invalid user."""
        tokens = self._sessions.tokens(session)
        assert tokens is not None  # noqa: S101 - only a session that a test created has none
        if not self._client.is_valid(session.user, tokens.access_token, background=background):
            return None
        return self._client.user_info(tokens.access_token, background=background)


def _without_before(latest: Session, announced: Session) -> Session:
    """Return the session without the change that was announced. A later one remains."""
    is_same = (latest.user, latest.before) == (announced.user, announced.before)
    return replace(latest, before=None) if is_same else latest
