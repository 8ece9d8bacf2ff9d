"""The people who can sign in at the sandbox."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from .expiring import DAY, LIMIT, ExpiringStore
from .hashing import hashed, hashed_password, is_password


@dataclass(frozen=True)
class Person:
    """An account: what getUserInfo returns (docs/protocol.md section 3), and how to sign in to it.

    Anyone can sign in to an account without a password.
    """

    username: str
    role: str
    uid: str
    disabled: bool = False
    password_hash: str | None = field(default=None, repr=False)

    def has_password(self, password: str) -> bool:
        """Return whether this is the account's password."""
        return self.password_hash is not None and is_password(password, self.password_hash)


INITIAL_PEOPLE = (
    Person("ada", "Admin", "1001"),
    Person("bob", "User", "1002"),
    Person("carol", "User", "1003"),
    Person("王小明", "User", "1004"),
    Person("o'neill", "User", "1005"),
    Person("auditor", "Auditor", "1006"),
    Person("eve", "User", "1007", disabled=True),
)


class People:
    """All accounts of one sandbox. Thread-safe.

    The sign-in page lists some people. Anyone else signs in as a *guest*, by typing a name.

    :param listed: the people on the sign-in page, in its order.
    :param save: receives the people on the sign-in page before they change. If it raises an
        exception, they do not change.
    """

    def __init__(
        self,
        listed: Sequence[Person] = INITIAL_PEOPLE,
        save: Callable[[Sequence[Person]], None] = lambda people: None,
    ) -> None:
        self._lock = threading.RLock()
        self._save = save
        self._listed = {person.username: person for person in listed}
        self._guests: ExpiringStore[Person] = ExpiringStore(DAY)

    def listed(self) -> list[Person]:
        """Return the people on the sign-in page, in its order."""
        with self._lock:
            return list(self._listed.values())

    def get(self, username: str) -> Person:
        """Return the person with this name; a guest is a User whose uid is derived from it."""
        with self._lock:
            listed = self._listed.get(username)
        if listed:
            return listed
        return Person(username, "User", f"typed-{hashed(username)[:16]}")

    def change(self, username: str, **changes: object) -> Person:
        """Change a person, and list the person.

        Returns the changed person. A full list does not grow.

        :param changes: the new ``role``, ``uid``, ``disabled`` or ``password``, which is a text or
            None for no password.
        """
        if "password" in changes:
            # Hashing is slow on purpose, so it does not keep others waiting for the lock.
            password = changes.pop("password")
            changes["password_hash"] = None if password is None else hashed_password(str(password))
        with self._lock:
            changed = replace(self.get(username), **changes)  # type: ignore[arg-type]
            if username in self._listed or len(self._listed) < LIMIT:
                listed = self._listed | {username: changed}
                self._save(list(listed.values()))
                self._listed = listed
            return changed

    def remember_guest(self, person: Person) -> None:
        """Treat a guest as valid for a day. Do nothing if the person is listed."""
        with self._lock:
            if person.username not in self._listed:
                self._guests.put(f"uid:{person.uid}", person)
                self._guests.put(f"username:{person.username}", person)

    def are_valid(self, users: Iterable[object], key: str) -> list[bool]:
        """Return for each user whether the account exists and is not disabled.

        :param key: what identifies the users: ``uid`` or ``username``.
        """
        with self._lock:
            return [isinstance(user, str) and self._is_valid(user, key) for user in users]

    def _is_valid(self, user: str, key: str) -> bool:
        for person in self._listed.values():
            if getattr(person, key) == user:
                return not person.disabled
        return self._guests.get(f"{key}:{user}") is not None
