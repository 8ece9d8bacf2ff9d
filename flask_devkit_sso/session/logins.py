"""Logins in progress. The browser that started them keeps them, so they need no storage here.

Each login has its own cookie, so that logins in several tabs do not overwrite each other. The
cookie contains the login's nonce. The authorization response must prove that it belongs to that
nonce (RFC 6749 section 10.12, RFC 9700 section 4.7): it returns the signed nonce as ``state`` or in
the redirect URI. If a server supports neither, the person has to confirm the login.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ..config.settings import Settings
from ..errors import LoginFailed
from ..protocol.authorization import AuthorizationResponse, add_nonce
from ..store.base import SKEW, Store, is_recent
from .keys import Keys

COOKIE_BUDGET: Final = 3000
"""Maximum size of the login cookies of all installations on a host together, in bytes. Together
with their sessions' cookies, a browser sends less than 4 KB. Many servers refuse 8 KB."""

_ANY_LOGIN: Final = re.compile(r"(__Host-)?devkit_sso_\w+_login_[\w-]{8}")
"""The name of a login cookie of any installation, unless DEVKIT_SSO_COOKIE_NAME changes it."""

_NAME_LENGTH: Final = 8
"""How many characters of the nonce are part of a cookie's name."""

_ONE_KEY: Final = (
    "If this happens often, check that all workers use the same SECRET_KEY. To replace it, first "
    "add the new one to SECRET_KEY_FALLBACKS everywhere."
)

_ONE_PATH: Final = (
    "If it happens always, check that no proxy changes the path or the domain of cookies "
    "(proxy_cookie_path in nginx, ProxyPassReverseCookiePath in Apache): the path is /."
)

_CLOCKS: Final = "It was started in the future: synchronise the clocks of all hosts."


@dataclass(frozen=True)
class PendingLogin:
    """A login that this browser started. ``expires_at`` is in Unix seconds."""

    nonce: str = field(repr=False)
    cookie_name: str
    next: str
    code_verifier: str | None = field(repr=False)
    expires_at: float

    @property
    def name(self) -> str:
        """A name for telling a browser's logins apart. It is not signed, so it proves nothing."""
        return self.nonce[:_NAME_LENGTH]

    @property
    def digest(self) -> str:
        """A hash of the nonce, by which the store knows the login."""
        return _digest(self.nonce)


@dataclass(frozen=True)
class StartedLogin:
    """A new login, with what to send to the server and to the browser.

    ``state`` is None unless the binding uses it. ``stale_cookies`` are names of cookies to delete:
    those of logins that have ended, and the oldest ones if there are too many.
    """

    login: PendingLogin
    redirect_uri: str = field(repr=False)
    state: str | None = field(repr=False)
    cookie: str = field(repr=False)
    stale_cookies: list[str]


class Logins:
    """The logins of one installation.

    :param cookie_prefix: returns the beginning of the names of login cookies.
    """

    def __init__(
        self, store: Store, keys: Keys, settings: Settings, cookie_prefix: Callable[[], str]
    ) -> None:
        self._store = store
        self._keys = keys
        self._installation = settings.installation
        self._ttl = int(settings.login_ttl)
        self._pkce = settings.pkce
        self._binding = settings.binding
        self._cookie_prefix = cookie_prefix
        self._nonces = keys.signer("login-state")
        self._cookies = keys.signer("login-cookie")

    def start(self, next_url: str, redirect_uri: str, cookies: Mapping[str, str]) -> StartedLogin:
        """Start a login that will end at ``next_url``.

        :param redirect_uri: the configured one.
        :param cookies: the request's cookies, to find those that have to be deleted.
        """
        self._keys.prepare_to_seal()
        nonce = secrets.token_urlsafe(24)
        verifier = secrets.token_urlsafe(32) if self._pkce else None
        now = time.time()
        signed_nonce = self._nonces.sign(nonce, at=now)
        sealed = None if verifier is None else self._keys.seal(verifier)
        cookie = self._cookies.sign([nonce, next_url, sealed], at=now)
        name = self._prefix + nonce[:_NAME_LENGTH]
        return StartedLogin(
            login=PendingLogin(nonce, name, next_url, verifier, now + self._ttl),
            redirect_uri=self._with_nonce(redirect_uri, signed_nonce),
            state=signed_nonce if self._binding == "state" else None,
            cookie=cookie,
            stale_cookies=self._stale(cookies, COOKIE_BUDGET - len(name) - len(cookie)),
        )

    def resume(
        self, response: AuthorizationResponse, redirect_uri: str, cookies: Mapping[str, str]
    ) -> tuple[PendingLogin, str]:
        """Find the login that an authorization response belongs to. Call :meth:`use` before it is
        completed.

        :param redirect_uri: the configured one.
        :return: the login, and the redirect URI that was sent for it.
        :raises LoginFailed: if this browser has no such login.
        :raises StoreUnavailable: if that cannot be found out.
        """
        self._keys.prepare_to_seal()
        find = self._find_newest if self._binding == "confirm" else self._find_proven
        return find(response, cookies), self._with_nonce(redirect_uri, "".join(response.s))

    def use(self, login: PendingLogin) -> None:
        """Mark a login as used, so that a second response to it is refused.

        :raises LoginFailed: ``login_unknown``, if it was used before.
        :raises StoreUnavailable: if it is unknown whether the login was used.
        """
        # The mark has to exist as long as any host accepts the login. A host whose clock is behind
        # accepts it for longer, and a host whose clock is ahead deletes the mark earlier.
        expires = login.expires_at + SKEW
        if not self._store.add(self._used_key(login.digest), "", expires=expires):
            raise LoginFailed("login_unknown")

    def mark(self, login: PendingLogin) -> str:
        """Return a hash by which :meth:`is_response_to` recognises a login."""
        return _digest(login.name) if self._binding == "confirm" else login.digest

    def is_response_to(self, response: AuthorizationResponse, mark: str) -> bool:
        """Return whether a response belongs to a login, even if that is complete or has expired.

        With the binding ``confirm``, only the tab that has started the login can say so, and that
        proves nothing.

        :param mark: what :meth:`mark` returned for the login.
        """
        if self._binding == "confirm":
            return _digest(response.login) == mark
        returned = response.s if self._binding == "redirect_uri" else response.state
        signed = [self._nonces.read(text) for text in returned if text]
        return len(signed) == 1 and signed[0] is not None and _digest(signed[0].value) == mark

    def find(self, name: str, cookies: Mapping[str, str]) -> PendingLogin | None:
        """Return a login of this browser by its name."""
        cookie_name = self._prefix + name
        return self._parse(cookie_name, cookies.get(cookie_name, ""))

    def pending(self, cookies: Mapping[str, str]) -> list[PendingLogin]:
        """Return the logins of this browser that have not expired, the newest first."""
        found = [
            self._parse(name, value)
            for name, value in cookies.items()
            if name.startswith(self._prefix)
        ]
        return sorted(filter(None, found), key=lambda login: login.expires_at, reverse=True)

    def _find_proven(
        self, response: AuthorizationResponse, cookies: Mapping[str, str]
    ) -> PendingLogin:
        """Find the login whose signed nonce the response returns."""
        has_logins = any(name.startswith(self._prefix) for name in cookies)
        is_in_uri = self._binding == "redirect_uri"
        signed_nonces = list(filter(None, response.s if is_in_uri else response.state))
        if is_in_uri and any(response.state):
            raise LoginFailed("state_mismatch", hint="A state arrived, but none was sent.")
        if not signed_nonces:
            raise self._state_missing() if has_logins else LoginFailed("login_unknown")
        if len(signed_nonces) > 1:
            raise LoginFailed("state_mismatch", hint="The signed nonce arrived more than once.")
        signed = self._nonces.read(signed_nonces[0])
        if signed is None:
            raise LoginFailed("state_mismatch" if has_logins else "login_unknown", hint=_ONE_KEY)
        if not is_recent(signed.at, self._ttl):
            raise LoginFailed("login_expired", hint=_CLOCKS if signed.at > time.time() else "")
        nonce: str = signed.value
        login = self.find(nonce[:_NAME_LENGTH], cookies)
        if login is None or login.nonce != nonce:
            is_lost = not has_logins and self._store.read(self._used_key(_digest(nonce))) is None
            reason = "cookie_missing" if is_lost else "login_unknown"
            raise LoginFailed(reason, hint=f"{_ONE_KEY} {_ONE_PATH}" if is_lost else "")
        return login

    def _state_missing(self) -> LoginFailed:
        other = "state" if self._binding == "redirect_uri" else "redirect_uri"
        return LoginFailed(
            "state_missing",
            hint="The server did not return what binds a login to its browser. If it never does, "
            f"set DEVKIT_SSO_BINDING to {other!r} or 'confirm': `flask devkit-sso check-server` "
            "finds out which of them it supports.",
        )

    def _find_newest(
        self, response: AuthorizationResponse, cookies: Mapping[str, str]
    ) -> PendingLogin:
        """Find the login that the person will be asked to confirm: the tab's own, or the newest."""
        if any(response.state) or any(response.s):
            raise LoginFailed("state_mismatch", hint="A state arrived, but none was sent.")
        pending = self.pending(cookies)
        if not pending:
            raise LoginFailed("login_unknown")
        return next((login for login in pending if login.name == response.login), pending[0])

    @property
    def _prefix(self) -> str:
        return self._cookie_prefix()

    def _parse(self, name: str, cookie: str) -> PendingLogin | None:
        signed = self._cookies.read(cookie)
        if signed is None or not is_recent(signed.at, self._ttl):
            return None
        try:
            # A newer version may add values.
            nonce, next_url, sealed, *_ = signed.value
        except (ValueError, TypeError):
            return None
        if name != self._prefix + nonce[:_NAME_LENGTH]:
            return None
        verifier = sealed and self._keys.unseal(sealed)
        return PendingLogin(nonce, name, next_url, verifier, signed.at + self._ttl)

    def _stale(self, cookies: Mapping[str, str], budget: int) -> list[str]:
        """Return the login cookies to delete: those that are not valid any more, and the oldest if
        all of them exceed a budget of bytes.

        Other installations on this host count too. Nobody else can read their cookies, but browsers
        send the oldest first (RFC 6265 section 5.4).
        """
        pending = {login.cookie_name for login in self.pending(cookies)}
        prefix, keep = self._prefix, set()
        found = [name for name in cookies if name.startswith(prefix) or _ANY_LOGIN.fullmatch(name)]
        for name in reversed(found):
            if name.startswith(prefix) and name not in pending:
                continue
            budget -= len(name) + len(cookies[name])
            if budget < 0:
                break
            keep.add(name)
        return [name for name in found if name not in keep]

    def _with_nonce(self, redirect_uri: str, signed_nonce: str) -> str:
        """Add the signed nonce to a redirect URI if the binding uses it."""
        if self._binding != "redirect_uri":
            return redirect_uri
        return add_nonce(redirect_uri, signed_nonce)

    def _used_key(self, digest: str) -> str:
        return f"{self._installation}:login:{digest}"


def _digest(nonce: str) -> str:
    return hashlib.sha256(nonce.encode()).hexdigest()
