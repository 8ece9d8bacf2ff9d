"""Keeps sessions true while they last: their tokens fresh, and what is known of their users.

The work is done by a few threads of each process, so that a request waits only where it has to: for
a token that has expired, or for an answer about its user that is too old to go by. Of all requests,
workers and hosts one does it, the one whose claim is in the store; the others go on with what there
is. A verdict of the server ends sessions; a fault of the server or of the installation never does.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Final, NamedTuple

from flask import Flask

from .. import signals
from ..config.settings import Settings
from ..errors import ServerError, ServerUnavailable, StoreUnavailable
from ..protocol.client import Client
from ..protocol.contract import TokenAnswer, UserInfo
from ..store.base import POLL, SKEW, Claim, Store
from ..users import Hooks
from .logouts import Debts
from .sessions import Session, Sessions, Tokens, refresh_key

log: Final = logging.getLogger("flask_devkit_sso")

EARLY: Final = 0.8
"""Part of ``DEVKIT_SSO_REVALIDATE_AFTER`` after which the server is asked again, by the way."""

PATIENCE: Final = 1.0
"""Seconds that a request waits for a new answer about its user, where the old one may still do."""

MAX_JOBS: Final = 8
"""Sessions that one process works on at once."""


@dataclass(frozen=True)
class _Known:
    """The server's last answer about a user; ``asked`` in Unix seconds."""

    user: UserInfo
    asked: float


class _Process(NamedTuple):
    threads: ThreadPoolExecutor
    jobs: dict[str, Future[None]]
    lock: threading.Lock


class Upkeep:
    """The upkeep of one application's sessions.

    :param hooks: what makes the users that signals name.
    """

    def __init__(
        self,
        app: Flask,
        hooks: Hooks,
        store: Store,
        sessions: Sessions,
        client: Client,
        debts: Debts,
        settings: Settings,
    ) -> None:
        self._app = app
        self._hooks = hooks
        self._store = store
        self._sessions = sessions
        self._client = client
        self._debts = debts
        self._settings = settings
        self._by_process: dict[int, _Process] = {}

    def current(self, session: Session) -> Session | None:
        """Return a session as it may be used now; None when it has ended at the server.

        :raises ServerUnavailable: when the last answer about its user is too old to go by, and
            there is no new one.
        """
        if session.sealed_tokens is None:
            return session
        settings = self._settings
        job = None
        if session.due <= time.time() or not self._is_young(session.asked, EARLY):
            job = self._start(session)
        if self._is_young(session.asked):
            return session
        usable = self._age(session.asked) < settings.outage_grace
        if job is not None:
            try:
                job.result(min(PATIENCE, settings.timeout) if usable else settings.timeout)
            except StoreUnavailable:
                # One that can be read but not written to keeps us from asking the server.
                if not usable:
                    raise
            except (ServerError, ServerUnavailable, TimeoutError):
                pass
        latest = self._sessions.reload(session)
        if latest is not None and self._age(latest.asked) >= settings.outage_grace:
            raise ServerUnavailable(
                "The server could not be asked about this user for longer than "
                "DEVKIT_SSO_OUTAGE_GRACE."
            )
        return latest

    def access_token(self, session: Session) -> str | None:
        """Return a valid access token of a session; None when the session has ended.

        :raises ServerError, ServerUnavailable: when there is none, and no other can be had now.
        """
        deadline = time.monotonic() + self._refresh_lasts
        latest: Session | None = session
        failure: ServerError | ServerUnavailable = ServerUnavailable(
            "The access token is still being refreshed."
        )
        while latest is not None:
            tokens = self._sessions.tokens(latest)
            if tokens is None:
                raise ServerUnavailable("This session has no tokens: tests made it.")
            job = self._start(latest) if latest.due <= time.time() else None
            if tokens.expires > time.time():
                return tokens.access_token
            wait = deadline - time.monotonic()
            if job is None or wait <= 0:
                raise failure
            failed = False
            try:
                job.result(wait)
            except (ServerError, ServerUnavailable) as error:
                failure, failed = error, True
            except TimeoutError:
                failed = True
            latest = self._sessions.reload(latest)
            if failed and latest is not None and latest.sealed_tokens == session.sealed_tokens:
                raise failure
        return None

    def forget(self, uid: str) -> None:
        """Delete the server's last answer about a user.

        :raises StoreUnavailable: then it may still be there.
        """
        self._store.remove(self._user_key(uid))

    @property
    def _refresh_lasts(self) -> float:
        """Seconds in which a refresh surely ends: a call's deadline, and the store's work."""
        return self._settings.timeout + 5

    def _age(self, asked: float) -> float:
        """How old an answer is; one from the future is as wrong as it is far away."""
        return abs(time.time() - asked)

    def _is_young(self, asked: float, part: float = 1.0) -> bool:
        return -SKEW <= time.time() - asked < part * self._settings.revalidate_after

    def _start(self, session: Session) -> Future[None] | None:
        """Have a session looked after; None when this process has its hands full."""
        pid = os.getpid()
        try:
            threads, jobs, lock = self._by_process[pid]
        except KeyError:
            made = _Process(
                ThreadPoolExecutor(MAX_JOBS, thread_name_prefix="devkit-sso-upkeep"),
                {},
                threading.Lock(),
            )
            threads, jobs, lock = self._by_process.setdefault(pid, made)
        with lock:
            if session.key in jobs:
                return jobs[session.key]
            if len(jobs) >= MAX_JOBS:
                return None
            job = jobs[session.key] = threads.submit(self._look_after, session)

        def done(job: Future[None]) -> None:
            del jobs[session.key]
            error = job.exception()
            # There may be no request that waits for it and would say so.
            if isinstance(error, StoreUnavailable):
                log.warning("a session could not be looked after: %s", error)
            elif error is not None and not isinstance(error, (ServerError, ServerUnavailable)):
                log.error("a session could not be looked after", exc_info=error)

        # Outside the lock: a job that is done already calls back here and now.
        job.add_done_callback(done)
        return job

    def _look_after(self, session: Session) -> None:
        with self._app.app_context():
            latest = self._sessions.reload(session)
            if latest is not None and latest.due <= time.time():
                latest = self._refreshed(latest)
            if latest is not None and not self._is_young(latest.asked, EARLY):
                self._ask_about_user(latest)

    def _refreshed(self, session: Session, *, refused: bool = False) -> Session | None:
        """Refresh a session's tokens, unless another does; None when the session has ended.

        :param refused: the server took the access token for dead, whatever its time says.
        """
        tokens = self._sessions.tokens(session)
        usable = not refused and tokens is not None and tokens.expires > time.time()

        def is_done() -> bool:
            latest = self._sessions.reload(session)
            return latest is None or latest.sealed_tokens != session.sealed_tokens

        try:
            self._alone(
                refresh_key(self._settings.installation, session.name),
                self._refresh_lasts,
                is_done,
                lambda: self._refresh(session),
                wait=not usable,
            )
        except (ServerError, ServerUnavailable):
            if not usable:
                raise
        return self._sessions.reload(session)

    def _refresh(self, session: Session) -> None:
        """See docs/protocol.md section 4."""
        tokens = self._sessions.tokens(session)
        if tokens is None or tokens.refresh_token is None:
            self._end(session, "no_refresh_token")
            return
        asked = time.time()
        try:
            answer = self._client.refresh(tokens.refresh_token)
        except ServerError as error:
            if error.server_code != "8206":
                raise
            self._end(session, "refresh_refused")
            return
        # The old refresh token stays unless a new one comes.
        kept = replace(answer, refresh_token=answer.refresh_token or tokens.refresh_token)
        if self._keep(session, kept, asked=asked):
            signals.token_refreshed.send(self._app, user=self._hooks.make_user(session.user))

    def _keep(self, session: Session, kept: TokenAnswer, *, asked: float) -> bool:
        """Write new tokens down; False when the session has ended meanwhile.

        A store that fails is tried for a while: the old refresh token may be spent, so that without
        the new one the session would be over.
        """
        change = self._sessions.with_tokens(kept, asked=asked)
        deadline = time.monotonic() + self._refresh_lasts
        while True:
            try:
                changed = self._sessions.change(session, change)
                if changed is None:
                    # What ended it may have been a logout, which the server is still to be told of.
                    self._debts.renew(session.name, Tokens.of(kept, asked=asked))
                return changed is not None
            except StoreUnavailable:
                if time.monotonic() > deadline:
                    raise
            time.sleep(POLL)

    def _ask_about_user(self, session: Session) -> None:
        """Renew what is known of a session's user, by what another session's question brought or
        by one of its own."""
        uid = session.user.uid
        self._alone(
            f"{self._user_key(uid)}:ask",
            5 * self._refresh_lasts,
            lambda: self._known(uid) is not None,
            lambda: self._ask(session),
            wait=not self._is_young(session.asked),
        )
        known = self._known(uid)
        if known is not None:
            self._sessions.change(session, lambda latest: self._told(latest, known))

    def _told(self, session: Session, known: _Known) -> Session:
        if self._is_young(session.asked) and session.asked >= known.asked:
            # Another worker was faster, and its answer is the later one.
            return session
        return replace(session, user=known.user, asked=known.asked)

    def _ask(self, session: Session) -> None:
        """Ask the server about a session's user, and act on its verdict (sections 3 and 5)."""
        asked = time.time()
        try:
            verdict = self._verdict(session)
        except ServerError as error:
            if error.server_code != "8205":
                raise
            # A newer login elsewhere may have ended this token alone.
            renewed = self._refreshed(session, refused=True)
            if renewed is None:
                return
            session, asked = renewed, time.time()
            try:
                verdict = self._verdict(session)
            except ServerError as again:
                if again.server_code != "8205":
                    raise
                self._end(session, "token_refused")
                return
        if verdict is None:
            # This one by its key too, should the store have lost the list of the user's sessions.
            if self._sessions.end_all(session.user.uid) or self._sessions.end(session):
                self._tell_ended(session.user.uid, "user_invalid")
        elif verdict.uid != session.user.uid:
            self._end(session, "another_user")
        else:
            key = self._user_key(verdict.uid)
            self._store.remove(key)
            self._store.add(
                key,
                json.dumps({"user": asdict(verdict), "asked": asked}),
                expires=asked + self._settings.revalidate_after,
            )

    def _verdict(self, session: Session) -> UserInfo | None:
        """Return who a session's user is at the server; None when no longer valid there."""
        tokens = self._sessions.tokens(session)
        # Sealed with a key that is gone, they are as dead as tokens that the server refuses.
        access_token = tokens.access_token if tokens else "unreadable"
        if not self._client.is_valid(session.user, access_token):
            return None
        return self._client.user_info(access_token)

    def _known(self, uid: str) -> _Known | None:
        """Return an answer about a user that is young enough to be passed on."""
        row = self._store.read(self._user_key(uid))
        if row is None:
            return None
        try:
            data = json.loads(row.data)
            known = _Known(UserInfo(**data["user"]), data["asked"])
            return known if self._is_young(known.asked, EARLY) else None
        except (ValueError, LookupError, TypeError):
            # Written by another version.
            return None

    def _user_key(self, uid: str) -> str:
        return f"{self._settings.installation}:user:{hashlib.sha256(uid.encode()).hexdigest()}"

    def _end(self, session: Session, why: str) -> None:
        """End a session by the server's word on its tokens; one that has others meanwhile lives.

        A worker that was halted for longer than its claim lasts may come with such an old word.
        """
        latest = self._sessions.reload(session)
        if latest is None or latest.sealed_tokens != session.sealed_tokens:
            return
        if self._sessions.end(session):
            self._tell_ended(session.user.uid, why)

    def _tell_ended(self, uid: str, why: str) -> None:
        log.info("session ended: uid %r, %s", uid, why)
        signals.session_ended.send(self._app, uid=uid, why=why)

    def _alone(
        self,
        key: str,
        seconds: float,
        is_done: Callable[[], bool],
        do: Callable[[], None],
        *,
        wait: bool,
    ) -> None:
        """Do what one of all workers has to do.

        :param seconds: how long it may last; then somebody else may do it.
        :param is_done: whether another has done it.
        :param wait: whether to wait for another who is doing it.
        :raises ServerError, ServerUnavailable: as ``do``, and when it failed a moment ago.
        """
        claim = Claim(self._store, key, seconds)
        # Not as long as the claim: whoever was killed with one would keep threads of all workers.
        deadline = time.monotonic() + self._refresh_lasts
        while True:
            mine = claim.take()
            try:
                if is_done():
                    return
                if mine:
                    do()
                    return
            except (ServerError, ServerUnavailable) as error:
                if mine:
                    claim.fail()
                    mine = False
                    log.log(
                        logging.ERROR if isinstance(error, ServerError) else logging.WARNING,
                        "a session could not be looked after: %s See docs/failures.md#%s",
                        error.description,
                        error.reason,
                    )
                raise
            finally:
                if mine:
                    claim.give_back()
            if not wait:
                return
            if time.monotonic() > deadline:
                raise ServerUnavailable("Another worker is still at it.")
            time.sleep(POLL)
