"""The authorization request and its response (docs/protocol.md section 1)."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

from ..errors import LoginFailed

_CODE: Final = re.compile(r"[ -~]{1,4096}")
"""An authorization code (RFC 6749 appendix A.11)."""


@dataclass(frozen=True)
class AuthorizationResponse:
    """The parameters of an authorization response.

    Each is a list with as many values as the response had. ``login`` is the name of the login that
    the tab started. It is not signed, so it proves nothing.
    """

    code: list[str] = field(repr=False)
    error: list[str]
    state: list[str] = field(repr=False)
    s: list[str] = field(repr=False)
    login: str = ""

    def require_code(self) -> str:
        """Return the authorization code.

        :raises LoginFailed: ``denied`` or ``authorize_error`` if the response is an error (RFC 6749
            section 4.1.2.1), ``code_missing`` if it does not contain exactly one code.
        """
        if "access_denied" in self.error:
            raise LoginFailed("denied")
        if self.error:
            is_readable = re.fullmatch(r"[a-z_]{1,40}", self.error[0])
            name = self.error[0] if is_readable else "an unknown error"
            raise LoginFailed("authorize_error", hint=f"The authorize interface returned {name}.")
        if len(self.code) != 1 or not _CODE.fullmatch(self.code[0]):
            raise LoginFailed("code_missing")
        return self.code[0]


def parse_query(query: str, *, nonce_in_uri: bool) -> AuthorizationResponse:
    """Parse an authorization response that arrived in a query.

    :param nonce_in_uri: whether the redirect URI ended with a nonce (:func:`add_nonce`).
    """
    if nonce_in_uri:
        # The server appends ?code=… at the very end, after our nonce.
        query = query.replace("?", "&")
    found = parse_qs(query, keep_blank_values=True)
    code, error, state, nonce = (found.get(name, []) for name in ("code", "error", "state", "s"))
    return AuthorizationResponse(code, error, state, nonce)


def authorization_url(
    authorize_url: str,
    *,
    client_id: str,
    redirect_uri: str,
    state: str | None = None,
    code_verifier: str | None = None,
) -> str:
    """Return the URL of an authorization request (section 1; RFC 7636 for the challenge).

    The redirect URI is percent-encoded as a whole: a raw ``#`` in it would cut off the rest.
    """
    query = {
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "response_type": "code",
    }
    if state is not None:
        query["state"] = state
    if code_verifier is not None:
        digest = hashlib.sha256(code_verifier.encode()).digest()
        query["code_challenge"] = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        query["code_challenge_method"] = "S256"
    parts = urlsplit(authorize_url)
    joined = "&".join(filter(None, (parts.query, urlencode(query))))
    return urlunsplit(parts._replace(query=joined))


def add_nonce(redirect_uri: str, nonce: str) -> str:
    """Append a signed nonce to a redirect URI, and so to its fragment if it has one."""
    head, hash_sign, fragment = redirect_uri.partition("#")
    separator = "&" if "?" in (fragment if hash_sign else head) else "?"
    return f"{redirect_uri}{separator}s={nonce}"
