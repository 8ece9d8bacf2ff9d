"""Tests a complete login, with a person (docs/protocol.md, sections 1 to 6)."""

from __future__ import annotations

import secrets
import time

from ..errors import ServerError, ServerUnavailable
from ..protocol import contract
from ..protocol.contract import MAX_EXPIRES_IN, Tokens, UserInfo
from ..protocol.envelope import parse_envelope
from ..protocol.error_codes import INVALID_ACCESS_TOKEN, INVALID_CODE, SUCCESS
from .check_server_authorize import Redirect
from .check_server_person import Person
from .check_server_target import (
    AUTHORIZE,
    GET_TOKEN,
    GET_USER_INFO,
    LOGOUT,
    REFRESH_TOKEN,
    VALIDITY,
    Target,
)
from .findings import describe_error


def check_login(target: Target, person: Person) -> bool | None:
    """Test a login, a refresh and a logout.

    :return: whether the server returns ``state``, or None if the person did not come back.
    """
    state = secrets.token_urlsafe(24)
    redirect = person.authorize("a login", target.redirect_uri, state=state)
    if redirect is None:
        return None
    returns_state = _check_redirect(target, redirect, state)
    tokens = _check_exchange(target, redirect)
    if tokens is not None:
        access_token = _check_user_and_refresh(target, tokens)
        _check_logout(target, access_token)
        _check_used_code(target, person, redirect)
    return returns_state


def _check_redirect(target: Target, redirect: Redirect, state: str) -> bool:
    found = target.found
    if "#" in target.redirect_uri:
        place = "before the fragment" if redirect.is_before_fragment else "at the end"
        found.ok(AUTHORIZE, f"the code is {place} of the redirect_uri, which is accepted")
    returned = redirect.parameters.get("state", [])
    if returned == [state]:
        found.ok(AUTHORIZE, "returns state")
    elif returned:
        found.error(AUTHORIZE, "returns state changed or repeated", "Return it unchanged and once")
    else:
        found.note(AUTHORIZE, "does not return state")
    if "iss" in redirect.parameters:
        found.note(AUTHORIZE, "returns iss too, which the package ignores")
    return returned == [state]


def _check_exchange(target: Target, redirect: Redirect) -> Tokens | None:
    """Exchange the code, and check the response more strictly than the package does."""
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
        found.error(GET_TOKEN, describe_error(error))
        return None
    envelope = parse_envelope(response.body)
    lifetime = envelope["data"].get("expires_in")
    if type(lifetime) is not int or lifetime > MAX_EXPIRES_IN:
        found.error(
            GET_TOKEN,
            f"expires_in is not an integer of at most {MAX_EXPIRES_IN}",
            "Return an integer, in seconds",
        )
    else:
        found.ok(GET_TOKEN, f"exchanges the code; the access token lasts {lifetime} seconds")
    if not isinstance(envelope["code"], str):
        found.error(GET_TOKEN, "envelope: code is not a string")
    return tokens


def _check_user_and_refresh(target: Target, tokens: Tokens) -> str:
    """Check getUserInfo, user validity and refreshToken, and return the newest access token."""
    found, client = target.found, target.client
    try:
        user = client.user_info(tokens.access_token)
    except (ServerUnavailable, ServerError) as error:
        found.error(GET_USER_INFO, describe_error(error))
        return tokens.access_token
    if user.role is None:
        found.error(GET_USER_INFO, "role is neither Admin nor User", "Return one of the two")
    else:
        found.ok(GET_USER_INFO, f"returns uid, username and role ({user.role})")
    _check_validity(target, user, tokens.access_token)
    try:
        refreshed = client.refresh(tokens)
        user_afterwards = client.user_info(refreshed.access_token)
    except (ServerUnavailable, ServerError) as error:
        found.error(REFRESH_TOKEN, describe_error(error))
        return tokens.access_token
    if user_afterwards.uid != user.uid:
        found.error(REFRESH_TOKEN, "the new access token belongs to another user")
    else:
        found.ok(REFRESH_TOKEN, "returns another access token of the same user")
    rotates = refreshed.refresh_token != tokens.refresh_token
    text = "returns a new refresh token each time" if rotates else "keeps the refresh token"
    found.note(REFRESH_TOKEN, text)
    return refreshed.access_token


def _check_validity(target: Target, user: UserInfo, access_token: str) -> None:
    """Check user validity, if it is configured: the person who has just signed in is valid."""
    validity, found = target.server.validity, target.found
    if validity is None:
        return
    try:
        is_valid = target.client.is_valid(user, access_token)
    except (ServerUnavailable, ServerError) as error:
        found.error(VALIDITY, describe_error(error))
        return
    if is_valid:
        found.ok(VALIDITY, "returns one boolean, true for the person who signed in")
    else:
        found.error(
            VALIDITY,
            "returns false for the person who signed in",
            f"Return true for a valid user, who is named by {validity.key} in {validity.field}",
        )


def _check_logout(target: Target, access_token: str) -> None:
    found, client = target.found, target.client
    try:
        client.logout(access_token)
    except (ServerUnavailable, ServerError) as error:
        found.error(LOGOUT, describe_error(error))
        return
    try:
        client.user_info(access_token)
    except ServerError as error:
        what = "the access token afterwards"
        target.check_refusal(LOGOUT, what, error.server_code, INVALID_ACCESS_TOKEN)
    except ServerUnavailable as error:
        found.error(LOGOUT, describe_error(error))
    else:
        found.error(LOGOUT, "the access token still works afterwards", "Invalidate it")


def _check_used_code(target: Target, person: Person, redirect: Redirect) -> None:
    result = person.exchange(redirect, target.redirect_uri)
    if result == SUCCESS:
        target.found.warning(
            GET_TOKEN,
            "accepts a code twice",
            f"Refuse the second use with {INVALID_CODE} (RFC 6749, section 4.1.2)",
        )
    else:
        target.check_refusal(GET_TOKEN, "a used code", result, INVALID_CODE)
