"""Failing on purpose, so that clients can be tested against it."""

from __future__ import annotations

import re
from collections.abc import Callable

from flask import Response, redirect, request, url_for

from .envelope import SUCCESS, envelope
from .state import the_state

INTERFACES = ("authorize", "getToken", "getUserInfo", "refreshToken", "logout", "validity")

# RFC 6749 section 4.1.2.1
AUTHORIZE_ERRORS = (
    "invalid_request",
    "unauthorized_client",
    "access_denied",
    "unsupported_response_type",
    "invalid_scope",
    "server_error",
    "temporarily_unavailable",
)

# A key of the WSGI environ: a list, to which is added what only the HTTP server can do.
TRANSPORT = "flask_devkit_sso.sandbox.transport"
CLOSE, SLOW, SLOW_HEADERS = "close", "slow", "slow-headers"

HUGE = 2 * 1024 * 1024
HANG_SECONDS = 60

_INSTEAD = re.compile(r"\d{4}|garbage|empty|redirect")
_SPOILED = re.compile(r"http[45]\d\d|huge|hang|close|slow|slow-headers")


def is_known(interface: str, how: str) -> bool:
    """Tell whether an interface can be made to fail in a way."""
    if interface == "authorize" and how in AUTHORIZE_ERRORS:
        return True
    return bool(_INSTEAD.fullmatch(how) or _SPOILED.fullmatch(how))


def ways(interface: str) -> str:
    """Name the ways in which an interface can be made to fail."""
    names = ["four digits", "empty", "garbage", "redirect", "http500 or another 4xx or 5xx"]
    names += ["huge", "slow", "slow-headers", "close", "hang"]
    return ", ".join(names + [*AUTHORIZE_ERRORS] * (interface == "authorize"))


def spoil(how: str | None, right: Callable[[], Response]) -> Response:
    """Answer the current request in a wrong way; None: in the right way.

    Instead of the right answer, which is not even worked out:

    - four digits: an envelope with this code;
    - ``empty``: an envelope of success whose ``data`` is empty;
    - ``garbage``: HTTP 200 with text/html that is no answer;
    - ``redirect``: HTTP 302 to somewhere else on the sandbox, which records that it was called.

    With the right answer, whose effects happen (a code is used up, tokens are issued):

    - ``http500``, or another 4xx or 5xx: under this HTTP status;
    - ``huge``: with 2 MiB of white space behind it;
    - ``slow``: its body, ``slow-headers``: all of it, one byte every 0.2 seconds;
    - ``close``: the connection is closed instead of answering;
    - ``hang``: the same after 60 seconds, or when the sandbox stops.
    """
    if how is not None and _INSTEAD.fullmatch(how):
        return _instead(how)
    response = right()
    if how is None:
        return response
    if how.startswith("http"):
        response.status_code = int(how.removeprefix("http"))
    elif how == "huge":
        response.set_data(response.get_data() + b" " * HUGE)
    elif how == "hang":
        the_state().stopping.wait(HANG_SECONDS)
        ask_server(CLOSE)
    elif _SPOILED.fullmatch(how):
        ask_server(how)
    return response


def ask_server(what: str) -> None:
    """Ask the HTTP server to treat the answer to the current request in a way of its own."""
    # Another server than the sandbox's gives no list, and does nothing of it.
    request.environ.setdefault(TRANSPORT, []).append(what)


def _instead(how: str) -> Response:
    if how == "garbage":
        return Response("<html>\x00<p>}{ 502 Bad Gateway &", mimetype="text/html")
    if how == "redirect":
        response = redirect(url_for("control.elsewhere"), 302)
        assert isinstance(response, Response)  # noqa: S101 - for the type checker
        return response
    return envelope(SUCCESS if how == "empty" else how)
