"""The wire contract, without I/O: builds requests and validates responses.

The sections named here are those of docs/protocol.md. A validated response has its own type, so
that nothing unchecked is mistaken for a token.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from email.message import Message
from typing import Any, Final, Literal

from ..errors import ServerError, ServerUnavailable
from .envelope import NOT_AN_ENVELOPE, NotAnEnvelope, parse_envelope
from .error_codes import SUCCESS, explain

INTERFACE_PATHS: Final = {
    "authorize_url": "/sso/oauth2/authorize",
    "token_url": "/sso/oauth2/getToken",
    "user_info_url": "/sso/oauth2/getUserInfo",
    "refresh_url": "/sso/oauth2/refreshToken",
    "logout_url": "/sso/oauth2/logout",
}
"""Paths below the server URL. Each URL can also be set individually ("Common to all")."""

MAX_EXPIRES_IN: Final = 3600
"""The longest lifetime of an access token, in seconds (section 2)."""

REFRESH_MARGIN: Final = 30.0
"""An access token is refreshed this many seconds before it expires. A short-lived token is
refreshed in the last quarter of its lifetime."""

MAX_NAME: Final = 512
"""Maximum length of ``uid`` and ``username``, in characters. They become part of keys in the store
and of lines in the log."""

MAX_TOKEN: Final = 64 * 1024
"""Maximum length of a token, in characters."""

_UNSAFE_IN_NAME: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line and paragraph separators, and half surrogate pairs. The controls that
reverse the direction of text are among them, because they can make a line in a log read
differently. Joiners and direction marks are not, because names in some scripts need them."""

_CODE: Final = re.compile(r"[0-9]{4}")
"""A code of the server's, of which error_codes.py knows some."""

_TOKEN: Final = re.compile(r"[ -~]+")
"""A token (RFC 6749 appendices A.12 and A.17)."""

Role = Literal["Admin", "User"]
ROLES: Final = ("Admin", "User")


@dataclass(frozen=True)
class RawResponse:
    """An HTTP response that has not been validated. ``url`` is the requested URL without its
    query."""

    status: int
    body: bytes = field(repr=False)
    headers: Message = field(default_factory=Message, repr=False)
    url: str = ""


@dataclass(frozen=True)
class Tokens:
    """The content of a validated token response (sections 2 and 4).

    ``requested_at`` is the Unix time at which the request was sent. The lifetime counts from then.
    ``expires_in`` is in seconds, from 1 to 3600.

    Stored sessions, pending logouts and login results contain these fields. If one of them changes
    or a new one is indispensable, raise ``RECORD_VERSION`` in session/sessions.py and
    session/logouts.py.
    """

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    requested_at: float
    expires_in: int

    @property
    def expires_at(self) -> float:
        """The Unix time at which the access token expires."""
        return self.requested_at + self.expires_in

    @property
    def refresh_at(self) -> float:
        """The Unix time from which the access token should be refreshed."""
        return self.expires_at - min(REFRESH_MARGIN, self.expires_in / 4)

    def refreshed_by(self, new: Tokens) -> Tokens:
        """Return the tokens after a refresh: the old refresh token stays unless a new one arrives
        (section 4)."""
        return replace(new, refresh_token=new.refresh_token or self.refresh_token)


@dataclass(frozen=True)
class UserInfo:
    """The content of a validated response of getUserInfo (section 3)."""

    uid: str
    username: str
    role: Role | None


def token_request(
    *,
    client_id: str,
    client_secret: str,
    code: str,
    redirect_uri: str,
    code_verifier: str | None = None,
) -> bytes:
    """Return the JSON body of getToken (section 2): all five fields, and the PKCE verifier."""
    fields = {
        "client_id": client_id,
        "grant_type": "authorization_code",
        "client_secret": client_secret,
        "authorization_code": code,
        "redirect_uri": redirect_uri,
    }
    if code_verifier is not None:
        fields["code_verifier"] = code_verifier
    return json.dumps(fields).encode()


def access_token_request(*, client_id: str, access_token: str) -> bytes:
    """Return the JSON body of getUserInfo and of logout (sections 3 and 6)."""
    return json.dumps({"client_id": client_id, "access_token": access_token}).encode()


def refresh_request(*, client_id: str, refresh_token: str) -> bytes:
    """Return the JSON body of refreshToken (section 4), without secret and grant_type."""
    return json.dumps({"client_id": client_id, "refresh_token": refresh_token}).encode()


def validity_request(*, client_id: str, access_token: str, field: str, user: str) -> bytes:
    """Return the JSON body of a user validity request for one user (section 5)."""
    body: dict[str, Any] = {"client_id": client_id, "access_token": access_token}
    return json.dumps(body | {field: [user]}).encode()


def envelope_data(response: RawResponse, interface: str) -> dict[str, Any]:
    """Validate an envelope ("Common to all") and return its ``data``, or ``{}`` if it has none.

    Only the code ``"2000"`` (or the integer) under a 2xx status is a success.

    :param interface: the name that an error message uses.
    :raises ServerError: for an error code, and for a body that is not an envelope.
    :raises ServerUnavailable: for HTTP 502, 503 and 504 without an envelope, which a gateway sends.
    """
    envelope: dict[str, Any] = {}
    fault = NOT_AN_ENVELOPE
    try:
        envelope = parse_envelope(response.body)
    except NotAnEnvelope as error:
        fault = str(error)
    code = envelope.get("code")
    if type(code) is int:
        code = str(code)
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        if response.status in (502, 503, 504):
            raise ServerUnavailable(
                f"A gateway responded with HTTP {response.status} instead of the server."
            )
        # If the status is 5xx, the URL is probably right.
        is_elsewhere = fault == NOT_AN_ENVELOPE and response.status < 500
        fix = ": check the URL, including its path" if is_elsewhere else ""
        source = f"{interface} at {response.url} (HTTP {response.status})"
        raise ServerError(f"The response of {source} {fault}{fix}.")
    if code != SUCCESS:
        raise ServerError(f"The server returned {code}: {explain(code).meaning}.", code)
    if not 200 <= response.status <= 299:
        raise ServerError(f"The server reported success with HTTP status {response.status}.")
    data = envelope.get("data")
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ServerError("The data in the server's response is not an object.")
    return data


def token_response(response: RawResponse, requested_at: float) -> Tokens:
    """Validate a response of getToken (section 2).

    :param requested_at: the Unix time at which the request was sent.
    :raises ServerError, ServerUnavailable: as :func:`envelope_data`, and for an invalid field.
    """
    data = envelope_data(response, "getToken")
    access_token, refresh_token = _token(data, "access_token"), _token(data, "refresh_token")
    return Tokens(access_token, refresh_token, requested_at, _expires_in(data))


def refresh_response(response: RawResponse, requested_at: float) -> Tokens:
    """Validate a response of refreshToken (section 4), in which a refresh token is optional.

    :param requested_at: the Unix time at which the request was sent.
    :raises ServerError, ServerUnavailable: as :func:`token_response`.
    """
    data = envelope_data(response, "refreshToken")
    refresh_token = None
    if data.get("refresh_token") is not None:
        refresh_token = _token(data, "refresh_token")
    return Tokens(_token(data, "access_token"), refresh_token, requested_at, _expires_in(data))


def user_info(response: RawResponse) -> UserInfo:
    """Validate a response of getUserInfo (section 3). An unknown role becomes None.

    :raises ServerError, ServerUnavailable: as :func:`token_response`.
    """
    data = envelope_data(response, "getUserInfo")
    role = data.get("role")
    known: Role | None = "Admin" if role == "Admin" else "User" if role == "User" else None
    return UserInfo(_name(data, "uid"), _name(data, "username"), known)


def validity_response(response: RawResponse) -> bool:
    """Validate a user validity response about one user (section 5).

    :raises ServerError, ServerUnavailable: as :func:`envelope_data`, and if the response does not
        contain a list of exactly one boolean.
    """
    answers = envelope_data(response, "user validity").get("validation_list")
    if not isinstance(answers, list) or [type(answer) for answer in answers] != [bool]:
        raise ServerError("The server's response has no validation_list of one boolean.")
    return bool(answers[0])


def _token(data: dict[str, Any], name: str) -> str:
    """Return a required token."""
    value = _text(data, name, MAX_TOKEN)
    if not _TOKEN.fullmatch(value):
        raise ServerError(f"The {name} in the server's response is not printable ASCII.")
    return value


def _name(data: dict[str, Any], name: str) -> str:
    """Return a required name of a user, in any script."""
    value = _text(data, name, MAX_NAME)
    if _UNSAFE_IN_NAME.search(value):
        raise ServerError(f"The {name} in the server's response contains control characters.")
    return value


def _text(data: dict[str, Any], name: str, max_length: int) -> str:
    """Return a required string that is not blank."""
    value = data.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ServerError(f"The server's response has no usable {name}.")
    if len(value) > max_length:
        raise ServerError(
            f"The {name} in the server's response is longer than {max_length} characters."
        )
    return value


def _expires_in(data: dict[str, Any]) -> int:
    """Return ``expires_in``, sent as an integer or as ASCII digits. The default and maximum is an
    hour."""
    value = data.get("expires_in", MAX_EXPIRES_IN)
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,20}", value):
        value = int(value)
    if type(value) is not int or value <= 0:
        raise ServerError("The expires_in in the server's response is not a number of seconds.")
    return min(value, MAX_EXPIRES_IN)
