"""Every exception that this package raises.

::

    SSOError
    ├── ConfigError            a setting is invalid, or the extension is used incorrectly
    ├── LoginRefused           raised by an application's ``on_login`` function
    ├── LoginFailed            HTTP: a login failed; the status depends on the reason
    ├── ServerError            HTTP 502: the server returned an error or an invalid response
    ├── ServerUnavailable      HTTP 503: the server did not respond
    └── StoreUnavailable       the session store failed; the response is that of a LoginFailed

No text in an exception comes from the network, so none can contain a secret. Nor does an exception
lead to a frame whose local variables contain one.
"""

from __future__ import annotations

import secrets
import traceback
from pathlib import Path
from typing import Final, TypeVar

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
"""The reasons why a login can fail, each with the HTTP status of the response."""

RETRY_AFTER: Final = 5
"""Seconds after which a client should try again if the server or the store failed."""


E = TypeVar("E", bound=BaseException)


class SSOError(Exception):
    """Root of all errors of this package.

    ``uid`` is the account that the error is about, if the server has named one.
    """

    uid: str | None = None


class ConfigError(SSOError):
    """A setting is invalid, or the extension is used incorrectly. The text says how to fix it."""


class LoginRefused(SSOError):
    """Raise this in an ``on_login`` function to refuse a login.

    :param why: a text for the person who tried to sign in.
    """

    def __init__(self, why: str = "") -> None:
        super().__init__(why)
        self.why = why


class LoginFailed(SSOError, HTTPException):
    """A login, or a request for one of the extension's routes, failed.

    :param reason: one of :data:`REASONS`.
    :param message: a text for the person, which replaces the standard one for this reason.
    :param hint: how a developer or operator can fix it. It is logged, and shown on the page in
        debug mode.

    ``code`` is the HTTP status of ``reason``. ``reference`` is a short random text that appears
    both on the page and in the log. ``next`` is the page to return to after another login, if it is
    known. ``__cause__`` is the exception that caused it, if there is one.
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
    """The authentication server returned an error, or a response that is not valid.

    ``server_code`` is the envelope's code (docs/protocol.md, "Common to all"), or None if the
    response was not a valid envelope. ``reason`` is the reason of the :class:`LoginFailed` that it
    causes during a login.
    """

    def __init__(self, message: str, server_code: str | None = None) -> None:
        super().__init__(message)
        self.server_code = server_code
        self.reason = "server_rejected" if server_code else "server_answer_invalid"


class ServerUnavailable(SSOError, ServiceUnavailable):
    """The authentication server could not be reached, or did not respond in time."""

    reason = "server_unavailable"

    def __init__(self, message: str) -> None:
        super().__init__(message, retry_after=RETRY_AFTER)


class StoreUnavailable(SSOError):
    """The session store cannot be used now: it is locked, full, damaged or unreachable.

    ``text`` says what is wrong, and ``fix`` how an operator can fix it, if that is known. The
    exception's own text contains both.
    """

    def __init__(self, text: str, fix: str = "") -> None:
        super().__init__(f"{text}. {fix}." if fix else text)
        self.text = text
        self.fix = fix


def without_frames(error: E) -> E:
    """Return an error that leads to no frame: without its traceback, those of its causes, and the
    exceptions during which they were raised.

    Error trackers record the local variables of every frame, and those below our own contain
    requests with secrets. Raise it outside an ``except`` block, and in a function whose variables
    contain no secret.
    """
    found: BaseException | None = error
    while found is not None:
        found.__traceback__ = found.__context__ = None
        found = found.__cause__
    return error


def unexpected(error: Exception) -> ServerUnavailable:
    """Return what to raise for an error that nobody foresaw.

    It names the error's type and place, because the text may quote what the server sent.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    frame, line = frames[-1]
    place = f"{Path(frame.f_code.co_filename).name}, line {line}"
    return ServerUnavailable(
        f"A call to the server failed unexpectedly: {type(error).__name__} in {place}."
    )
