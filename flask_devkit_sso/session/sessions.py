"""Sessions: the browser has an opaque random id in a cookie, and the store has everything else.

The cookie contains the id with a signature, so that a forged cookie is rejected without reading the
store. The key in the store is a hash of the id, so that nobody who reads the store can sign in with
it. Tokens are encrypted, and decrypted only when one of them is needed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Final

from ..config.settings import Settings
from ..errors import StoreUnavailable
from ..protocol.contract import Tokens, UserInfo
from ..store.base import Row, Store, Unreplicated
from .keys import Keys
from .records import UNREADABLE, parse_time, parse_user

log: Final = logging.getLogger("flask_devkit_sso")

RECORD_VERSION: Final = 1

TOUCH_EVERY: Final = 60.0
"""Seconds after which the last use of a session is written again. It is less if the idle timeout is
short."""


@dataclass(frozen=True)
class Session:
    """A session as it was read from the store. Times are in Unix seconds.

    ``last_used`` is accurate to a minute. ``verified_at`` is the time at which the server was asked
    about the user, and ``refresh_at`` the time from which the tokens should be refreshed.
    ``sealed_tokens`` is None only for a session that tests created. ``login`` is the mark of the
    login that began the session (``Logins.mark``), and ``sealed_next`` the page that it led to.
    Both are empty for a session that tests created. ``before`` is the user before their last change
    of name or role, until the application has learnt of it.
    """

    key: str = field(repr=False)
    user: UserInfo
    created_at: float
    last_used: float
    verified_at: float
    refresh_at: float
    sealed_tokens: str | None = field(repr=False)
    login: str = field(default="", repr=False)
    sealed_next: str = field(default="", repr=False)
    record: str = field(default="", repr=False)
    before: UserInfo | None = None

    @property
    def name(self) -> str:
        """A hash that identifies the session, with which nobody can sign in."""
        return self.key.rpartition(":")[2]


class Sessions:
    """The sessions of one installation."""

    def __init__(self, store: Store, keys: Keys, settings: Settings) -> None:
        self._store = store
        self._keys = keys
        self._settings = settings
        self._signer = keys.id_signer("session id")
        self._key_prefix = f"{settings.installation}:session:"

    def create(
        self,
        user: UserInfo,
        tokens: Tokens | None,
        *,
        verified_at: float,
        login: str = "",
        next_url: str = "",
    ) -> str:
        """Create a session with a new id, and return the value of its cookie.

        :param tokens: None only for a session that tests create, which has no server.
        :param verified_at: when the server was asked about the user, in Unix seconds.
        :param login: the mark of the login that begins the session (``Logins.mark``).
        :param next_url: the page that the login leads to.
        :raises StoreUnavailable: if the store fails. Nobody can use the session then.
        """
        session_id = secrets.token_urlsafe(32)
        now = time.time()
        session = Session(
            key=self._key(session_id),
            user=user,
            created_at=now,
            last_used=now,
            verified_at=verified_at,
            refresh_at=verified_at,
            sealed_tokens=None,
            login=login,
            sealed_next=self._keys.seal(next_url) if next_url else "",
        )
        if tokens is not None:
            session = self.with_tokens(tokens)(session)
        self._store.add(
            session.key,
            _serialize(session),
            expires=self._expires(now, now),
            owner=self._owner(user.uid),
        )
        return self._signer.sign(session_id)

    def load(self, cookie: str, *, is_use: bool = True) -> Session | None:
        """Return the session of a cookie, or None, and record its use. This reads the store once.

        :param is_use: whether the idle timeout starts again.
        :raises StoreUnavailable: if the store cannot be read. Somebody may be signed in all the
            same.
        """
        key = self._key_of(cookie)
        # An error tracker would record it if the store fails.
        del cookie
        row = self._store.read(key) if key else None
        session = self._alive(key, row) if row else None
        if session is None:
            return None
        now = time.time()
        if is_use and now - session.last_used >= min(TOUCH_EVERY, self._settings.idle_timeout / 4):
            # The user is known already, so the request can go on even if the store cannot be
            # written.
            with suppress(StoreUnavailable):
                expires = self._expires(session.created_at, now)
                self._store.touch(key, used=now, expires=expires)
        return session

    def tokens(self, session: Session) -> Tokens | None:
        """Decrypt a session's tokens. Return None if it has none, or if their key is no longer
        configured."""
        if session.sealed_tokens is None:
            return None
        return self._keys.unseal_tokens(session.sealed_tokens)

    def next_url(self, session: Session) -> str | None:
        """Decrypt the page that a session's login led to. Return None as :meth:`tokens` does."""
        return self._keys.unseal(session.sealed_next) if session.sealed_next else None

    def with_tokens(self, tokens: Tokens) -> Callable[[Session], Session]:
        """Return a function for :meth:`change` that replaces a session's tokens."""
        sealed = self._keys.seal_tokens(tokens)
        return lambda session: replace(session, sealed_tokens=sealed, refresh_at=tokens.refresh_at)

    def change(self, session: Session, change: Callable[[Session], Session]) -> Session | None:
        """Change a session's record without undoing a concurrent change.

        :param change: returns the changed session. After a concurrent change, it is called again
            with the latest session.
        :return: the changed session, or None if it has ended. A session that has ended stays ended.
        """
        latest: Session | None = session
        while latest is not None:
            changed = change(latest)
            record = _serialize(changed)
            if self._store.update(latest.key, record, expected=latest.record):
                return replace(changed, record=record)
            latest = self.reload(latest)
        return None

    def reload(self, session: Session) -> Session | None:
        """Read a session again. Return None if it has ended."""
        row = self._store.read(session.key)
        return self._alive(session.key, row) if row else None

    def end(self, session: Session, *, if_unchanged: bool = False) -> Session | None:
        """End a session everywhere and return its last state. If it has already ended, return
        None.

        :param if_unchanged: end it only if its record is still the one that was read.
        """
        expected = session.record if if_unchanged else None
        try:
            record = self._store.remove(session.key, data=expected, lasting=True)
        except Unreplicated as error:
            log.warning("session ended: uid %r. %s", session.user.uid, error)
            record = error.removed[0] if error.removed else None
        return _parse(session.key, Row(record, session.last_used)) if record is not None else None

    def end_all(self, uid: str) -> int:
        """End all sessions of a user everywhere, and return how many there were.

        :raises Unreplicated: if they have ended, but a failover of the store could undo that.
        """
        alive = len(self.list(uid))
        # Some of the removed records may have expired, and another caller may be removing them too.
        return min(alive, len(self._store.remove_owner(self._owner(uid))))

    def list(self, uid: str | None = None) -> list[Session]:
        """Return the sessions that are alive, of one user or of all users, the oldest first.

        For one user, the cost grows with the number of that user's sessions. For all users, the
        whole store is read.

        :raises StoreUnavailable: if the store cannot be read now.
        """
        if uid is not None:
            rows = self._store.of_owner(self._owner(uid))
        else:
            rows = self._store.below(self._key_prefix)
        found = (self._alive(key, row) for key, row in rows.items())
        return sorted(filter(None, found), key=lambda session: session.created_at)

    def _alive(self, key: str, row: Row) -> Session | None:
        """Parse a record. Return None if it has expired or is not a session of this version."""
        session = _parse(key, row)
        # The settings may have become stricter since the record was written.
        if session is None or self._expires(session.created_at, row.used) <= time.time():
            return None
        return session

    def _key_of(self, cookie: str) -> str:
        """Return the store's key for a cookie, or an empty text if it is forged."""
        session_id = self._signer.read(cookie)
        return self._key(session_id) if session_id else ""

    def _key(self, session_id: str) -> str:
        return self._key_prefix + hashlib.sha256(session_id.encode()).hexdigest()

    def _owner(self, uid: str) -> str:
        return f"{self._settings.installation}:user:{uid}"

    def _expires(self, created_at: float, last_used: float) -> float:
        return min(
            created_at + self._settings.session_lifetime, last_used + self._settings.idle_timeout
        )


def _serialize(session: Session) -> str:
    return json.dumps(
        {
            "version": RECORD_VERSION,
            "uid": session.user.uid,
            "username": session.user.username,
            "role": session.user.role,
            "created_at": session.created_at,
            "verified_at": session.verified_at,
            "refresh_at": session.refresh_at,
            "tokens": session.sealed_tokens,
            "login": session.login,
            "next": session.sealed_next,
            "before": session.before and asdict(session.before),
        }
    )


def _parse(key: str, row: Row) -> Session | None:
    """Parse a record. Return None if another version wrote it, or if it is damaged."""
    try:
        record = json.loads(row.data)
        if record["version"] != RECORD_VERSION:
            return None
        if not isinstance(record["tokens"], str | None):
            return None
        login, sealed_next = record["login"], record["next"]
        if not isinstance(login, str) or not isinstance(sealed_next, str):
            return None
        return Session(
            key=key,
            user=parse_user(record),
            created_at=parse_time(record["created_at"]),
            last_used=parse_time(row.used),
            verified_at=parse_time(record["verified_at"]),
            refresh_at=parse_time(record["refresh_at"]),
            sealed_tokens=record["tokens"],
            login=login,
            sealed_next=sealed_next,
            record=row.data,
            before=parse_user(record["before"]) if record["before"] is not None else None,
        )
    except UNREADABLE:
        return None


def refresh_claim_key(installation: str, session_name: str) -> str:
    """Return the store's key of the claim to refresh a session's tokens."""
    return f"{installation}:refresh:{session_name}"
