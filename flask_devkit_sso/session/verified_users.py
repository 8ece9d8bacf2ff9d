"""What the server last said about each user, shared by all sessions of that user."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from typing import Final

from ..config.settings import Settings
from ..protocol.contract import UserInfo
from ..store.base import Store, is_recent
from .records import UNREADABLE, parse_time, parse_user

REVALIDATE_EARLY: Final = 0.8
"""Fraction of ``DEVKIT_SSO_REVALIDATE_AFTER`` after which a user is revalidated in the
background."""


@dataclass(frozen=True)
class VerifiedUser:
    """A user as the server described them. ``verified_at`` is in Unix seconds."""

    info: UserInfo
    verified_at: float


class VerifiedUsers:
    """The users of one installation whom the server was recently asked about."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings

    def get(self, uid: str) -> VerifiedUser | None:
        """Return what the server said about a user, if it is recent enough for other sessions."""
        row = self._store.read(self.key(uid))
        if row is None:
            return None
        try:
            data = json.loads(row.data)
            user = VerifiedUser(parse_user(data["info"]), parse_time(data["verified_at"]))
        except UNREADABLE:
            return None
        return None if self.should_revalidate(user.verified_at) else user

    def put(self, user: VerifiedUser) -> None:
        """Store what the server said about a user, unless it has said something later."""
        latest = self.get(user.info.uid)
        if latest is not None and latest.verified_at > user.verified_at:
            # This worker was paused after it had asked.
            return
        key = self.key(user.info.uid)
        self._store.remove(key)
        self._store.add(
            key,
            json.dumps(asdict(user)),
            expires=user.verified_at + self._settings.revalidate_after,
        )

    def forget(self, uid: str) -> None:
        """Delete what the server said about a user.

        :raises StoreUnavailable: if the store fails. The record may still be there.
        """
        self._store.remove(self.key(uid))

    def key(self, uid: str) -> str:
        """Return the store's key for a user."""
        return f"{self._settings.installation}:verified:{hashlib.sha256(uid.encode()).hexdigest()}"

    def is_fresh(self, verified_at: float) -> bool:
        """Return whether a verification is recent enough to rely on without asking the server."""
        return is_recent(verified_at, self._settings.revalidate_after)

    def should_revalidate(self, verified_at: float) -> bool:
        """Return whether it is time to ask the server again, at least in the background."""
        return not is_recent(verified_at, REVALIDATE_EARLY * self._settings.revalidate_after)

    def is_usable(self, verified_at: float) -> bool:
        """Return whether a verification may be relied on while the server cannot be asked."""
        # If the clock was set back, a verification seems to be from the future: limit that as well.
        return abs(time.time() - verified_at) < self._settings.outage_grace
