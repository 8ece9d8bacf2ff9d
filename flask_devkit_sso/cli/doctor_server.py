"""The checks of ``doctor`` at the server: how it refuses a made-up code or token, and its clock."""

from __future__ import annotations

import time
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

from ..config.settings import PREFIX
from ..errors import ServerError, ServerUnavailable
from ..protocol import contract
from ..protocol.error_codes import (
    INVALID_ACCESS_TOKEN,
    INVALID_CODE,
    INVALID_REFRESH_TOKEN,
    SUCCESS,
    explain,
    is_about_parameter,
)
from ..protocol.server import Server
from ..protocol.transport import Transport
from .doctor_network import SHOW_HINT
from .findings import Findings, describe_error

CLOCK_TOLERANCE: Final = 60.0
"""Seconds by which the two clocks may differ."""

_MADE_UP: Final = "made-up-by-doctor"
_VALIDITY: Final = "user validity"


@dataclass(frozen=True)
class _Probe:
    """A request that the server has to refuse, and the codes that are right."""

    interface: str
    url: str
    body: bytes = field(repr=False)
    made_up: str
    expected: tuple[str, ...]


def check_interfaces(
    found: Findings,
    transport: Transport,
    server: Server,
    redirect_uri: str | None,
    reached: Container[tuple[str, str]],
) -> None:
    """Send each interface a request, if its scheme and host were reached."""
    codes = {
        _check_interface(found, transport, probe)
        for probe in _probes(server, redirect_uri or "http://localhost/")
        if urlsplit(probe.url)[:2] in reached
    }
    # One interface may misreport a made-up token. If no interface refuses one, none works.
    unexpected = sorted(code for code in codes if code and code != SUCCESS)
    if unexpected and not any(map(is_about_parameter, unexpected)):
        found.error(
            "server",
            f"no interface refuses a made-up code or token as it has to ({', '.join(unexpected)}), "
            "so nobody can sign in",
            "Read the server's log, or ask the people who run it",
        )


def _probes(server: Server, redirect_uri: str) -> Iterator[_Probe]:
    client_id = server.client_id
    token = contract.token_request(
        client_id=client_id,
        client_secret=server.client_secret,
        code=_MADE_UP,
        redirect_uri=redirect_uri,
    )
    access = contract.access_token_request(client_id=client_id, access_token=_MADE_UP)
    refresh = contract.refresh_request(client_id=client_id, refresh_token=_MADE_UP)
    yield _Probe("getToken", server.token_url, token, "code", (INVALID_CODE,))
    yield _Probe("getUserInfo", server.user_info_url, access, "token", (INVALID_ACCESS_TOKEN,))
    yield _Probe("refreshToken", server.refresh_url, refresh, "token", (INVALID_REFRESH_TOKEN,))
    # Some servers report success for every logout (docs/protocol.md, "What standard servers also
    # do").
    expected = (INVALID_ACCESS_TOKEN, SUCCESS)
    yield _Probe("logout", server.logout_url, access, "token", expected)
    if server.validity is not None:
        validity = contract.validity_request(
            client_id=client_id, access_token=_MADE_UP, field=server.validity.field, user=_MADE_UP
        )
        yield _Probe(_VALIDITY, server.validity.url, validity, "token", (INVALID_ACCESS_TOKEN,))


def _check_interface(found: Findings, transport: Transport, probe: _Probe) -> str | None:
    """Return the code of the response, or None without an envelope."""
    sent = time.time()
    try:
        response = transport.post(probe.url, probe.body)
    except (ServerUnavailable, ServerError) as error:
        found.error(
            probe.interface,
            describe_error(error),
            f"Check {probe.url}, its scheme and port too. If it is right, read the server's log",
        )
        return None
    middle = (sent + time.time()) / 2
    try:
        contract.envelope_data(response, probe.interface)
        code = SUCCESS
    except (ServerUnavailable, ServerError) as error:
        refusal: str | None = getattr(error, "server_code", None)
        if refusal is None:
            found.error(
                probe.interface,
                describe_error(error),
                f"Check that {probe.url} belongs to the authentication server. {SHOW_HINT}",
            )
            return None
        code = refusal
    _check_code(found, probe, code)
    if probe.interface == "getToken":
        _check_clock(found, response.headers.get("Date"), middle)
    return code


def _check_code(found: Findings, probe: _Probe, code: str) -> None:
    if code in probe.expected:
        found.ok(probe.interface, f"right response to a made-up {probe.made_up} ({code})")
        if code == INVALID_CODE:
            found.note(
                "not checked",
                "the client secret, if the server checks the code first: sign in to find out, or "
                "run `flask devkit-sso check-server`",
            )
        elif probe.interface == _VALIDITY:
            found.note(
                "not checked",
                f"{PREFIX}VALIDITY_FIELD and {PREFIX}VALIDITY_KEY, if the server checks the token "
                "first: sign in to find out",
            )
    elif code == SUCCESS:
        found.error(
            probe.interface,
            f"reports success for a made-up {probe.made_up}",
            "Do not use this server before it refuses made-up codes and tokens",
        )
    elif explain(code).fix:
        found.error(probe.interface, f"{code}: {explain(code).meaning}", explain(code).fix)
    else:
        fix = "Run `flask devkit-sso check-server` for details"
        if probe.interface == _VALIDITY:
            fix = f"Check {PREFIX}VALIDITY_URL and {PREFIX}VALIDITY_FIELD. {fix}"
        found.warning(
            probe.interface,
            f"{code} instead of {' or '.join(sorted(probe.expected))}: {explain(code).meaning}",
            fix,
        )


def _check_clock(found: Findings, date: str | None, here: float) -> None:
    """Compare the server's ``Date`` header with the local time at which it was created."""
    try:
        there = parsedate_to_datetime(date or "").timestamp()
    except (ValueError, OverflowError):
        found.ok("clock", "not checked, because the server sends no valid Date header")
        return
    # The header is in whole seconds.
    difference = here - there - 0.5
    if abs(difference) > CLOCK_TOLERANCE:
        found.warning(
            "clock",
            f"{abs(difference):.0f} seconds {'ahead of' if difference > 0 else 'behind'} the "
            "server's",
            "Synchronise the clocks of both machines by NTP",
        )
    else:
        found.ok("clock", "differs from the server's by less than a minute")
