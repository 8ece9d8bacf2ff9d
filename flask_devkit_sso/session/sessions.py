"""Sessions: the browser has an opaque random id in a cookie, and the store has everything else.

The cookie contains the id with a signature, so that a forged cookie is rejected without reading the
store. The key in the store is a keyed hash of the id, so that nobody who reads the store can sign
in with it. Tokens are encrypted, and decrypted only when one of them is needed.
"""

from __future__ import annotations

import builtins
import json
import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from operator import itemgetter
from typing import Final, NamedTuple, cast

from ..config.settings import Settings
from ..errors import ServerUnavailable, StoreUnavailable
from ..protocol.contract import Role, Tokens, UserInfo
from ..store.base import Row, Store, Unreplicated
from .keys import Keys
from .records import UNREADABLE, parse_user, serialize

log: Final = logging.getLogger("flask_devkit_sso")

RECORD_VERSION: Final = 1

TOUCH_EVERY: Final = 60.0
"""Seconds after which the last use of a session is written again. It is less if the idle timeout is
short."""

LOG_EVERY: Final = 60.0
"""Seconds after which a process logs again that it cannot decrypt tokens."""


class UnreadableTokens(ServerUnavailable):
    """The tokens of a session cannot be decrypted here, so this worker cannot ask the server.

    Another worker may have encrypted them with a ``SECRET_KEY`` that is not configured here. So the
    session must neither end nor be treated as one without tokens.
    """

    def __init__(self) -> None:
        super().__init__(
            "The tokens of a session cannot be decrypted with SECRET_KEY or SECRET_KEY_FALLBACKS. "
            "If another host uses a new key, add it to SECRET_KEY_FALLBACKS here: see "
            "docs/deployment.md#rotating-the-secret-key."
        )


@dataclass(slots=True)
class Session:
    """A session as it was read from the store. Times are in Unix seconds.

    Nothing changes it. It is not frozen, because creating a frozen one takes three times as long,
    and every request creates one.

    ``last_used`` is accurate to a minute. ``verified_at`` is the time at which the server was asked
    about the user, and ``refresh_at`` the time from which the tokens should be refreshed.
    ``sealed_tokens`` is None only for a session that tests created. ``login`` is the mark of the
    login that began the session (``Logins.mark``), and ``sealed_next`` the page that it led to,
    unless that was the default one. Both are empty for a session that tests created. ``before`` is
    the user before their last change of name or role, until the application has learnt of it.
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


class Ended(NamedTuple):
    """The sessions that have ended, and None or the error that a failover of the store could undo
    this."""

    sessions: builtins.list[Session]
    in_doubt: Unreplicated | None


class Sessions:
    """The sessions of one installation."""

    def __init__(self, store: Store, keys: Keys, settings: Settings) -> None:
        self._store = store
        self._keys = keys
        self._settings = settings
        self._signer = keys.id_signer("session id")
        self._touch_every = min(TOUCH_EVERY, settings.idle_timeout / 4)
        self._key_prefix = f"{settings.installation}:session:"
        self._log_at = time.monotonic()

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
        :param next_url: the page that the login leads to, or "" for the default one.
        :raises StoreUnavailable: if the store fails. Nobody can use the session then.
        """
        cookie, name = self._signer.create()
        now = time.time()
        session = Session(
            key=self._key_prefix + name,
            user=user,
            created_at=now,
            last_used=now,
            verified_at=verified_at,
            refresh_at=tokens.refresh_at if tokens else verified_at,
            sealed_tokens=self._keys.seal_tokens(tokens) if tokens else None,
            login=login,
            sealed_next=self._keys.seal(next_url) if next_url else "",
        )
        self._store.add(
            session.key,
            _serialize(session),
            expires=self._expires(now, now),
            owner=self._owner(user.uid),
        )
        return cookie

    def load(self, cookie: str, *, is_use: Callable[[], bool] | None = None) -> Session | None:
        """Return the session of a cookie, or None, and record its use. This reads the store once.

        :param is_use: returns whether the idle timeout starts again, which it does by default. It
            is called only if the last use would be written.
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
        if now - session.last_used >= self._touch_every and (is_use is None or is_use()):
            # The user is known already, so the request can go on even if the store cannot be
            # written.
            with suppress(StoreUnavailable):
                expires = self._expires(session.created_at, now)
                self._store.touch(key, used=now, expires=expires)
        return session

    def tokens(self, session: Session) -> Tokens | None:
        """Decrypt a session's tokens. Return None if it has none, because a test created it.

        :raises UnreadableTokens: if their key is not configured here. This is logged.
        """
        if session.sealed_tokens is None:
            return None
        tokens = self._keys.unseal_tokens(session.sealed_tokens)
        if tokens is None:
            unreadable = UnreadableTokens()
            if time.monotonic() >= self._log_at:
                self._log_at = time.monotonic() + LOG_EVERY
                log.error("%s", unreadable.description)
            raise unreadable
        return tokens

    def next_url(self, session: Session) -> str | None:
        """Decrypt the page that a session's login led to. Return None if it is the default one, or
        if its key is not configured here."""
        return self._keys.unseal(session.sealed_next) if session.sealed_next else None

    def with_tokens(self, tokens: Tokens, *, previous: str = "") -> Callable[[Session], Session]:
        """Return a function for :meth:`change` that replaces a session's tokens.

        :param previous: the encrypted tokens that they replace.
        """
        sealed = self._keys.seal_tokens(tokens, previous=previous)
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

    def end_all(self, uid: str) -> Ended:
        """End all sessions of a user everywhere, and return those that were alive."""
        alive = self.list(uid)
        in_doubt = None
        try:
            removed = self._store.remove_owner(self._owner(uid))
        except Unreplicated as error:
            in_doubt, removed = error, error.removed
        if len(removed) >= len(alive):
            # Some of the removed records may have expired.
            return Ended(alive, in_doubt)
        # Another caller is removing them too.
        own = set(removed)
        return Ended([session for session in alive if session.record in own], in_doubt)

    def find(self, name: str) -> Session | None:
        """Return the session with a name, or None if there is none that is alive."""
        key = self._key_prefix + name
        row = self._store.read(key)
        return self._alive(key, row) if row else None

    def name_of(self, cookie: str) -> str | None:
        """Return the name of a cookie's session, or None if the cookie is forged."""
        return self._signer.read(cookie)

    def list(self, uid: str | None = None) -> builtins.list[Session]:
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
        name = self._signer.read(cookie)
        return self._key_prefix + name if name else ""

    def _owner(self, uid: str) -> str:
        return f"{self._settings.installation}:user:{uid}"

    def _expires(self, created_at: float, last_used: float) -> float:
        return min(
            created_at + self._settings.session_lifetime, last_used + self._settings.idle_timeout
        )


def _serialize(session: Session) -> str:
    return serialize(
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
        },
        previous=session.record,
    )


def _parse(key: str, row: Row) -> Session | None:
    """Parse a record. Return None if another version wrote it, or if it is damaged."""
    try:
        values = json.loads(row.data)
        version, uid, name, role, created_at, verified_at, refresh_at = _get_state(values)
        tokens, login, next_url, before = _get_login(values)
        # Every request does this, so it is one expression and not a call for each value. With NaN,
        # which is not finite, the session would never expire, because no comparison with it is
        # true.
        if (
            version == RECORD_VERSION
            and isinstance(uid, str)
            and isinstance(name, str)
            and (role is None or isinstance(role, str))
            and math.isfinite(created_at + verified_at + refresh_at + row.used)
            and (tokens is None or isinstance(tokens, str))
            and isinstance(login, str)
            and isinstance(next_url, str)
        ):
            return Session(
                key=key,
                user=UserInfo(uid, name, cast("Role | None", role)),
                created_at=created_at,
                last_used=row.used,
                verified_at=verified_at,
                refresh_at=refresh_at,
                sealed_tokens=tokens,
                login=login,
                sealed_next=next_url,
                record=row.data,
                before=None if before is None else parse_user(before),
            )
    except UNREADABLE:
        pass
    return None


_get_state: Final = itemgetter(
    "version", "uid", "username", "role", "created_at", "verified_at", "refresh_at"
)
_get_login: Final = itemgetter("tokens", "login", "next", "before")


def refresh_claim_key(installation: str, session_name: str) -> str:
    """Return the store's key of the claim to refresh a session's tokens."""
    return f"{installation}:refresh:{session_name}"
