"""Stores that are filled with sessions: copies, under other keys and for other users, of one that
the package has written."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from flask import Flask

from ..browser import Browser

HOARDER: Final = "u-hoarder"
"""The uid of a user with very many sessions."""

_CODE: Final = "template"

TEMPLATE: Final = f"u-{_CODE}"
"""The uid of the user whose session is copied."""

_USERS: Final = 100_000
"""How many users share the other sessions."""


@dataclass(frozen=True)
class Filled:
    """A store with sessions.

    :ivar app: the application that uses it.
    :ivar keys: the keys of its sessions, apart from the hoarder's.
    :ivar size: how many bytes of disk or memory one session takes.
    """

    app: Flask
    keys: list[str]
    size: float


class Backend(Protocol):
    """A kind of store."""

    name: str

    def fill(self, count: int, hoarded: int = 0) -> Filled:
        """Return a store with a number of sessions, and with further ones of the hoarder."""

    def expire(self, filled: Filled, count: int) -> Filled:
        """Let a number of sessions expire, and return the store with the keys of the others."""

    def expired(self, filled: Filled) -> int:
        """Return how many expired sessions are still in the store."""

    def residue(self, filled: Filled) -> dict[str, str]:
        """Return what the sessions that have expired and the logins have left, by what it is."""

    def cpu(self) -> float:
        """Return how many seconds the server of the store has worked; 0 if there is none."""


def create_template(app: Flask) -> None:
    """Write the session that is copied."""
    Browser(app).sign_in(_CODE)


def new_keys(key: str, count: int) -> list[str]:
    """Return keys of sessions which differ from a given one only in the hash of the id."""
    prefix = key.rpartition(":")[0]
    return [f"{prefix}:{secrets.token_hex(32)}" for _ in range(count)]


def copy(template: Mapping[str, Any], uid: str) -> dict[str, Any]:
    """Return the fields of a record for another user."""
    return {
        name: value.replace(TEMPLATE, uid) if isinstance(value, str) else value
        for name, value in template.items()
    }


def one_of_many(number: int) -> str:
    """Return the uid of the user who has the session with a number."""
    return f"u-{number % _USERS}"
