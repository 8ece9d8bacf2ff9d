"""Results of logins: the tokens that an authorization code was exchanged for, and their user."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from ..config.settings import Settings
from ..protocol.contract import Tokens, UserInfo
from ..store.base import Store
from .keys import Keys
from .logins import PendingLogin
from .records import UNREADABLE, parse_tokens, parse_user


@dataclass(frozen=True)
class LoginResult:
    """The result of a login, before there is a session. ``next`` is the page to return to."""

    user: UserInfo
    tokens: Tokens
    next: str


class LoginResults:
    """Results that wait for the person's confirmation (binding ``confirm``), encrypted."""

    def __init__(self, store: Store, keys: Keys, settings: Settings) -> None:
        self._store = store
        self._keys = keys
        self._installation = settings.installation

    def put(self, login: PendingLogin, result: LoginResult) -> None:
        """Store a result until the login expires."""
        data = self._keys.seal(json.dumps(asdict(result)))
        owner = self._owner(result.user.uid)
        self._store.add(self._key(login), data, expires=login.expires_at, owner=owner)

    def get(self, login: PendingLogin) -> LoginResult | None:
        """Return a login's result."""
        row = self._store.read(self._key(login))
        return self._parse(row.data) if row else None

    def take(self, login: PendingLogin) -> LoginResult | None:
        """Remove a login's result and return it. If several callers do so, only one gets it.

        What cannot be decrypted here stays for a worker that has its key.
        """
        key = self._key(login)
        row = self._store.read(key)
        result = self._parse(row.data) if row else None
        if row is None or result is None:
            return None
        return result if self._store.remove(key, data=row.data) is not None else None

    def remove_all(self, uid: str) -> None:
        """Remove all results of a user, so that nobody can confirm them any more."""
        self._store.remove_owner(self._owner(uid))

    def _parse(self, data: str) -> LoginResult | None:
        opened = self._keys.unseal(data)
        if opened is None:
            return None
        try:
            result = json.loads(opened)
            tokens = parse_tokens(result["tokens"])
            return LoginResult(parse_user(result["user"]), tokens, result["next"])
        except UNREADABLE:
            return None

    def _owner(self, uid: str) -> str:
        return f"{self._installation}:results:{uid}"

    def _key(self, login: PendingLogin) -> str:
        return f"{self._installation}:result:{login.digest}"
