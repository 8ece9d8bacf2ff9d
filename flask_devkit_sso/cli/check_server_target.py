"""The server that ``check-server`` tests, and where its findings go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..protocol.client import Client
from ..protocol.error_codes import INVALID_CODE
from ..protocol.server import Server
from ..protocol.transport import Transport
from .check_server_checks import GET_TOKEN
from .check_server_report import Report

MADE_UP: Final = "made-up-by-check-server"

DOCTOR_HINT: Final = (
    "Check that the server is running. `flask devkit-sso doctor` finds out why it cannot be reached"
)


@dataclass(frozen=True)
class Target:
    """The server under test.

    :ivar redirect_uri: the registered one.
    """

    found: Report
    server: Server
    redirect_uri: str
    transport: Transport
    client: Client

    def check_refusal(
        self, subject: str, check: str, what: str, code: str | None, expected: str
    ) -> None:
        """Check the code with which the server refused something; None means no code."""
        if code == expected:
            self.found.ok(subject, check, f"refuses {what} with {expected}")
        elif code == INVALID_CODE and subject == GET_TOKEN:
            self.found.note(
                subject,
                check,
                f"refuses {what} with {code}, not {expected}: the code may be used up",
            )
        else:
            text = f"refuses {what} with {code}" if code else f"returns no envelope for {what}"
            self.found.error(subject, check, text, f"Return {expected}")
