"""What a sandbox remembers, all of it in memory: people, sign-ins, codes, tokens, calls."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, replace
from typing import Generic, TypeVar, cast

from flask import current_app

from .config import SandboxConfig
from .people import Person, people

T = TypeVar("T")

CODE_LIFETIME = 60
FORM_LIFETIME = 600
# Sign-ins and refresh tokens: "hours or days" (docs/protocol.md section 2).
DAY = 86_400

# How many things of one kind are kept.
LIMIT = 10_000


def now() -> float:
    """Return the time that every lifetime here is measured by."""
    return time.time()


def new_secret() -> str:
    """Return 256 random bits as text."""
    return secrets.token_urlsafe(32)


def same(one: str, other: str) -> bool:
    """Tell whether two texts are equal, in a time that says nothing about them."""
    # JSON may hold lone surrogates, which strict UTF-8 refuses.
    return hmac.compare_digest(
        one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass")
    )


class Shelf(Generic[T]):
    """Things that all last equally long; when there are too many, the oldest go first."""

    def __init__(self, lifetime: float) -> None:
        self._lifetime = lifetime
        self._items: OrderedDict[str, tuple[float, T]] = OrderedDict()

    def put(self, key: str, item: T) -> None:
        """Keep an item under a key from now on, in the place of another one there."""
        self._items.pop(key, None)
        while self._items:
            until, _ = next(iter(self._items.values()))
            if now() < until and len(self._items) < LIMIT:
                break
            self._items.popitem(last=False)
        self._items[key] = (now() + self._lifetime, item)

    def add(self, item: T) -> str:
        """Keep an item under a new random key; return the key."""
        key = new_secret()
        self.put(key, item)
        return key

    def get(self, key: str) -> T | None:
        """Return what is kept under a key, or None when there is nothing (any more)."""
        found = self._items.get(key)
        return found[1] if found and now() < found[0] else None

    def take(self, key: str) -> T | None:
        """Return what is kept under a key, and keep it no longer."""
        item = self.get(key)
        self._items.pop(key, None)
        return item

    def __len__(self) -> int:
        return len(self._items)


@dataclass(frozen=True)
class LoginRequest:
    """What authorize was asked for (docs/protocol.md section 1)."""

    redirect_uri: str
    state: str | None = None
    code_challenge: str | None = None

    def proven_by(self, verifier: str | None) -> bool:
        """Tell whether a PKCE verifier (None: none was sent) fits the challenge, or its absence."""
        if self.code_challenge is None or verifier is None:
            return self.code_challenge is None and verifier is None
        digest = hashlib.sha256(verifier.encode("utf-8", "surrogatepass")).digest()
        expected = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        return same(self.code_challenge, expected)


@dataclass
class SignIn:
    """One person signed in in one browser; all that came of it dies with it."""

    username: str
    alive: bool = True


@dataclass
class Grant:
    """What one authorization code stands for; the tokens that it was exchanged for die with it."""

    sign_in: SignIn
    asked: LoginRequest
    revoked: bool = False

    @property
    def alive(self) -> bool:
        return self.sign_in.alive and not self.revoked


@dataclass
class RefreshToken:
    grant: Grant
    spent: bool = False


@dataclass
class Call:
    """One upstream POST, for tests to count; ``code`` is the envelope's or the way it failed."""

    interface: str
    code: str
    connection: int


class State:
    """All that changes while a sandbox runs, behind one lock.

    ``lock`` may be held around several calls that must not be divided. ``stopping`` is set when
    the sandbox ends, so that answers kept waiting on purpose wait no longer.
    """

    def __init__(self, config: SandboxConfig) -> None:
        self.config = config
        self.lock = threading.RLock()
        self.stopping = threading.Event()
        self._people = {person.username: person for person in people()}
        self._guests: Shelf[Person] = Shelf(DAY)
        self._forms: Shelf[LoginRequest] = Shelf(FORM_LIFETIME)
        self._sign_ins: Shelf[SignIn] = Shelf(DAY)
        self._codes: Shelf[Grant] = Shelf(CODE_LIFETIME)
        self._used_codes: Shelf[Grant] = Shelf(DAY)
        self._access_tokens: Shelf[Grant] = Shelf(config.token_lifetime)
        self._refresh_tokens: Shelf[RefreshToken] = Shelf(DAY)
        self._faults: dict[str, deque[str]] = {}
        self._calls: deque[Call] = deque(maxlen=LIMIT)

    # People

    def people(self) -> list[Person]:
        """Return the people to offer on the sign-in page."""
        with self.lock:
            return list(self._people.values())

    def person(self, username: str) -> Person:
        """Return the person of a name; one nobody knows is a User with a uid made of the name."""
        with self.lock:
            known = self._people.get(username)
            if known:
                return known
            digest = hashlib.sha256(username.encode("utf-8", "surrogatepass")).hexdigest()
            return Person(username, "User", f"typed-{digest[:16]}")

    def change_person(self, username: str, **changes: object) -> Person:
        """Change a person (``role``, ``uid``, ``disabled``), or make one, and return it."""
        with self.lock:
            changed = replace(self.person(username), **changes)  # type: ignore[arg-type]
            if username in self._people or len(self._people) < LIMIT:
                self._people[username] = changed
            return changed

    def is_valid(self, user: object) -> bool:
        """Tell whether a user, named as the configuration says, exists and isn't disabled."""
        key = self.config.validity_key
        with self.lock:
            if not isinstance(user, str):
                return False
            for person in self._people.values():
                if getattr(person, key) == user:
                    return not person.disabled
            return self._guests.get(f"{key}:{user}") is not None

    # The browser

    def new_form(self, asked: LoginRequest) -> str:
        """Return the token of a new sign-in form for a request."""
        with self.lock:
            return self._forms.add(asked)

    def form(self, token: str) -> LoginRequest | None:
        """Return the request that a sign-in form was made for."""
        with self.lock:
            return self._forms.get(token)

    def sign_in(self, person: Person) -> tuple[str, SignIn]:
        """Sign a person in; return the cookie's value and the sign-in."""
        sign_in = SignIn(person.username)
        with self.lock:
            if person.username not in self._people:
                self._guests.put(f"uid:{person.uid}", person)
                self._guests.put(f"username:{person.username}", person)
            return self._sign_ins.add(sign_in), sign_in

    def signed_in(self, cookie: str) -> SignIn | None:
        """Return the sign-in of a browser, unless it ended or its person was disabled."""
        with self.lock:
            found = self._sign_ins.get(cookie)
            if found and found.alive and not self.person(found.username).disabled:
                return found
            return None

    # Codes and tokens

    def new_code(self, sign_in: SignIn, asked: LoginRequest) -> str:
        """Return a new authorization code."""
        with self.lock:
            return self._codes.add(Grant(sign_in, asked))

    def code(self, code: str) -> Grant | None:
        """Return what a code that can be exchanged stands for."""
        with self.lock:
            grant = self._codes.get(code)
            return grant if grant and grant.alive else None

    def exchange(self, code: str) -> tuple[str, str]:
        """Use a code up; return an access token and a refresh token."""
        with self.lock:
            grant = self._codes.take(code)
            if grant is None:
                raise LookupError("no such code")
            self._used_codes.put(code, grant)
            return self._access_tokens.add(grant), self._refresh_tokens.add(RefreshToken(grant))

    def end_reused(self, code: str) -> None:
        """Revoke the tokens that a code brought, if it was used before."""
        with self.lock:
            grant = self._used_codes.get(code)
            if grant:
                grant.revoked = True

    def refresh(self, token: str) -> tuple[str, str | None] | None:
        """Return a new access token and the new refresh token, if there is one.

        None when the token is dead. A rotated one used again ends its whole sign-in.
        """
        with self.lock:
            found = self._refresh_tokens.get(token)
            if found is None:
                return None
            grant = found.grant
            if found.spent:
                grant.sign_in.alive = False
            if not grant.alive or self.person(grant.sign_in.username).disabled:
                return None
            access_token = self._access_tokens.add(grant)
            if not self.config.rotate_refresh_tokens:
                return access_token, None
            found.spent = True
            return access_token, self._refresh_tokens.add(RefreshToken(grant))

    def holder(self, access_token: str) -> SignIn | None:
        """Return the sign-in that an access token belongs to, if the token is good."""
        with self.lock:
            grant = self._access_tokens.get(access_token)
            return grant.sign_in if grant and grant.alive else None

    # For tests

    def fail_next(self, interface: str, how: str, times: int) -> None:
        """Let the next calls of an interface fail, after those that are to fail already."""
        with self.lock:
            waiting = self._faults.setdefault(interface, deque(maxlen=LIMIT))
            waiting.extend([how] * times)

    def forget_faults(self) -> None:
        """Let nothing fail any more."""
        with self.lock:
            self._faults.clear()

    def take_fault(self, interface: str) -> str | None:
        """Return how this call of an interface is to fail, if it is."""
        with self.lock:
            waiting = self._faults.get(interface)
            return waiting.popleft() if waiting else None

    def record(self, call: Call) -> None:
        """Remember an upstream call."""
        with self.lock:
            self._calls.append(call)

    def calls(self) -> list[Call]:
        """Return the upstream calls in their order."""
        with self.lock:
            return list(self._calls)

    def forget_calls(self) -> None:
        """Forget the upstream calls."""
        with self.lock:
            self._calls.clear()


EXTENSION = "devkit_sso_sandbox"


def the_state() -> State:
    """Return the state of the sandbox that answers the current request."""
    return cast(State, current_app.extensions[EXTENSION])
