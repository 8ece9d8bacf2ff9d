"""Logins in progress. They live in the browser that started them, so they cost the server nothing.

Each login has a cookie of its own, so that tabs which start at once do not overwrite each other.
The cookie holds the login's nonce, and what comes back from the authentication server must prove
that it belongs to it (RFC 6749 section 10.12, RFC 9700 section 4.7). The proof is the signed nonce:
as ``state``, or in the redirect_uri. Where a server takes neither, the person is the proof.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

from itsdangerous import BadData, SignatureExpired

from ..config.settings import Settings
from ..errors import LoginFailed
from ..protocol.contract import TokenAnswer, UserInfo, vary_redirect_uri
from ..store.base import Store
from .keys import Keys

COOKIE_BUDGET: Final = 3000
"""Bytes for all login cookies together: with a session's, the browser sends less than 4 KB."""

MAX_NEXT: Final = 1500
"""Characters of an address to come back to; a longer one is given up."""

_NAME_LENGTH: Final = 8
"""Characters of the nonce in a cookie's name."""


_ONE_KEY: Final = "If it happens again and again: do all workers have one SECRET_KEY, and keep it?"


@dataclass(frozen=True)
class Answer:
    """What came back from authorize (docs/protocol.md section 1), each parameter as often as it
    came. ``login`` is the tab's own memory of which login it started; it proves nothing."""

    code: list[str] = field(repr=False)
    error: list[str]
    state: list[str] = field(repr=False)
    s: list[str] = field(repr=False)
    login: str = ""


@dataclass(frozen=True)
class PendingLogin:
    """A login that this browser started. ``expires`` in Unix seconds."""

    nonce: str = field(repr=False)
    cookie_name: str
    next: str
    code_verifier: str | None = field(repr=False)
    expires: float

    @property
    def name(self) -> str:
        """What tells a browser's logins apart; it proves nothing."""
        return self.nonce[:_NAME_LENGTH]


@dataclass(frozen=True)
class StartedLogin:
    """What to send along: ``state`` to the server if it is not None, the cookie to the browser."""

    login: PendingLogin
    redirect_uri: str = field(repr=False)
    state: str | None = field(repr=False)
    cookie: str = field(repr=False)
    stale_cookies: list[str]
    """Names of cookies to delete: spent, not ours, or the oldest where there are too many."""


@dataclass(frozen=True)
class Held:
    """What a login came to: ``asked`` is when its tokens were asked for, ``next`` where it goes."""

    user: UserInfo
    tokens: TokenAnswer
    asked: float
    next: str


class Logins:
    """The logins of one installation.

    :param cookie_name: to which each login adds its name.
    """

    def __init__(self, store: Store, keys: Keys, settings: Settings, cookie_name: str) -> None:
        self._store = store
        self._keys = keys
        self._installation = settings.installation
        self._ttl = int(settings.login_ttl)
        self._pkce = settings.pkce
        self._binding = settings.binding
        self._prefix = cookie_name
        self._proofs = keys.signer("login-state")
        self._cookies = keys.signer("login-cookie")

    def start(self, next_url: str, redirect_uri: str, cookies: Mapping[str, str]) -> StartedLogin:
        """Start a login that will lead to ``next_url``.

        :param redirect_uri: the one configured.
        :param cookies: the request's, to keep all logins of a browser within bounds.
        """
        nonce = secrets.token_urlsafe(24)
        verifier = secrets.token_urlsafe(32) if self._pkce else None
        proof = str(self._proofs.dumps(nonce))
        # The signer's own time has whole seconds, too coarse to tell which tab came first.
        now = round(time.time(), 3)
        sealed = None if verifier is None else self._keys.seal(verifier)
        cookie = str(self._cookies.dumps([nonce, next_url, sealed, now]))
        name = self._prefix + nonce[:_NAME_LENGTH]
        return StartedLogin(
            login=PendingLogin(nonce, name, next_url, verifier, now + self._ttl),
            redirect_uri=self._sent_redirect_uri(redirect_uri, proof),
            state=proof if self._binding == "state" else None,
            cookie=cookie,
            stale_cookies=self._stale(cookies, COOKIE_BUDGET - len(name) - len(cookie)),
        )

    def resume(
        self, answer: Answer, redirect_uri: str, cookies: Mapping[str, str]
    ) -> tuple[PendingLogin, str]:
        """Find the login that an answer ends, and use it up: a second answer finds none.

        :param redirect_uri: the one configured.
        :return: the login, and the redirect_uri that was sent for it.
        :raises LoginFailed: when this browser has no such login.
        :raises StoreUnavailable: when it cannot be said whether it is used up.
        """
        find = self._confirmable if self._binding == "confirm" else self._proven
        login = find(answer, cookies)
        # A signature's age counts in whole seconds, so it may outlast the login by one.
        if not self._store.add(self._used_up(login.nonce), "", expires=login.expires + 2):
            raise LoginFailed("login_unknown")
        return login, self._sent_redirect_uri(redirect_uri, "".join(answer.s))

    def find(self, name: str, cookies: Mapping[str, str]) -> PendingLogin | None:
        """Return a login of this browser by its name."""
        cookie_name = self._prefix + name
        return self._read(cookie_name, cookies.get(cookie_name, ""))

    def pending(self, cookies: Mapping[str, str]) -> list[PendingLogin]:
        """Return the logins of this browser that have not expired, the newest first."""
        found = [
            self._read(name, value)
            for name, value in cookies.items()
            if name.startswith(self._prefix)
        ]
        now = time.time()
        alive = [login for login in found if login is not None and login.expires > now]
        return sorted(alive, key=lambda login: login.expires, reverse=True)

    def hold(self, login: PendingLogin, held: Held) -> None:
        """Keep what a login came to, sealed, until the person says yes, at most until its end."""
        data = self._keys.seal(json.dumps(asdict(held)))
        self._store.add(self._key("held", login.nonce), data, expires=login.expires)

    def held(self, login: PendingLogin) -> Held | None:
        """Look at what a login came to."""
        row = self._store.read(self._key("held", login.nonce))
        return self._open(row.data) if row else None

    def release(self, login: PendingLogin) -> Held | None:
        """Take what a login came to: of several callers, one gets it."""
        data = self._store.remove(self._key("held", login.nonce))
        return self._open(data) if data else None

    def _proven(self, answer: Answer, cookies: Mapping[str, str]) -> PendingLogin:
        """Find the login by the proof that its binding asks for."""
        has_logins = any(name.startswith(self._prefix) for name in cookies)
        in_uri = self._binding == "redirect_uri"
        proofs = list(filter(None, answer.s if in_uri else answer.state))
        if in_uri and any(answer.state):
            raise LoginFailed("state_mismatch", hint="A state came, though none was sent.")
        if not proofs:
            raise self._unproven() if has_logins else LoginFailed("login_unknown")
        if len(proofs) > 1:
            raise LoginFailed("state_mismatch", hint="The proof came more than once.")
        try:
            nonce = self._proofs.loads(proofs[0], max_age=self._ttl)
        except SignatureExpired:
            raise LoginFailed("login_expired") from None
        except BadData:
            raise LoginFailed(
                "state_mismatch" if has_logins else "login_unknown", hint=_ONE_KEY
            ) from None
        login = self.find(nonce[:_NAME_LENGTH], cookies)
        if login is None or login.nonce != nonce:
            lost = not has_logins and self._store.read(self._used_up(nonce)) is None
            reason = "cookie_missing" if lost else "login_unknown"
            raise LoginFailed(reason, hint=_ONE_KEY if lost else "")
        return login

    def _unproven(self) -> LoginFailed:
        other = "state" if self._binding == "redirect_uri" else "redirect_uri"
        return LoginFailed(
            "state_missing",
            hint="The server did not send back what binds a login to its browser. If it never "
            f"does, set DEVKIT_SSO_BINDING to {other!r} or 'confirm': "
            "`flask devkit-sso check-server` finds out which of them it allows.",
        )

    def _confirmable(self, answer: Answer, cookies: Mapping[str, str]) -> PendingLogin:
        """Find the login that the person will be asked about: the tab's own, else the newest."""
        if any(answer.state) or any(answer.s):
            raise LoginFailed("state_mismatch", hint="A state came, though none was sent.")
        pending = self.pending(cookies)
        if not pending:
            raise LoginFailed("login_unknown")
        return next((login for login in pending if login.name == answer.login), pending[0])

    def _read(self, name: str, cookie: str) -> PendingLogin | None:
        try:
            nonce, next_url, sealed, started = self._cookies.loads(cookie, max_age=self._ttl)
        except BadData:
            return None
        verifier = sealed and self._keys.unseal(sealed)
        return PendingLogin(nonce, name, next_url, verifier, started + self._ttl)

    def _stale(self, cookies: Mapping[str, str], budget: int) -> list[str]:
        """Return the login cookies that do not fit into a budget of bytes, the oldest first."""
        keep = set()
        for login in self.pending(cookies):
            budget -= len(login.cookie_name) + len(cookies[login.cookie_name])
            if budget < 0:
                break
            keep.add(login.cookie_name)
        return [name for name in cookies if name.startswith(self._prefix) and name not in keep]

    def _open(self, data: str) -> Held | None:
        opened = self._keys.unseal(data)
        if opened is None:
            return None
        held = json.loads(opened)
        try:
            user, tokens = UserInfo(**held.pop("user")), TokenAnswer(**held.pop("tokens"))
            return Held(user, tokens, **held)
        except (LookupError, TypeError):
            # Sealed by another version.
            return None

    def _sent_redirect_uri(self, redirect_uri: str, proof: str) -> str:
        """Put the proof into a redirect_uri, where that is the binding."""
        return (
            vary_redirect_uri(redirect_uri, proof)
            if self._binding == "redirect_uri"
            else (redirect_uri)
        )

    def _used_up(self, nonce: str) -> str:
        return self._key("login", nonce)

    def _key(self, kind: str, nonce: str) -> str:
        return f"{self._installation}:{kind}:{hashlib.sha256(nonce.encode()).hexdigest()}"
