"""What a client knows of the authentication server."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Validity:
    """How the server is asked whether a user is valid (docs/protocol.md section 5)."""

    url: str
    field: str
    key: str


@dataclass(frozen=True, kw_only=True)
class Server:
    """What is known of the authentication server, and of us there; complete but for
    ``validity``, which is None where nobody has told how to ask."""

    client_id: str
    client_secret: str = field(repr=False)
    authorize_url: str
    token_url: str
    user_info_url: str
    refresh_url: str
    logout_url: str
    validity: Validity | None
