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
from contextlib import suppress
from dataclasses import astuple, dataclass, field, replace
from typing import Final

from itsdangerous import BadData

from ..config.settings import Settings
from ..errors import StoreUnavailable
from ..protocol.contract import TokenAnswer, UserInfo
from ..store.base import Row, Store
from .keys import Keys

RECORD_VERSION: Final = 1
TOUCH_EVERY: Final = 60.0
"""Seconds; the last use is written no more often."""

EARLY: Final = 30.0
"""Seconds before its end at which an access token is refreshed; a short-lived one, in the last
quarter of its life."""

SET_BY: Final = 660.0
"""Seconds by which a wall clock may be put forward and end no session early; what is more is taken
for time that has passed, as on a machine that slept."""


@dataclass(frozen=True)
class Tokens:
    """The tokens of a session; ``expires`` in Unix seconds, when the access token does."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires: float

    @classmethod
    def of(cls, answer: TokenAnswer, *, asked: float) -> Tokens:
        """Take them from an answer; ``asked``: when the server was asked, which counts."""
        return cls(answer.access_token, answer.refresh_token, asked + answer.expires_in)


@dataclass(frozen=True)
class Session:
    """A session that is alive, as it was read. Times are Unix seconds.

    ``key`` is the store's, ``used`` the last use as it was written, up to a minute ago, ``asked``
    when the server was asked about the user, ``due`` when the tokens are to be refreshed, and
    ``data`` the record itself.
    """

    key: str = field(repr=False)
    user: UserInfo
    created: float
    used: float
    asked: float
    due: float
    sealed_tokens: str | None = field(repr=False)
    data: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """What tells sessions apart: a hash, with which nobody can sign in."""
        return self.key.rpartition(":")[2]


class _WallClock:
    """The wall clock as this process watches it, to tell a clock that is set from time that passes.

    A process that starts after that cannot tell.
    """

    def __init__(self) -> None:
        self._seen: tuple[float, tuple[tuple[float, float], ...]] = (_ahead(), ())

    def put_forward(self, since: float) -> float:
        """Return the seconds by which it was put forward since a time of its own."""
        ahead, steps = self._seen
        step = _ahead() - ahead
        if abs(step) > 10:
            if step <= SET_BY:
                steps = (*steps[-9:], (time.time(), step))
            # In one piece: threads that see the same step write the same.
            self._seen = (ahead + step, steps)
        return min(SET_BY, max(0.0, sum(step for at, step in steps if since < at)))


def _ahead() -> float:
    return time.time() - time.monotonic()


class Sessions:
    """The sessions of one installation."""

    def __init__(self, store: Store, keys: Keys, settings: Settings) -> None:
        self._store = store
        self._keys = keys
        self._settings = settings
        self._signer = keys.signer("session")
        self._clock = _WallClock()

    def create(self, user: UserInfo, tokens: TokenAnswer | None, *, asked: float) -> str:
        """Start a session and return the value of its cookie, whose id is new.

        :param tokens: None only for a session made by tests, which has no server.
        :param asked: when the server was asked for the tokens and the user.
        :raises StoreUnavailable: then there is no session.
        """
        session_id = secrets.token_urlsafe(32)
        now = time.time()
        session = Session(self._key(session_id), user, now, now, asked, asked, None)
        if tokens is not None:
            session = self.with_tokens(tokens, asked=asked)(session)
        self._store.add(
            session.key,
            _record(session),
            expires=self._ends(now, now) + SET_BY,
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
                expires = self._ends(session.created, now) + SET_BY
                self._store.touch(key, used=now, expires=expires)
        return session

    def tokens(self, session: Session) -> Tokens | None:
        """Open a session's tokens; None where there are none, or the key is gone."""
        return unseal_tokens(self._keys, session.sealed_tokens) if session.sealed_tokens else None

    def with_tokens(self, tokens: TokenAnswer, *, asked: float) -> Callable[[Session], Session]:
        """Return the change that gives a session other tokens.

        :param asked: when they were asked for, from which their life is counted.
        """
        kept = Tokens.of(tokens, asked=asked)
        sealed = seal_tokens(self._keys, kept)
        due = kept.expires - min(EARLY, tokens.expires_in / 4)
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
        return self._alive(session.key, row) if row else None

    def end(self, session: Session) -> Session | None:
        """End a session everywhere, at once. Of several callers, one gets it as it was last."""
        data = self._store.remove(session.key)
        return _parse(session.key, Row(data, session.used)) if data is not None else None

    def end_all(self, uid: str) -> int:
        """End all sessions of a user everywhere, at once; return how many there were."""
        alive = len(self.list(uid))
        # Among them may be some that are past their time; and another may be doing the same.
        return min(alive, len(self._store.remove_owner(self._owner(uid))))

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
        if session is None:
            return None
        # A store keeps a record for as long as a session may last by any clock.
        created, used = (at + self._clock.put_forward(at) for at in (session.created, row.used))
        return session if self._ends(created, used) > time.time() else None

    def _key(self, session_id: str) -> str:
        return self._key_prefix + hashlib.sha256(session_id.encode()).hexdigest()

    @property
    def _key_prefix(self) -> str:
        return f"{self._settings.installation}:session:"

    def _owner(self, uid: str) -> str:
        return f"{self._settings.installation}:user:{uid}"

    def _ends(self, created: float, used: float) -> float:
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


def _parse(key: str, row: Row) -> Session | None:
    """Read a record; one of another version belongs to its writer and is no session here."""
    try:
        record = json.loads(row.data)
        if record["version"] != RECORD_VERSION:
            return None
        user = UserInfo(record["uid"], record["username"], record["role"])
        texts = (user.uid, user.username, user.role or "", record["tokens"] or "")
        if not all(isinstance(text, str) for text in texts):
            return None
        created, asked, due = (float(record[name]) for name in ("created", "asked", "due"))
        return Session(key, user, created, row.used, asked, due, record["tokens"], row.data)
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return None


def refresh_key(installation: str, name: str) -> str:
    """Return the store's key of the claim to refresh a session's tokens.

    :param name: the session's.
    """
    return f"{installation}:refresh:{name}"


def seal_tokens(keys: Keys, tokens: Tokens) -> str:
    """Encrypt tokens for a record."""
    return keys.seal(json.dumps(astuple(tokens)))


def unseal_tokens(keys: Keys, sealed: str) -> Tokens | None:
    """Decrypt them; None when the key that sealed them is no longer configured."""
    opened = keys.unseal(sealed)
    return Tokens(*json.loads(opened)) if opened else None
