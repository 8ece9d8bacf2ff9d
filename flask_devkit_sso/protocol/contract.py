"""The wire contract, pure: builds what is sent and judges what comes back.

No Flask and no I/O here. docs/protocol.md describes the wire; the sections named below are its.
What has passed a judge has a type of its own, so nothing unjudged is ever mistaken for a token.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import urlencode, urlsplit, urlunsplit

from ..errors import ServerError, ServerUnavailable

INTERFACE_PATHS: Final = {
    "authorize_url": "/sso/oauth2/authorize",
    "token_url": "/sso/oauth2/getToken",
    "user_info_url": "/sso/oauth2/getUserInfo",
    "refresh_url": "/sso/oauth2/refreshToken",
    "logout_url": "/sso/oauth2/logout",
}
"""Below the server URL, unless each is set on its own ("Common to all")."""

MAX_EXPIRES_IN: Final = 3600
"""Seconds; the longest life of an access token (section 2)."""

ERRORS: Final = {
    "8101": "the client_id parameter is missing",
    "8102": "the authorization_code parameter is missing",
    "8103": "the grant_type parameter is missing",
    "8104": "the client_secret parameter is missing",
    "8105": "the access_token parameter is missing",
    "8106": "the refresh_token parameter is missing",
    "8107": "the redirect_uri parameter is missing",
    "8201": "the client_id is not known at the server: check DEVKIT_SSO_CLIENT_ID",
    "8202": "the code was refused: it is spent, too old, or was given to another redirect_uri",
    "8203": "the grant_type was refused",
    "8204": "the client_secret was refused: check DEVKIT_SSO_CLIENT_SECRET",
    "8205": "the access token was refused",
    "8206": "the refresh token was refused",
    "8207": "the redirect_uri was refused: the value registered at the server must be "
    "DEVKIT_SSO_REDIRECT_URI, byte for byte",
    "8500": "the server has an internal error",
}
"""The envelope's error codes ("Common to all"), with what they mean to an operator of ours."""

Role = Literal["Admin", "User"]
ROLES: Final = ("Admin", "User")


@dataclass(frozen=True)
class Reply:
    """An HTTP answer that nobody has judged yet; ``url`` is what was asked, without its query."""

    status: int
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    url: str = ""


@dataclass(frozen=True)
class TokenAnswer:
    """A judged answer of getToken or refreshToken; ``expires_in`` in seconds, 1 to 3600."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_in: int


@dataclass(frozen=True)
class UserInfo:
    """A judged answer of getUserInfo (section 3)."""

    uid: str
    username: str
    role: Role | None


def authorization_url(
    authorize_url: str,
    *,
    client_id: str,
    redirect_uri: str,
    state: str | None = None,
    code_verifier: str | None = None,
) -> str:
    """Return the address that the browser is sent to (section 1; RFC 7636 for the challenge).

    redirect_uri is percent-encoded whole: a raw ``#`` in it would lose everything behind it.
    """
    query = {
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "response_type": "code",
    }
    if state is not None:
        query["state"] = state
    if code_verifier is not None:
        digest = hashlib.sha256(code_verifier.encode()).digest()
        query["code_challenge"] = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        query["code_challenge_method"] = "S256"
    parts = urlsplit(authorize_url)
    joined = "&".join(filter(None, (parts.query, urlencode(query))))
    return urlunsplit(parts._replace(query=joined))


def vary_redirect_uri(redirect_uri: str, proof: str) -> str:
    """Put a proof at the end of a redirect_uri: into its fragment, if it has one."""
    head, hash_sign, fragment = redirect_uri.partition("#")
    separator = "&" if "?" in (fragment if hash_sign else head) else "?"
    return f"{redirect_uri}{separator}s={proof}"


def token_request(
    *,
    client_id: str,
    client_secret: str,
    code: str,
    redirect_uri: str,
    code_verifier: str | None = None,
) -> bytes:
    """Return the JSON body of getToken (section 2): all five fields, and a verifier with PKCE."""
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
    """Return the JSON body of refreshToken (section 4): no secret and no grant_type."""
    return json.dumps({"client_id": client_id, "refresh_token": refresh_token}).encode()


def validity_request(*, client_id: str, access_token: str, field: str, user: str) -> bytes:
    """Return the JSON body of the user validity interface (section 5), which asks for a list."""
    body: dict[str, Any] = {"client_id": client_id, "access_token": access_token}
    return json.dumps(body | {field: [user]}).encode()


def envelope_data(reply: Reply, interface: str) -> dict[str, Any]:
    """Judge an envelope ("Common to all") and return its ``data``, ``{}`` where there is none.

    Success is the code ``"2000"`` (or the integer) under a 2xx status, and nothing else.

    :param interface: what an error calls it.

    :raises ServerError: for an error code, and for what is not an envelope.
    :raises ServerUnavailable: for 502, 503 and 504 without an envelope: a gateway on the way.
    """
    try:
        envelope = json.loads(reply.body, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        envelope = None
    code = envelope.get("code") if isinstance(envelope, dict) else None
    if type(code) is int:
        code = str(code)
    if not isinstance(code, str) or not re.fullmatch(r"[0-9]{4}", code):
        if reply.status in (502, 503, 504):
            raise ServerUnavailable(f"A gateway answered HTTP {reply.status} for the server.")
        # A fault of the server's own says nothing of where it is.
        mend = ": check the address, its path too" if reply.status < 500 else ""
        asked = f"{interface} at {reply.url} (HTTP {reply.status})"
        raise ServerError(f"The answer of {asked} is not an envelope{mend}.")
    if code != "2000":
        raise ServerError(
            f"The server answered {code}: {ERRORS.get(code, 'a code the contract does not name')}.",
            code,
        )
    if not 200 <= reply.status <= 299:
        raise ServerError(f"The server's answer says success under HTTP status {reply.status}.")
    data = envelope.get("data")
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ServerError("The server's answer has a data that is not an object.")
    return data


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name that comes twice: an answer must not mean one thing here, another elsewhere."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def token_answer(reply: Reply) -> TokenAnswer:
    """Judge an answer of getToken (section 2).

    :raises ServerError, ServerUnavailable: as :func:`envelope_data`, and for a field amiss.
    """
    data = envelope_data(reply, "getToken")
    return TokenAnswer(_text(data, "access_token"), _text(data, "refresh_token"), _lifetime(data))


def refresh_answer(reply: Reply) -> TokenAnswer:
    """Judge an answer of refreshToken (section 4), where a new refresh token may be missing.

    :raises ServerError, ServerUnavailable: as :func:`token_answer`.
    """
    data = envelope_data(reply, "refreshToken")
    new = _text(data, "refresh_token") if data.get("refresh_token") is not None else None
    return TokenAnswer(_text(data, "access_token"), new, _lifetime(data))


def user_info(reply: Reply) -> UserInfo:
    """Judge an answer of getUserInfo (section 3); a role that is not exactly known is None.

    :raises ServerError, ServerUnavailable: as :func:`token_answer`.
    """
    data = envelope_data(reply, "getUserInfo")
    role = data.get("role")
    known: Role | None = "Admin" if role == "Admin" else "User" if role == "User" else None
    return UserInfo(_text(data, "uid"), _text(data, "username"), known)


def validity_answer(reply: Reply) -> bool:
    """Judge an answer about one user of the user validity interface (section 5).

    :raises ServerError, ServerUnavailable: as :func:`envelope_data`, and for what is not a list of
        exactly one boolean.
    """
    answers = envelope_data(reply, "user validity").get("validation_list")
    if not isinstance(answers, list) or [type(answer) for answer in answers] != [bool]:
        raise ServerError("The server's answer has no validation_list of one boolean.")
    return bool(answers[0])


def _text(data: dict[str, Any], name: str) -> str:
    """Return a required string, which must not be empty and must survive UTF-8."""
    value = data.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ServerError(f"The server's answer has no usable {name}.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ServerError(f"The server's answer has a {name} that is not Unicode.") from None
    return value


def _lifetime(data: dict[str, Any]) -> int:
    """Return ``expires_in``: an integer or ASCII digits, at most an hour, an hour if absent."""
    value = data.get("expires_in", MAX_EXPIRES_IN)
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,20}", value):
        value = int(value)
    if type(value) is not int or value <= 0:
        raise ServerError("The server's answer has an expires_in that is no number of seconds.")
    return min(value, MAX_EXPIRES_IN)
