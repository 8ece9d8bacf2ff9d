"""Sign-ins, and the authorization codes and tokens that result from them."""

from __future__ import annotations

import base64
import hashlib
import threading
from dataclasses import dataclass

from .config import SandboxConfig
from .expiring import DAY, ExpiringStore
from .hashing import constant_time_equal
from .people import People, Person

# Seconds. Refresh tokens last "hours or days" (docs/protocol.md section 2).
SIGN_IN_LIFETIME = DAY
CODE_LIFETIME = 60
REFRESH_TOKEN_LIFETIME = DAY


@dataclass(frozen=True)
class AuthorizationRequest:
    """The parameters of an authorization request (docs/protocol.md section 1)."""

    redirect_uri: str
    state: str | None = None
    code_challenge: str | None = None

    def accepts_verifier(self, verifier: str | None) -> bool:
        """Return whether a PKCE verifier matches the challenge; without one it must be None."""
        if self.code_challenge is None or verifier is None:
            return self.code_challenge is None and verifier is None
        digest = hashlib.sha256(verifier.encode("utf-8", "surrogatepass")).digest()
        expected = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        return constant_time_equal(self.code_challenge, expected)


@dataclass
class SignIn:
    """One person in one browser. When it ends, all its grants end."""

    username: str
    alive: bool = True


@dataclass
class Grant:
    """What one authorization code can be exchanged for. When it ends, all its tokens end."""

    sign_in: SignIn
    request: AuthorizationRequest
    revoked: bool = False

    @property
    def alive(self) -> bool:
        return self.sign_in.alive and not self.revoked


@dataclass
class RefreshToken:
    grant: Grant
    rotated: bool = False


class Grants:
    """All sign-ins, codes and tokens of one sandbox. Thread-safe.

    Use ``with grants.lock`` around several calls that must happen as one.
    """

    def __init__(self, config: SandboxConfig, people: People) -> None:
        self.lock = threading.RLock()
        self._people = people
        self._rotate_refresh_tokens = config.rotate_refresh_tokens
        self._sign_ins: ExpiringStore[SignIn] = ExpiringStore(SIGN_IN_LIFETIME)
        self._codes: ExpiringStore[Grant] = ExpiringStore(CODE_LIFETIME)
        self._used_codes: ExpiringStore[Grant] = ExpiringStore(REFRESH_TOKEN_LIFETIME)
        self._access_tokens: ExpiringStore[Grant] = ExpiringStore(config.token_lifetime)
        self._refresh_tokens: ExpiringStore[RefreshToken] = ExpiringStore(REFRESH_TOKEN_LIFETIME)

    # In the browser

    def sign_in(self, person: Person) -> tuple[str, SignIn]:
        """Sign a person in. Return the value of the browser's cookie, and the sign-in."""
        self._people.remember_guest(person)
        sign_in = SignIn(person.username)
        with self.lock:
            return self._sign_ins.add(sign_in), sign_in

    def sign_in_of_cookie(self, cookie: str) -> SignIn | None:
        """Return a browser's sign-in, or None if it has ended or the person is disabled."""
        with self.lock:
            found = self._sign_ins.get(cookie)
            if found and found.alive and not self._people.get(found.username).disabled:
                return found
            return None

    def new_code(self, sign_in: SignIn, request: AuthorizationRequest) -> str:
        """Return a new authorization code."""
        with self.lock:
            return self._codes.add(Grant(sign_in, request))

    # In the interfaces

    def grant_of_code(self, code: str) -> Grant | None:
        """Return the grant of a code, or None if the code cannot be exchanged."""
        with self.lock:
            grant = self._codes.get(code)
            return grant if grant and grant.alive else None

    def person_of_code(self, code: str) -> str | None:
        """Return who got a code, used or not, or None if there is no such code."""
        with self.lock:
            grant = self._codes.get(code) or self._used_codes.get(code)
            return grant.sign_in.username if grant else None

    def exchange(self, code: str) -> tuple[str, str]:
        """Use a code. Return an access token and a refresh token.

        Finding the code and taking it away are one step, so that of several simultaneous exchanges
        only one succeeds.

        :raises LookupError: if there is no such code.
        """
        with self.lock:
            grant = self._codes.pop(code)
            if grant is None:
                raise LookupError("no such code")
            self._used_codes.put(code, grant)
            return self._access_tokens.add(grant), self._refresh_tokens.add(RefreshToken(grant))

    def revoke_if_used(self, code: str) -> None:
        """Revoke the tokens that a code was exchanged for, if it was."""
        with self.lock:
            grant = self._used_codes.get(code)
            if grant:
                grant.revoked = True

    def refresh(self, token: str) -> tuple[str, str | None] | None:
        """Return a new access token, and with rotation a new refresh token.

        Returns None if the refresh token is not valid. Using a rotated one again ends the sign-in.
        """
        with self.lock:
            found = self._refresh_tokens.get(token)
            if found is None:
                return None
            grant = found.grant
            if found.rotated:
                grant.sign_in.alive = False
            if not grant.alive or self._people.get(grant.sign_in.username).disabled:
                return None
            access_token = self._access_tokens.add(grant)
            if not self._rotate_refresh_tokens:
                return access_token, None
            found.rotated = True
            return access_token, self._refresh_tokens.add(RefreshToken(grant))

    def sign_in_of_access_token(self, token: str) -> SignIn | None:
        """Return the sign-in that an access token belongs to, or None if it is not valid."""
        with self.lock:
            grant = self._access_tokens.get(token)
            return grant.sign_in if grant and grant.alive else None
