"""How one sandbox behaves."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

CLIENT_ID = "20221017000000001"
REDIRECT_URIS = (
    "http://127.0.0.1:5000/#/login",
    "http://localhost:5000/#/login",
    # What a client on loopback uses while its redirect_uri is not set.
    "http://127.0.0.1:5000/sso/callback",
    "http://localhost:5000/sso/callback",
)


def _new_client_secret() -> str:
    # The prefix keeps readers that parse values as JSON from taking the secret for a number.
    return "sandbox-" + secrets.token_urlsafe(24)


@dataclass(frozen=True)
class SandboxConfig:
    """What one sandbox knows and does; wrong values are a ValueError that says which.

    The switches are what the contract leaves open, and what standard servers do differently
    (docs/protocol.md section 1 and "What standard servers do besides").

    - ``client_id``, ``client_secret``, ``redirect_uris``: the one registered client.
    - ``echo_state``: whether ``state`` comes back.
    - ``code_position``: where the answer goes in a redirect_uri with a fragment: at its very
      ``"end"``, or as a ``"query"`` before the fragment.
    - ``token_lifetime``: seconds that an access token lasts, 1 to 3600.
    - ``rotate_refresh_tokens``: each refresh brings a new refresh token; the old one used again
      revokes everything of its sign-in.
    - ``issuer``: ``iss`` comes with every way back.
    - ``validity_path``, ``validity_field``, ``validity_key``: section 5's unknowns.
    """

    client_id: str = CLIENT_ID
    client_secret: str = field(default_factory=_new_client_secret, repr=False)
    redirect_uris: tuple[str, ...] = REDIRECT_URIS
    echo_state: bool = True
    code_position: Literal["end", "query"] = "end"
    token_lifetime: int = 3600
    rotate_refresh_tokens: bool = False
    issuer: bool = False
    validity_path: str = "/sso/oauth2/checkUsers"
    validity_field: str = "users"
    validity_key: Literal["uid", "username"] = "uid"

    def __post_init__(self) -> None:
        if not self.client_id or not self.client_secret:
            raise ValueError("The client id and the client secret must not be empty.")
        if not self.redirect_uris:
            raise ValueError("At least one redirect URI is needed.")
        for uri in self.redirect_uris:
            parts = urlsplit(uri)
            if parts.scheme not in ("http", "https") or not parts.netloc:
                raise ValueError(f"The redirect URI {uri!r} is not an absolute http(s) URL.")
            if not uri.isprintable() or " " in uri:
                raise ValueError(f"The redirect URI {uri!r} holds a space or a control character.")
        if self.code_position not in ("end", "query"):
            raise ValueError("The code's position is either 'end' or 'query'.")
        if not 1 <= self.token_lifetime <= 3600:
            raise ValueError("The token lifetime is 1 to 3600 seconds.")
        if not re.fullmatch(r"/[\w./-]*", self.validity_path, re.ASCII):
            raise ValueError("The validity path is a plain path that starts with a slash.")
        if self.validity_key not in ("uid", "username"):
            raise ValueError("The validity key is either 'uid' or 'username'.")
