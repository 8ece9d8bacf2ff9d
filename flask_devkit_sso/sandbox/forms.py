"""The tokens of sign-in forms, which protect them against other websites (CSRF)."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass

from .expiring import ExpiringStore
from .grants import AuthorizationRequest
from .hashing import constant_time_equal, hashed

FORM_LIFETIME = 600
"""Seconds."""


@dataclass(frozen=True)
class _Form:
    request: AuthorizationRequest
    browser_hash: str


class Forms:
    """The sign-in forms that browsers have open. Thread-safe.

    Another website cannot read the token of a person's form. It can load a form itself, but the
    token of that form is worth nothing in the person's browser, because each token belongs to the
    browser that loaded the form: to the value of a cookie there.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forms: ExpiringStore[_Form] = ExpiringStore(FORM_LIFETIME)

    @staticmethod
    def new_browser() -> str:
        """Return the value of the cookie of a browser that has none yet."""
        return secrets.token_urlsafe(32)

    def new_token(self, request: AuthorizationRequest, browser: str) -> str:
        """Return the token of a new form, which continues an authorization request.

        :param browser: the value of the browser's cookie.
        """
        with self._lock:
            return self._forms.add(_Form(request, hashed(browser)))

    def request_of(self, token: str, browser: str) -> AuthorizationRequest | None:
        """Return the request that a form continues, or None if the form is not this browser's."""
        with self._lock:
            form = self._forms.get(token)
        if form is None or not constant_time_equal(hashed(browser), form.browser_hash):
            return None
        return form.request
