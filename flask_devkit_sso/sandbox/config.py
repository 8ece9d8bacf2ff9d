"""The configuration of a sandbox."""

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
    # What an application on loopback uses if it is not configured.
    "http://127.0.0.1:5000/sso/callback",
    "http://localhost:5000/sso/callback",
)


def new_client_secret() -> str:
    """Return a random client secret."""
    # from_prefixed_env parses values as JSON; the prefix keeps it from reading a number.
    return "sandbox-" + secrets.token_urlsafe(24)


@dataclass(frozen=True)
class SandboxConfig:
    """The configuration of one sandbox.

    The options cover what the contract leaves open, and what standard servers do differently
    (docs/protocol.md).

    :param client_id: of the one registered client, like the next two.
    :param client_secret: random by default.
    :param redirect_uris: compared byte for byte.
    :param echo_state: whether the authorization response contains ``state``.
    :param code_position: where the authorization response goes in a redirect URI with a fragment:
        ``"end"``, or ``"query"`` for before the fragment.
    :param token_lifetime: of access tokens, 1 to 3600 seconds.
    :param rotate_refresh_tokens: whether each refresh returns a new refresh token. Using an old one
        again then ends the sign-in.
    :param issuer: whether the authorization response contains ``iss`` (RFC 9207).
    :param validity_path: of the user validity interface, which the contract does not define.
    :param validity_field: the name of its list of users.
    :param validity_key: what is in that list: ``"uid"`` or ``"username"``.
    :raises ValueError: if a value is not valid; says which.
    """

    client_id: str = CLIENT_ID
    client_secret: str = field(default_factory=new_client_secret, repr=False)
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
        if not (self.client_id + self.client_secret).isprintable():
            raise ValueError("The client id or the client secret contains a control character.")
        if not self.redirect_uris:
            raise ValueError("Give at least one redirect URI.")
        for uri in self.redirect_uris:
            parts = urlsplit(uri)
            if parts.scheme not in ("http", "https") or not parts.netloc:
                raise ValueError(f"The redirect URI {uri!r} is not an absolute http(s) URL.")
            if not uri.isprintable() or " " in uri:
                raise ValueError(
                    f"The redirect URI {uri!r} contains a space or a control character."
                )
        if self.code_position not in ("end", "query"):
            raise ValueError("The code position must be 'end' or 'query'.")
        if not 1 <= self.token_lifetime <= 3600:
            raise ValueError("The token lifetime must be 1 to 3600 seconds.")
        if not re.fullmatch(r"/[\w./-]*", self.validity_path, re.ASCII):
            raise ValueError(
                "The validity path must start with a slash and have only letters, digits and ./_-."
            )
        if self.validity_key not in ("uid", "username"):
            raise ValueError("The validity key must be 'uid' or 'username'.")
