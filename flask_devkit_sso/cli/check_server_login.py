"""Tests a complete login (docs/protocol.md, sections 1 to 4)."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass
from typing import Any, Final

from ..errors import ServerError, ServerUnavailable
from ..protocol import contract
from ..protocol.contract import MAX_EXPIRES_IN, RawResponse, Tokens, UserInfo
from ..protocol.envelope import parse_envelope
from ..protocol.error_codes import INVALID_ACCESS_TOKEN, INVALID_CODE, SUCCESS
from .check_server_authorize import Redirect
from .check_server_checks import AUTHORIZE, GET_TOKEN, GET_USER_INFO, REFRESH_TOKEN
from .check_server_person import Person
from .check_server_target import Target
from .check_server_validity import check_validity
from .findings import describe_error

_VENDOR_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{5,31}")

# What the data of each response contains, for the fix of one that the package cannot use.
_TOKENS: Final = '"access_token": "…", "expires_in": 3600, "refresh_token": "…"'
_USER: Final = '"uid": "…", "username": "…", "role": "User"'
_NEW_TOKENS: Final = '"access_token": "…", "expires_in": 3600'


@dataclass(frozen=True)
class Login:
    """What a login showed.

    :ivar returns_state: whether the server returns ``state``.
    :ivar has_tokens: whether getToken exchanged the code.
    """

    returns_state: bool
    has_tokens: bool


def check_login(target: Target, person: Person) -> Login | None:
    """Test a login and everything that its tokens are for.

    :return: what it showed, or None if the person did not come back.
    """
    state = secrets.token_urlsafe(24)
    redirect = person.authorize("a login", target.redirect_uri, AUTHORIZE, "sign_in", state=state)
    if redirect is None:
        return None
    target.found.ok(AUTHORIZE, "sign_in", "redirects back with one code")
    returns_state = _check_redirect(target, redirect, state)
    tokens = exchange(target, person, redirect, GET_TOKEN, "exchange")
    if tokens is not None:
        access_token = _check_user_and_refresh(target, person, tokens)
        # A server may revoke what came from the code, and end the sign-in. So this is the last use
        # of these tokens, but there are still some to try the code with.
        _check_used_code(target, person, redirect, access_token)
    return Login(returns_state, has_tokens=tokens is not None)


def _check_redirect(target: Target, redirect: Redirect, state: str) -> bool:
    found = target.found
    if "#" in target.redirect_uri and redirect.is_before_fragment:
        found.ok(
            AUTHORIZE,
            "code_position",
            "the code is before the fragment of the redirect_uri, which is accepted",
        )
        found.note(
            AUTHORIZE,
            "vendor_product",
            "the vendor's product expects the code at the end of the redirect_uri",
        )
    elif "#" in target.redirect_uri:
        found.ok(AUTHORIZE, "code_position", "the code is at the end of the redirect_uri")
    else:
        found.note(
            AUTHORIZE,
            "vendor_product",
            "this redirect_uri has no fragment. That of the vendor's product has one, as in "
            "https://host:port/#/login: test the server with such a redirect_uri too",
        )
    returned = redirect.parameters.get("state", [])
    if returned == [state]:
        found.ok(AUTHORIZE, "state", "returns state")
    elif returned:
        found.error(
            AUTHORIZE,
            "state",
            "returns state changed or repeated",
            "Return it unchanged and once",
        )
    else:
        found.note(AUTHORIZE, "state", "does not return state")
    if "iss" in redirect.parameters:
        found.note(AUTHORIZE, "iss", "returns iss too, which the package ignores")
    return returned == [state]


def exchange(
    target: Target, person: Person, redirect: Redirect, subject: str, check: str
) -> Tokens | None:
    """Exchange a code and return the tokens. If that fails, report it for the check.

    For the check ``exchange``, the response is checked more strictly than the package does it.
    """
    found, server = target.found, target.server
    body = contract.token_request(
        client_id=server.client_id,
        client_secret=server.client_secret,
        code=redirect.code,
        redirect_uri=target.redirect_uri,
    )
    try:
        response = target.transport.post(server.token_url, body)
        tokens = contract.token_response(response, time.time())
    except (ServerUnavailable, ServerError) as error:
        found.error(subject, check, describe_error(error), _fix(error, "code", _TOKENS))
        return None
    person.access_tokens.append(tokens.access_token)
    if check == "exchange":
        found.ok(GET_TOKEN, check, "exchanges the code for tokens")
        _check_expires_in(target, GET_TOKEN, response)
    return tokens


def _fix(error: ServerUnavailable | ServerError, what: str, data: str) -> str:
    """Return what to do about a response that should have reported success.

    :param what: what the request contained.
    :param data: the names and values that the response's ``data`` needs.
    """
    if isinstance(error, ServerUnavailable) or error.server_code == "8500":
        return "Read the server's log"
    if error.server_code is None:
        return f'Return {{"code": "2000", "message": "…", "data": {{{data}}}}}'
    return f"Accept the {what}: it was issued just now, and everything sent with it is right"


def _check_expires_in(target: Target, subject: str, response: RawResponse) -> None:
    envelope: dict[str, Any] = parse_envelope(response.body)
    lifetime = envelope["data"].get("expires_in")
    if type(lifetime) is not int or lifetime > MAX_EXPIRES_IN:
        target.found.error(
            subject,
            "expires_in",
            f"expires_in is not an integer of at most {MAX_EXPIRES_IN}",
            "Return an integer, in seconds",
        )
    else:
        target.found.ok(subject, "expires_in", f"expires_in is at most {MAX_EXPIRES_IN} seconds")
    if not isinstance(envelope["code"], str):
        target.found.error(subject, "envelope", "envelope: code is not a string")


def _check_user_and_refresh(target: Target, person: Person, tokens: Tokens) -> str | None:
    """Check getUserInfo, user validity and refreshToken.

    :return: the newest access token, or None if getUserInfo accepts none.
    """
    found, client = target.found, target.client
    try:
        user = client.user_info(tokens.access_token)
    except (ServerUnavailable, ServerError) as error:
        fix = _fix(error, "access token", _USER)
        found.error(GET_USER_INFO, "user", describe_error(error), fix)
        return None
    found.ok(GET_USER_INFO, "user", "returns uid and username")
    if user.role is None:
        found.error(
            GET_USER_INFO, "role", "role is neither Admin nor User", "Return one of the two"
        )
    else:
        found.ok(GET_USER_INFO, "role", f"role is {user.role}")
    if not _VENDOR_NAME.fullmatch(user.username):
        found.note(
            GET_USER_INFO,
            "vendor_product",
            "the vendor's product may refuse this username: it needs 6 to 32 letters, digits, - "
            "and _, with a letter first",
        )
    check_validity(target, user, tokens.access_token)
    return _check_refresh(target, person, tokens, user)


def _check_refresh(target: Target, person: Person, tokens: Tokens, user: UserInfo) -> str:
    """Refresh twice, because the second time shows whether the refresh token still works."""
    found = target.found
    try:
        refreshed = _refresh(target, person, tokens, is_first=True)
        user_afterwards = target.client.user_info(refreshed.access_token)
    except (ServerUnavailable, ServerError) as error:
        fix = _fix(error, "token", _NEW_TOKENS)
        found.error(REFRESH_TOKEN, "refresh", describe_error(error), fix)
        return tokens.access_token
    if user_afterwards.uid != user.uid:
        found.error(REFRESH_TOKEN, "refresh", "the new access token belongs to another user")
    else:
        found.ok(REFRESH_TOKEN, "refresh", "returns an access token of the same user")
    if refreshed.access_token == tokens.access_token:
        found.error(
            REFRESH_TOKEN,
            "new_access_token",
            "returns the same access token",
            "Issue another one: the old one expires",
        )
    else:
        found.ok(REFRESH_TOKEN, "new_access_token", "returns another access token")
    rotates = refreshed.refresh_token != tokens.refresh_token
    try:
        again = _refresh(target, person, refreshed, is_first=False)
    except (ServerUnavailable, ServerError) as error:
        which = "the new refresh token" if rotates else "the refresh token, which is to be kept,"
        found.error(
            REFRESH_TOKEN,
            "refresh_token",
            f"{which} cannot be used for the next refresh: {describe_error(error)}",
            "Accept it, or return a new refresh token that you accept",
        )
        return refreshed.access_token
    text = "returns a new refresh token each time" if rotates else "keeps the refresh token"
    found.note(REFRESH_TOKEN, "refresh_token", text)
    if rotates:
        found.note(
            REFRESH_TOKEN,
            "vendor_product",
            "the vendor's documentation mentions no new refresh token, so its product may continue "
            "to use the old one",
        )
    return again.access_token


def _refresh(target: Target, person: Person, tokens: Tokens, *, is_first: bool) -> Tokens:
    """Refresh tokens, and check ``expires_in`` the first time."""
    body = contract.refresh_request(
        client_id=target.server.client_id, refresh_token=tokens.refresh_token or ""
    )
    response = target.transport.post(target.server.refresh_url, body)
    new = tokens.refreshed_by(contract.refresh_response(response, time.time()))
    person.access_tokens.append(new.access_token)
    if is_first:
        _check_expires_in(target, REFRESH_TOKEN, response)
    return new


def _check_used_code(
    target: Target, person: Person, redirect: Redirect, access_token: str | None
) -> None:
    found = target.found
    result = person.exchange(redirect, target.redirect_uri)
    if result == SUCCESS:
        found.error(
            GET_TOKEN,
            "code_used_twice",
            "accepts a code twice",
            f"Refuse the second use with {INVALID_CODE} (RFC 6749, section 4.1.2)",
        )
        return
    target.check_refusal(GET_TOKEN, "code_used_twice", "a used code", result, INVALID_CODE)
    if access_token is None:
        return
    try:
        target.client.user_info(access_token)
    except ServerError as error:
        if error.server_code == INVALID_ACCESS_TOKEN:
            found.ok(GET_TOKEN, "revocation", "revokes the tokens of a code that is used twice")
            return
        found.error(GET_TOKEN, "revocation", describe_error(error))
    except ServerUnavailable as error:
        found.error(GET_TOKEN, "revocation", describe_error(error))
    else:
        found.note(
            GET_TOKEN,
            "revocation",
            "does not revoke the tokens of a code that is used twice, as RFC 6749 recommends",
        )
