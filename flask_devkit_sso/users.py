"""Users as applications see them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# Python's own has a lock in version 3.11: all threads would wait for one account.
from werkzeug.utils import cached_property

from .protocol.contract import Role, UserInfo


class User:
    """A person who is signed in.

    :param uid: the server's unique account id (docs/protocol.md section 3).
    :param username: the name at the server. A name can be reassigned, so key your data by ``uid``.
    :param role: ``"Admin"``, ``"User"``, or None if the server sent anything else.
    """

    is_authenticated = True

    def __init__(
        self,
        uid: str,
        username: str,
        role: Role | None,
        account_loader: Callable[[User], Any] | None = None,
    ) -> None:
        self.uid = uid
        self.username = username
        self.role = role
        self._account_loader = account_loader

    @property
    def is_admin(self) -> bool:
        """Whether the role is ``"Admin"``."""
        return self.role == "Admin"

    @cached_property
    def account(self) -> Any:
        """What the application's ``account_loader`` returned, or None if it has none."""
        return self._account_loader(self) if self._account_loader else None

    def __repr__(self) -> str:
        return f"User(uid={self.uid!r}, username={self.username!r}, role={self.role!r})"


@dataclass
class Hooks:
    """The functions registered on an extension object, for all its applications."""

    on_login: list[Callable[[User], Any]] = field(default_factory=list)
    account_loader: Callable[[User], Any] | None = None

    def make_user(self, info: UserInfo) -> User:
        """Return the user object that applications see."""
        return User(info.uid, info.username, info.role, self.account_loader)


class Anonymous:
    """The current user if nobody is signed in, or outside a request."""

    is_authenticated = False
    is_admin = False
    uid = None
    username = None
    role = None
    account = None

    def __repr__(self) -> str:
        return "Anonymous()"
