"""Who can sign in at the sandbox."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Person:
    """An account at the sandbox: what getUserInfo tells (docs/protocol.md section 3)."""

    username: str
    role: str
    uid: str
    disabled: bool = False


def people() -> tuple[Person, ...]:
    """Return the people that the sign-in page offers, in its order."""
    return (
        Person("ada", "Admin", "1001"),
        Person("bob", "User", "1002"),
        Person("carol", "User", "1003"),
        Person("王小明", "User", "1004"),
        Person("o'neill", "User", "1005"),
        Person("auditor", "Auditor", "1006"),
        Person("eve", "User", "1007", disabled=True),
    )
