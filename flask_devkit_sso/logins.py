"""Logins in progress. They live in the browser that started them, so they cost the server nothing.

Each login has a cookie of its own, so that tabs which start at once do not overwrite each other.
The cookie is the binding (RFC 6749 section 10.12, RFC 9700 section 4.7): it holds the nonce whose
signed form is the ``state`` that must come back.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from itsdangerous import BadData, SignatureExpired

from .errors import LoginFailed
from .keys import Keys
from .settings import Settings
from .stores import Store

COOKIE_BUDGET: Final = 3000
"""Bytes for all login cookies together: with a session's, the browser sends less than 4 KB."""

MAX_NEXT: Final = 1500
"""Characters of an address to come back to; a longer one is given up."""


@dataclass(frozen=True)
class PendingLogin:
    """A login that this browser started. ``expires`` in Unix seconds."""

    nonce: str = field(repr=False)
    cookie_name: str
    next: str
    code_verifier: str | None = field(repr=False)
    expires: float


@dataclass(frozen=True)
class StartedLogin:
    """What to send along: the state to the server, the cookie to the browser."""

    state: str = field(repr=False)
    code_verifier: str | None = field(repr=False)
    cookie_name: str
    cookie: str = field(repr=False)
    stale_cookies: list[str]
    """Names of cookies to delete: spent, not ours, or the oldest where there are too many."""


class Logins:
    """The logins of one installation.

    :param cookie_name: to which each login adds something of its own.
    """

    def __init__(self, store: Store, keys: Keys, settings: Settings, cookie_name: str) -> None:
        self._store = store
        self._keys = keys
        self._installation = settings.installation
        self._ttl = int(settings.login_ttl)
        self._pkce = settings.pkce
        self._prefix = cookie_name
        self._states = keys.signer("login-state")
        self._cookies = keys.signer("login-cookie")

    def start(self, next_url: str, cookies: Mapping[str, str]) -> StartedLogin:
        """Start a login that will lead to ``next_url``.

        :param cookies: the request's, to keep all logins of a browser within bounds.
        """
        nonce = secrets.token_urlsafe(24)
        verifier = secrets.token_urlsafe(32) if self._pkce else None
        sealed = None if verifier is None else self._keys.seal(verifier)
        name = self._cookie_name(nonce)
        # The signer's own time has whole seconds, too coarse to tell which tab came first.
        cookie = str(self._cookies.dumps([nonce, next_url, sealed, round(time.time(), 3)]))
        return StartedLogin(
            state=str(self._states.dumps(nonce)),
            code_verifier=verifier,
            cookie_name=name,
            cookie=cookie,
            stale_cookies=self._stale(cookies, COOKIE_BUDGET - len(name) - len(cookie)),
        )

    def resume(self, states: list[str], cookies: Mapping[str, str]) -> PendingLogin:
        """Find the login that a callback ends, and use it up: a second callback finds none.

        :param states: all values of the ``state`` parameter.
        :raises LoginFailed: when this browser has no such login.
        :raises StoreUnavailable: when it cannot be said whether it is used up.
        """
        has_logins = any(name.startswith(self._prefix) for name in cookies)
        if not states or not states[0]:
            raise LoginFailed("state_missing" if has_logins else "login_unknown")
        if len(states) > 1:
            raise LoginFailed("state_mismatch", hint="The state parameter came more than once.")
        try:
            nonce = self._states.loads(states[0], max_age=self._ttl)
        except SignatureExpired:
            raise LoginFailed("login_expired") from None
        except BadData:
            raise LoginFailed("state_mismatch" if has_logins else "login_unknown") from None
        name = self._cookie_name(nonce)
        login = self._read(name, cookies.get(name, ""))
        used_up = f"{self._installation}:login:{hashlib.sha256(nonce.encode()).hexdigest()}"
        if login is None or login.nonce != nonce:
            lost = not has_logins and self._store.read(used_up) is None
            raise LoginFailed("cookie_missing" if lost else "login_unknown")
        if not self._store.add(used_up, "", expires=login.expires):
            raise LoginFailed("login_unknown")
        return login

    def _read(self, name: str, cookie: str) -> PendingLogin | None:
        try:
            nonce, next_url, sealed, started = self._cookies.loads(cookie, max_age=self._ttl)
        except BadData:
            return None
        verifier = sealed and self._keys.unseal(sealed)
        return PendingLogin(nonce, name, next_url, verifier, started + self._ttl)

    def _cookie_name(self, nonce: str) -> str:
        return self._prefix + nonce[:8]

    def _stale(self, cookies: Mapping[str, str], budget: int) -> list[str]:
        """Return the login cookies that do not fit into a budget of bytes, the oldest first."""
        dated = []
        for name, value in cookies.items():
            if name.startswith(self._prefix):
                login = self._read(name, value)
                dated.append((login.expires if login else 0.0, name, len(name) + len(value)))
        stale = []
        for expires, name, size in sorted(dated, reverse=True):
            budget -= size
            if budget < 0 or expires <= time.time():
                stale.append(name)
        return stale
