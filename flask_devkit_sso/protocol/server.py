"""What a client has to know about the authentication server."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Validity:
    """How to ask whether users are valid (docs/protocol.md section 5)."""

    url: str
    field: str
    key: str


@dataclass(frozen=True, kw_only=True)
class Server:
    """The authentication server's URLs and this client's credentials there.

    ``validity`` is None unless it is configured. The other fields always have a value.
    """

    client_id: str
    client_secret: str = field(repr=False)
    authorize_url: str
    token_url: str
    user_info_url: str
    refresh_url: str
    logout_url: str
    validity: Validity | None
