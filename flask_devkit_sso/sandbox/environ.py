"""What the HTTP server and the application tell each other, in the WSGI environ."""

from __future__ import annotations

from flask import request

CONNECTION = "flask_devkit_sso.sandbox.connection"
"""The number of the TCP connection that the request arrived on."""

TRANSPORT_FAULTS = "flask_devkit_sso.sandbox.transport_faults"
"""A list to which the application adds the faults that only the HTTP server can produce."""

CLOSE, SLOW, SLOW_HEADERS = "close", "slow", "slow-headers"


def connection_number() -> int:
    """Return the number of the current request's connection; 0 behind another HTTP server."""
    number: int = request.environ.get(CONNECTION, 0)
    return number


def add_transport_fault(fault: str) -> None:
    """Have the HTTP server send the current response in a faulty way.

    Other HTTP servers than the sandbox's ignore it.
    """
    request.environ.setdefault(TRANSPORT_FAULTS, []).append(fault)
