"""The server that ``check-server`` tests, and where its findings go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from ..errors import ServerError, ServerUnavailable
from ..protocol.client import Client
from ..protocol.error_codes import INVALID_CODE
from ..protocol.server import Server
from ..protocol.transport import Transport
from .check_server_checks import GET_TOKEN
from .check_server_report import Report
from .findings import describe_error

T = TypeVar("T")

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

    def expect_refusal(
        self, subject: str, check: str, what: str, expected: str, call: Callable[[], T]
    ) -> T | None:
        """Make a call that the server should refuse.

        :param what: what it should refuse, for the report.
        :param expected: the code with which it should do so.
        :return: what the call returned, or None if the server refused it or did not respond
            properly, which has been reported.
        """
        try:
            return call()
        except ServerError as error:
            self.check_refusal(subject, check, what, error.server_code, expected)
        except ServerUnavailable as error:
            self.found.error(subject, check, describe_error(error))
        return None

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
