"""The narrow door between what the package remembers and where that is kept.

A store knows nothing of sessions. It keeps small texts under keys, each until a time, some of them
with an owner. All times are Unix seconds, judged by the clock of the process that asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

DEADLINE: Final = 1.5
"""Seconds that one operation of a store may take; then it is :class:`StoreUnavailable`."""


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
