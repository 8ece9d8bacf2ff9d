"""The narrow door between what the package remembers and where that is kept.

A store knows nothing of sessions. It keeps small texts under keys, each until a time, some of them
with an owner. All times are Unix seconds, judged by the clock of the process that asks.
"""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from ..errors import RETRY_AFTER, ServerUnavailable, StoreUnavailable

DEADLINE: Final = 1.5
"""Seconds that one operation of a store may take; then it is :class:`StoreUnavailable`."""


SKEW: Final = 60.0
"""Seconds by which what another host wrote may seem to come from the future: clocks differ."""

POLL: Final = 0.05
"""Seconds between two looks at what another worker is doing."""

_FAILED: Final = "failed"


@dataclass(frozen=True)
class Row:
    """One record: ``data`` as it was written, ``used`` when it was last touched."""

    data: str
    used: float


class Store(Protocol):
    """What every store can do.

    Every method raises :class:`~flask_devkit_sso.errors.StoreUnavailable` when the store cannot do
    its work now. The outcome of a write is then unknown: it may have been done.
    """

    def add(self, key: str, data: str, *, expires: float, owner: str | None = None) -> bool:
        """Write a new record, which counts as used now. False, and no change, if there is one."""

    def read(self, key: str) -> Row | None:
        """Return a record that has not expired."""

    def update(self, key: str, data: str, *, expected: str | None = None) -> bool:
        """Replace the data of a record. False if there is none (any more).

        :param expected: replace it only if this is its data (still).
        """

    def touch(self, key: str, *, used: float, expires: float) -> None:
        """Note a use; nothing happens if there is no such record (any more)."""

    def remove(self, key: str, *, data: str | None = None) -> str | None:
        """Remove a record and return its data: of several callers, one gets it.

        :param data: remove it only if this is its data, so that nobody gives back a lock that has
            passed on to another.
        """

    def remove_owner(self, owner: str) -> list[str]:
        """Remove all records of an owner and return their data, at a cost in proportion."""

    def of_owner(self, owner: str) -> dict[str, Row]:
        """Return all records of an owner by key, at a cost in proportion."""

    def below(self, prefix: str) -> dict[str, Row]:
        """Return all records whose key begins with a text: for commands, not for requests."""


class Claim:
    """The right to do one thing alone, on all workers and hosts; it frees itself in time."""

    def __init__(self, store: Store, key: str, seconds: float) -> None:
        self._store = store
        self._key = key
        self._seconds = seconds
        self._owner = secrets.token_hex(8)

    def is_taken(self) -> bool:
        """Tell whether somebody is at it."""
        row = self._store.read(self._key)
        return row is not None and row.data != _FAILED

    def take(self) -> bool:
        """Take the right if it is free.

        :raises ServerUnavailable: when who had it failed a moment ago.
        """
        row = self._store.read(self._key)
        now = time.time()
        if row is not None and row.data == _FAILED:
            if row.used - now <= SKEW:
                raise ServerUnavailable("The server failed at this a moment ago.")
            # The clock was set back, and the mark would stay for as long as that.
            self._store.remove(self._key, data=_FAILED)
            row = None
        return row is None and self._store.add(self._key, self._owner, expires=now + self._seconds)

    def give_back(self) -> None:
        """Give the right back, unless it has gone to another meanwhile."""
        # A store that fails now does not undo what was done; the claim frees itself.
        with suppress(StoreUnavailable):
            self._store.remove(self._key, data=self._owner)

    def fail(self) -> None:
        """Give the right back, and let nobody try again at once."""
        with suppress(StoreUnavailable):
            if self._store.remove(self._key, data=self._owner) is not None:
                self._store.add(self._key, _FAILED, expires=time.time() + RETRY_AFTER)
