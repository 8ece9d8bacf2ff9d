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
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from typing import Final

from itsdangerous import BadData

from .contract import TokenAnswer, UserInfo
from .errors import StoreUnavailable
from .keys import Keys
from .settings import Settings
from .stores import Row, Store

RECORD_VERSION: Final = 1
TOUCH_EVERY: Final = 60.0
"""Seconds; the last use is written no more often."""
EARLY: Final = 30.0
"""Seconds before its end at which an access token is refreshed."""


@dataclass(frozen=True)
class Tokens:
    """The tokens of a session; ``expires`` in Unix seconds, when the access token does."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires: float


@dataclass(frozen=True)
class Session:
    """A session that is alive. ``key`` is the store's; ``created`` and ``used`` in Unix seconds,
    the last use as it was written: up to a minute ago."""

    key: str = field(repr=False)
    user: UserInfo
    created: float
    used: float
    sealed_tokens: str | None = field(repr=False)

    @property
    def name(self) -> str:
        """What tells sessions apart: a hash, with which nobody can sign in."""
        return self.key.rpartition(":")[2]


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
        :param asked: when the tokens were asked for, from which their life is counted.
        :raises StoreUnavailable: then there is no session.
        """
        session_id = secrets.token_urlsafe(32)
        now = time.time()
        self._store.add(
            self._key(session_id),
            _record(user, now, None if tokens is None else self._seal(tokens, asked)),
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
        session = self._alive(key, row)
        if session is None:
            return None
        now = time.time()
        if now - row.used >= min(TOUCH_EVERY, self._settings.idle_timeout / 4):
            # A store that can be read but not written to has said who this is all the same.
            with suppress(StoreUnavailable):
                self._store.touch(key, used=now, expires=self._expires(session.created, now))
        return session

    def tokens(self, session: Session) -> Tokens | None:
        """Open a session's tokens; None where there are none, or the key is gone."""
        return unseal_tokens(self._keys, session.sealed_tokens) if session.sealed_tokens else None

    def replace_tokens(self, session: Session, tokens: TokenAnswer, *, asked: float) -> bool:
        """Keep refreshed tokens. False when the session has ended meanwhile, and stays so."""
        sealed = self._seal(tokens, asked)
        return self._store.update(session.key, _record(session.user, session.created, sealed))

    def reload(self, session: Session) -> Session | None:
        """Read a session anew; None when it has ended meanwhile."""
        row = self._store.read(session.key)
        return self._alive(session.key, row) if row else None

    def lock(self, session: Session, seconds: float) -> str | None:
        """Claim the right to refresh a session's tokens, on all workers; it frees itself.

        :return: what :meth:`unlock` wants; None when another one has the right.
        """
        mine = secrets.token_hex(8)
        claimed = self._store.add(self._lock(session), mine, expires=time.time() + seconds)
        return mine if claimed else None

    def unlock(self, session: Session, mine: str) -> None:
        """Give the right to refresh back, unless it has passed on to another one meanwhile."""
        self._store.remove(self._lock(session), data=mine)

    def end(self, session: Session) -> bool:
        """End a session everywhere, at once. Of several callers, one is told True."""
        return self._store.remove(session.key) is not None

    def end_all(self, uid: str) -> int:
        """End all sessions of a user everywhere, at once; return how many there were."""
        return len(self._store.remove_owner(self._owner(uid)))

    def list(self, uid: str | None = None) -> list[Session]:
        """Return the sessions that are alive, of one user or of all, the oldest first.

        For one user it costs as much as the user has sessions; for all, a walk through the store.

        :raises StoreUnavailable: when the store cannot be asked now.
        """
        if uid is not None:
            rows = self._store.of_owner(self._owner(uid))
        else:
            rows = self._store.below(self._key_prefix)
        found = (self._alive(key, row) for key, row in rows.items())
        return sorted(
            (session for session in found if session), key=lambda session: session.created
        )

    def _alive(self, key: str, row: Row) -> Session | None:
        """Read a record; None when it is past its time, or no session that we understand."""
        session = _parse(key, row)
        if session is None or self._expires(session.created, row.used) <= time.time():
            return None
        return session

    def _seal(self, tokens: TokenAnswer, asked: float) -> str:
        expires = asked + tokens.expires_in
        return seal_tokens(self._keys, Tokens(tokens.access_token, tokens.refresh_token, expires))

    def _key(self, session_id: str) -> str:
        return self._key_prefix + hashlib.sha256(session_id.encode()).hexdigest()

    @property
    def _key_prefix(self) -> str:
        return f"{self._settings.installation}:session:"

    def _lock(self, session: Session) -> str:
        return f"{self._settings.installation}:refresh:{session.name}"

    def _owner(self, uid: str) -> str:
        return f"{self._settings.installation}:user:{uid}"

    def _expires(self, created: float, used: float) -> float:
        return min(created + self._settings.session_lifetime, used + self._settings.idle_timeout)


def _record(user: UserInfo, created: float, sealed_tokens: str | None) -> str:
    return json.dumps(
        {
            "version": RECORD_VERSION,
            "uid": user.uid,
            "username": user.username,
            "role": user.role,
            "created": created,
            "tokens": sealed_tokens,
        }
    )


def _parse(key: str, row: Row) -> Session | None:
    """Read a record; one of another version belongs to its writer and is no session here."""
    try:
        record = json.loads(row.data)
        if record["version"] != RECORD_VERSION:
            return None
        user = UserInfo(record["uid"], record["username"], record["role"])
        return Session(key, user, record["created"], row.used, record["tokens"])
    except (ValueError, LookupError, TypeError):
        return None


def seal_tokens(keys: Keys, tokens: Tokens) -> str:
    """Encrypt tokens for a record."""
    return keys.seal(json.dumps(astuple(tokens)))


def unseal_tokens(keys: Keys, sealed: str) -> Tokens | None:
    """Decrypt them; None when the key that sealed them is no longer configured."""
    opened = keys.unseal(sealed)
    return Tokens(*json.loads(opened)) if opened else None
