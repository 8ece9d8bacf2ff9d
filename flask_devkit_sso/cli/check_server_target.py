"""The server that ``check-server`` tests, and where its findings go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..protocol.client import Client
from ..protocol.error_codes import INVALID_CODE
from ..protocol.server import Server
from ..protocol.transport import Transport
from .findings import Findings

# The subjects of findings, with the section of docs/protocol.md.
AUTHORIZE: Final = "1. authorize"
GET_TOKEN: Final = "2. getToken"  # noqa: S105
GET_USER_INFO: Final = "3. getUserInfo"
REFRESH_TOKEN: Final = "4. refreshToken"  # noqa: S105
VALIDITY: Final = "5. user validity"
LOGOUT: Final = "6. logout"

MADE_UP: Final = "made-up-by-check-server"

DOCTOR_HINT: Final = "Run `flask devkit-sso doctor` for details"


@dataclass(frozen=True)
class Target:
    """The server under test.

    :ivar redirect_uri: the registered one.
    """

    found: Findings
    server: Server
    redirect_uri: str
    transport: Transport
    client: Client

    def check_refusal(self, subject: str, what: str, code: str | None, expected: str) -> None:
        """Check the code with which the server refused something; None means no code."""
        if code == expected:
            self.found.ok(subject, f"refuses {what} with {expected}")
        elif code == INVALID_CODE and subject == GET_TOKEN:
            self.found.note(
                subject, f"refuses {what} with {code}, not {expected}: the code may be used up"
            )
        else:
            refusal = code or "no envelope"
            self.found.error(subject, f"refuses {what} with {refusal}", f"Return {expected}")
