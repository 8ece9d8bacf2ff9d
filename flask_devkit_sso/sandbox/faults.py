"""Faults on purpose, so that clients can be tested against them."""

from __future__ import annotations

import re
from collections.abc import Callable

from flask import Response, redirect, url_for

from .envelope import SUCCESS, envelope
from .environ import CLOSE, add_transport_fault
from .state import current_state

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

HUGE = 2 * 1024 * 1024
"""Bytes."""
HANG_SECONDS = 60

_REPLACES_RESPONSE = re.compile(r"\d{4}|garbage|empty|redirect")
_SPOILS_RESPONSE = re.compile(r"http[45]\d\d|huge|hang|close|slow|slow-headers")


def is_fault(interface: str, fault: str) -> bool:
    """Return whether an interface can fail in this way."""
    if interface == "authorize" and fault in AUTHORIZE_ERRORS:
        return True
    return bool(_REPLACES_RESPONSE.fullmatch(fault) or _SPOILS_RESPONSE.fullmatch(fault))


def describe_faults(interface: str) -> str:
    """List the ways in which an interface can fail."""
    names = ["four digits", "empty", "garbage", "redirect", "http500 or another 4xx or 5xx"]
    names += ["huge", "slow", "slow-headers", "close", "hang"]
    return ", ".join(names + [*AUTHORIZE_ERRORS] * (interface == "authorize"))


def respond(fault: str | None, process: Callable[[], Response]) -> Response:
    """Return the response to the current request, with a fault if there is one.

    These faults replace the response; the request is not even processed:

    - four digits: an envelope with this code;
    - ``empty``: an envelope that reports success, but whose ``data`` is empty;
    - ``garbage``: HTTP 200 with text/html that means nothing;
    - ``redirect``: HTTP 302 to ``/_sandbox/elsewhere``, which records that it was called.

    With these, the request is processed (a code is used, tokens are issued) and the response is
    spoiled:

    - ``http500``, or another 4xx or 5xx: this HTTP status;
    - ``huge``: 2 MiB of white space after the body;
    - ``slow``, ``slow-headers``: the body, or the whole response, at one byte every 0.2 seconds;
    - ``close``: the connection is closed instead;
    - ``hang``: the same after 60 seconds, or when the sandbox stops.

    :param process: processes the request and returns its response.
    """
    if fault is not None and _REPLACES_RESPONSE.fullmatch(fault):
        return _replacement(fault)
    response = process()
    if fault is None:
        return response
    if fault.startswith("http"):
        response.status_code = int(fault.removeprefix("http"))
    elif fault == "huge":
        response.set_data(response.get_data() + b" " * HUGE)
    elif fault == "hang":
        current_state().stopping.wait(HANG_SECONDS)
        add_transport_fault(CLOSE)
    elif _SPOILS_RESPONSE.fullmatch(fault):
        add_transport_fault(fault)
    return response


def _replacement(fault: str) -> Response:
    if fault == "garbage":
        return Response("<html>\x00<p>}{ 502 Bad Gateway &", mimetype="text/html")
    if fault == "redirect":
        response = redirect(url_for("control.elsewhere"), 302)
        assert isinstance(response, Response)  # noqa: S101 - for the type checker
        return response
    return envelope(SUCCESS if fault == "empty" else fault)
