"""Sessions: an opaque random id in a cookie, everything else in the store.

The cookie's value is the id, signed, so that a forged one costs no read. The store's key is a hash
of the id, so that nobody can sign in with what they read there. Tokens are sealed, and opened only
when one is needed.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from itsdangerous import BadData

from .contract import TokenAnswer, UserInfo
from .keys import Keys
from .settings import Settings
from .stores import Store

RECORD_VERSION: Final = 1
TOUCH_EVERY: Final = 60.0
"""Seconds; the last use is written no more often."""

REFRESH_EARLY: Final = 30.0
"""Seconds before its end at which an access token is refreshed; a short-lived one, in the last
quarter of its life."""


@dataclass(frozen=True)
class Tokens:
    """The tokens of a session; ``expires`` in Unix seconds, when the access token does."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires: float


@dataclass(frozen=True)
class Session:
    """A session that is alive, as it was read. Times are Unix seconds.

    ``key`` is the store's, ``asked`` when the server was asked about the user, ``due`` when the
    tokens are to be refreshed, ``data`` the record itself.
    """

    key: str = field(repr=False)
    user: UserInfo
    created: float
    asked: float
    due: float
    sealed_tokens: str | None = field(repr=False)
    data: str = field(default="", repr=False)


class Sessions:
    """The sessions of one installation."""

    def __init__(self, store: Store, keys: Keys, settings: Settings) -> None:
        self._store = store
        self._keys = keys
        self._settings = settings
        self._signer = keys.signer("session")

    def create(self, user: UserInfo, tokens: TokenAnswer | None, *, asked: float) -> str:
        """Start a session and return the value of its cookie, whose id is new.

        :param tokens: None only for a session made by tests, which has no server.
        :param asked: when the server was asked for the tokens and the user.
        :raises StoreUnavailable: then there is no session.
        """
        session_id = secrets.token_urlsafe(32)
        now = time.time()
        session = Session(self._key(session_id), user, now, asked, asked, None)
        if tokens is not None:
            session = self.with_tokens(tokens, asked=asked)(session)
        self._store.add(
            session.key,
            _record(session),
            expires=self._expires(now, now),
            owner=self._owner(user.uid),
        )
        return str(self._signer.dumps(session_id))

    def load(self, cookie: str) -> Session | None:
        """Return the session of a cookie's value, by one read of the store, and note its use.

        :raises StoreUnavailable: which is not the same as "not signed in".
        """
        try:
            session_id = self._signer.loads(cookie)
        except BadData:
            return None
        key = self._key(session_id)
        row = self._store.read(key)
        if row is None:
            return None
        session = _parse(key, row.data)
        now = time.time()
        if session is None or self._expires(session.created, row.used) <= now:
            return None
        if now - row.used >= min(TOUCH_EVERY, self._settings.idle_timeout / 4):
            self._store.touch(key, used=now, expires=self._expires(session.created, now))
        return session

    def tokens(self, session: Session) -> Tokens | None:
        """Open a session's tokens; None where there are none, or the key is gone."""
        opened = session.sealed_tokens and self._keys.unseal(session.sealed_tokens)
        return Tokens(*json.loads(opened)) if opened else None

    def with_tokens(self, tokens: TokenAnswer, *, asked: float) -> Callable[[Session], Session]:
        """Return the change that gives a session other tokens.

        :param asked: when they were asked for, from which their life is counted.
        """
        expires = asked + tokens.expires_in
        sealed = self._keys.seal(json.dumps([tokens.access_token, tokens.refresh_token, expires]))
        due = expires - min(REFRESH_EARLY, tokens.expires_in / 4)
        return lambda session: replace(session, sealed_tokens=sealed, due=due)

    def change(self, session: Session, change: Callable[[Session], Session]) -> Session | None:
        """Change a session's record, and nothing that another changes at the same time.

        None when the session has ended meanwhile, and stays so.
        """
        latest: Session | None = session
        while latest is not None:
            changed = change(latest)
            data = _record(changed)
            if self._store.update(latest.key, data, expected=latest.data):
                return replace(changed, data=data)
            latest = self.reload(latest)
        return None

    def reload(self, session: Session) -> Session | None:
        """Read a session anew; None when it has ended meanwhile."""
        row = self._store.read(session.key)
        return _parse(session.key, row.data) if row else None

    def end(self, session: Session) -> bool:
        """End a session everywhere, at once. Of several callers, one is told True."""
        return self._store.remove(session.key) is not None

    def end_all(self, uid: str) -> int:
        """End all sessions of a user everywhere, at once; return how many there were."""
        return len(self._store.remove_owner(self._owner(uid)))

    def _key(self, session_id: str) -> str:
        digest = hashlib.sha256(session_id.encode()).hexdigest()
        return f"{self._settings.installation}:session:{digest}"

    def _owner(self, uid: str) -> str:
        return f"{self._settings.installation}:{uid}"

    def _expires(self, created: float, used: float) -> float:
        return min(created + self._settings.session_lifetime, used + self._settings.idle_timeout)


def _record(session: Session) -> str:
    return json.dumps(
        {
            "version": RECORD_VERSION,
            "uid": session.user.uid,
            "username": session.user.username,
            "role": session.user.role,
            "created": session.created,
            "asked": session.asked,
            "due": session.due,
            "tokens": session.sealed_tokens,
        }
    )


def _parse(key: str, data: str) -> Session | None:
    """Read a record; one of another version belongs to its writer and is no session here."""
    record = json.loads(data)
    if record["version"] != RECORD_VERSION:
        return None
    user = UserInfo(record["uid"], record["username"], record["role"])
    times = (record["created"], record["asked"], record["due"])
    return Session(key, user, *times, record["tokens"], data)
