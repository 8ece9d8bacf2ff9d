"""The interface of every store.

A store knows nothing of sessions. It keeps short texts under keys, each until a given time. Some
records have an owner. All times are Unix seconds, compared with the clock of the calling process.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple, Protocol

from ..bulkhead import Bulkhead, Pace
from ..errors import StoreUnavailable

DEADLINE: Final = 1.5
"""Seconds that one operation may take before it raises StoreUnavailable."""

MAX_CALLS: Final = 32
"""Maximum number of operations in progress in one process, for reads and for writes. Further ones
wait."""

SKEW: Final = 60.0
"""Seconds by which the clocks of two hosts may differ."""


def is_recent(then: float, seconds: float) -> bool:
    """Return whether less than a number of seconds has passed since a time that another host may
    have written.

    If that host's clock is ahead, the time is in the future, by at most :data:`SKEW`. The limit
    itself is never extended.
    """
    return -SKEW <= time.time() - then < seconds


class Row(NamedTuple):
    """One record. ``data`` is what was written, ``used`` the time of its last use."""

    data: str
    used: float


class Unreplicated(StoreUnavailable):
    """Records have been removed, but a failover could undo that.

    :ivar removed: their data.
    """

    def __init__(self, text: str, fix: str, removed: list[str]) -> None:
        super().__init__(text, fix)
        self.removed = removed


class Bulkheads:
    """The bulkheads of a store in one process. A store that cannot be written can still be read."""

    def __init__(self) -> None:
        self.reads, self.writes = (
            Bulkhead(
                StoreUnavailable,
                "the session store",
                Pace(),
                timeout=DEADLINE,
                most=MAX_CALLS,
                rate=50,
                quick=0.05,
            )
            for _ in range(2)
        )


class Store(Protocol):
    """What every store can do.

    A store deletes expired records itself, in the background: no call waits for that, and no call
    returns an expired record.

    Every method raises :class:`~flask_devkit_sso.StoreUnavailable` if the store cannot do its work
    now. It is then unknown whether a write was done.
    """

    def add(self, key: str, data: str, *, expires: float, owner: str | None = None) -> bool:
        """Write a new record, whose last use is now.

        :return: False, without any change, if there is a record under this key.
        """

    def read(self, key: str) -> Row | None:
        """Return a record, or None if there is none or it has expired."""

    def update(self, key: str, data: str, *, expected: str | None = None) -> bool:
        """Replace the data of a record.

        :param expected: replace it only if this is the present data.
        :return: False if there is no such record.
        """

    def touch(self, key: str, *, used: float, expires: float) -> None:
        """Update the last use and the expiry of a record, if it exists."""

    def remove(self, key: str, *, data: str | None = None, lasting: bool = False) -> str | None:
        """Remove a record and return its data. If several callers do so, only one gets it.

        :param data: remove it only if this is its data, so that nobody releases a claim that
            somebody else has taken over.
        :param lasting: whether to wait until a failover cannot undo this.
        :raises Unreplicated: if the record has been removed, but a failover could undo that.
        """

    def remove_owner(self, owner: str) -> list[str]:
        """Remove all records that an owner has now, and return their data.

        This is done in several operations, each with its own deadline, so that others can use the
        store in between. If one fails, the earlier ones are done.

        :raises Unreplicated: as in :meth:`remove` with ``lasting``.
        """

    def of_owner(self, owner: str) -> dict[str, Row]:
        """Return all records of an owner by key, which are read in several operations."""

    def below(self, prefix: str) -> dict[str, Row]:
        """Return all records whose key begins with a prefix. This is slow: use it in commands, not
        in requests."""
