"""Sends each POST interface requests that it has to refuse (docs/protocol.md, sections 2 to 6)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..errors import ServerError, ServerUnavailable
from ..protocol import contract
from ..protocol.contract import RawResponse
from ..protocol.envelope import NotAnEnvelope, parse_envelope
from ..protocol.error_codes import SUCCESS, invalid, missing
from .check_server_checks import GET_TOKEN, GET_USER_INFO, LOGOUT, REFRESH_TOKEN, VALIDITY
from .check_server_report import Report
from .check_server_target import DOCTOR_HINT, MADE_UP, Target
from .findings import describe_error


@dataclass(frozen=True)
class _Interface:
    """A POST interface, with a request in which one parameter is made up."""

    subject: str
    url: str
    parameters: Mapping[str, str] = field(repr=False)
    made_up: str
    rest: Mapping[str, object] = field(default_factory=dict)
    """What the request contains as well, for which the protocol has no error code."""

    @property
    def name(self) -> str:
        return self.subject.partition(" ")[2]


@dataclass(frozen=True)
class _Refusal:
    """A request with one more fault, and the error code for that fault."""

    fault: str
    expected: str
    parameters: Mapping[str, str] = field(repr=False)


class _NoEnvelope(Exception):
    """The interface returned no envelope. The reason has been reported."""

    def __init__(self, *, is_unreachable: bool = False) -> None:
        super().__init__()
        self.is_unreachable = is_unreachable


def check_refusals(target: Target) -> bool:
    """Check each interface.

    :return: whether getToken responds at all.
    """
    is_reached = True
    for interface in _interfaces(target):
        try:
            responses = _check_codes(target, interface)
            _check_envelopes(target.found, interface, responses)
        except _NoEnvelope as error:
            if interface.subject == GET_TOKEN and error.is_unreachable:
                is_reached = False
    return is_reached


def _interfaces(target: Target) -> Iterator[_Interface]:
    server = target.server
    client = {"client_id": server.client_id}
    token = client | {
        "grant_type": "authorization_code",
        "client_secret": server.client_secret,
        "authorization_code": MADE_UP,
        "redirect_uri": target.redirect_uri,
    }
    access = client | {"access_token": MADE_UP}
    refresh = client | {"refresh_token": MADE_UP}
    yield _Interface(GET_TOKEN, server.token_url, token, "authorization_code")
    yield _Interface(GET_USER_INFO, server.user_info_url, access, "access_token")
    yield _Interface(REFRESH_TOKEN, server.refresh_url, refresh, "refresh_token")
    if server.validity is not None:
        url, users = server.validity.url, {server.validity.field: [MADE_UP]}
        yield _Interface(VALIDITY, url, access, "access_token", users)
    yield _Interface(LOGOUT, server.logout_url, access, "access_token")


def _refusals(interface: _Interface) -> Iterator[_Refusal]:
    parameters = interface.parameters
    for name in parameters:
        others = {other: value for other, value in parameters.items() if other != name}
        yield _Refusal(f"{name} is missing", missing(name), others)
    for name in parameters:
        yield _Refusal(f"{name} is invalid", invalid(name), {**parameters, name: MADE_UP})


def _check_codes(target: Target, interface: _Interface) -> list[RawResponse]:
    """Send the requests, check the codes, and return the responses.

    :raises _NoEnvelope: if one is not an envelope.
    """
    found, subject = target.found, interface.subject
    right, responses = [], []
    # The made-up parameter is a fault of every request, and a server may report it first.
    other = invalid(interface.made_up)
    for refusal in _refusals(interface):
        response = _post(target, interface, refusal.parameters)
        responses.append(response)
        fault, expected, code = (
            refusal.fault,
            refusal.expected,
            _read_code(found, subject, response),
        )
        if code == expected:
            right.append(code)
        elif code == SUCCESS and subject == LOGOUT and expected == other:
            found.note(
                subject,
                "error_codes",
                "reports success for a made-up token, so success proves nothing",
            )
        elif code == SUCCESS:
            found.error(subject, "error_codes", f"reports success if {fault}", f"Return {expected}")
        elif code == other:
            found.note(
                subject, "error_codes", f"{code} instead of {expected} if {fault}; both are allowed"
            )
        else:
            found.error(subject, "error_codes", f"{code} if {fault}", f"Return {expected}")
    if right:
        found.ok(subject, "error_codes", f"returns {', '.join(right)} as required")
    return responses


def _post(target: Target, interface: _Interface, parameters: Mapping[str, str]) -> RawResponse:
    try:
        body = json.dumps({**parameters, **interface.rest}).encode()
        return target.transport.post(interface.url, body)
    except (ServerUnavailable, ServerError) as error:
        target.found.error(interface.subject, "error_codes", describe_error(error), DOCTOR_HINT)
        is_unreachable = isinstance(error, ServerUnavailable)
        raise _NoEnvelope(is_unreachable=is_unreachable) from None


def _read_code(found: Report, subject: str, response: RawResponse) -> str:
    """Return the code of an envelope. Success with an HTTP error status is printed as an error, but
    counts as success."""
    try:
        contract.envelope_data(response, subject.partition(" ")[2])
    except (ServerUnavailable, ServerError) as error:
        code: str | None = getattr(error, "server_code", None)
        if code is not None:
            return code
        if not _reports_success(response.body):
            found.error(
                subject,
                "error_codes",
                describe_error(error),
                "Return an envelope for every request",
            )
            raise _NoEnvelope from None
        found.error(
            subject,
            "error_codes",
            describe_error(error),
            "Report success with HTTP 200 and a data object",
        )
    return SUCCESS


def _reports_success(body: bytes) -> bool:
    try:
        return parse_envelope(body).get("code") in (SUCCESS, int(SUCCESS))
    except NotAnEnvelope:
        return False


def _check_envelopes(found: Report, interface: _Interface, responses: list[RawResponse]) -> None:
    """Print what is wrong with the envelopes ("Common to all"), each error once."""
    errors, notes = set(), set()
    for response in responses:
        envelope = parse_envelope(response.body)
        if not isinstance(envelope.get("code"), str):
            errors.add("code is not a string")
        if not isinstance(envelope.get("message"), str):
            errors.add("message is not a string")
        if envelope.get("data") is None:
            notes.add("an error response has no data")
        elif not isinstance(envelope["data"], dict):
            errors.add("data is not an object")
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            notes.add("Content-Type is not application/json")
    for text in sorted(errors):
        found.error(
            interface.subject,
            "envelope",
            f"envelope: {text}",
            'Return {"code": "…", "message": "…", "data": {}}',
        )
    statuses = sorted({response.status for response in responses})
    notes.add(f"HTTP status of error responses: {', '.join(map(str, statuses))}")
    for text in sorted(notes):
        found.note(interface.subject, "envelope", text)
