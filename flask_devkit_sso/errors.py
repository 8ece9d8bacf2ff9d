"""Everything that this package raises.

::

    SSOError
    ├── ConfigError            what is configured or written in code is wrong
    ├── LoginRefused           raised by an application's ``on_login`` function
    ├── LoginFailed            HTTP, status by reason
    ├── ServerError            HTTP 502, the server's answer is an error or makes no sense
    ├── ServerUnavailable      HTTP 503, no answer from the server
    └── StoreUnavailable       the session store does not answer (seen as LoginFailed)

No text in an error comes from the other side of a wire, so none can carry a secret.
"""

from __future__ import annotations

import secrets
from typing import Final

from werkzeug.exceptions import BadGateway, HTTPException, ServiceUnavailable

REASONS: Final[dict[str, int]] = {
    "login_expired": 400,
    "login_unknown": 400,
    "cookie_missing": 400,
    "state_missing": 400,
    "state_mismatch": 400,
    "code_missing": 400,
    "denied": 403,
    "authorize_error": 502,
    "server_rejected": 502,
    "server_unavailable": 503,
    "server_answer_invalid": 502,
    "refused": 403,
    "cross_site": 403,
    "not_configured": 503,
    "store_unavailable": 503,
}
"""Each reason a login can fail for, with the HTTP status of its answer."""


RETRY_AFTER: Final = 5
"""Seconds until it is worth to ask again for what the server or the store could not do now."""


class SSOError(Exception):
    """Root of all errors of this package."""


class ConfigError(SSOError):
    """A setting, or the way in which the extension is used, is wrong; the text says what to do."""


class LoginRefused(SSOError):
    """Raise it in an ``on_login`` function to refuse a login.

    :param why: shown to the person who tried to sign in.
    """

    def __init__(self, why: str = "") -> None:
        super().__init__(why)
        self.why = why


class LoginFailed(SSOError, HTTPException):
    """A login, or a request of the extension's own routes, could not be completed.

    :param reason: one of :data:`REASONS`.
    :param message: what the person is told beside the standard text for this reason.
    :param hint: how a developer or operator mends it; goes to the log, and to the page in debug.

    ``code`` is the HTTP status of ``reason``; ``reference`` is a short random text that stands on
    the page and in the log alike; ``next`` is the page that the login would have led to, where that
    is known. The cause, where there is one, is ``__cause__``.
    """

    next: str | None = None

    def __init__(self, reason: str, message: str = "", hint: str = "") -> None:
        super().__init__(message or f"The sign-in failed: {reason}.")
        self.reason = reason
        self.code = REASONS[reason]
        self.message = message
        self.hint = hint
        self.reference = secrets.token_hex(4)


class ServerError(SSOError, BadGateway):
    """The authentication server answered with an error, or with something unintelligible.

    ``server_code`` is the envelope's code (docs/protocol.md, "Common to all"), or None when the
    answer was not an envelope that the contract describes. ``reason`` is the one for which a login
    fails by it.
    """

    def __init__(self, message: str, server_code: str | None = None) -> None:
        super().__init__(message)
        self.server_code = server_code
        self.reason = "server_rejected" if server_code else "server_answer_invalid"


class ServerUnavailable(SSOError, ServiceUnavailable):
    """The authentication server could not be reached, or did not answer in time."""

    reason = "server_unavailable"

    def __init__(self, message: str) -> None:
        super().__init__(message, retry_after=RETRY_AFTER)


class StoreUnavailable(SSOError):
    """The session store cannot be used now: locked, full, damaged, out of reach."""
