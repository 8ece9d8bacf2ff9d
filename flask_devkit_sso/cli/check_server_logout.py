"""Tests how a sign-in ends: by a logout, or because the person cancels (sections 1 and 6)."""

from __future__ import annotations

import secrets

from ..errors import ServerError, ServerUnavailable
from ..protocol.contract import Tokens
from ..protocol.error_codes import INVALID_ACCESS_TOKEN, INVALID_REFRESH_TOKEN
from .check_server_authorize import parse_redirect
from .check_server_checks import AUTHORIZE, LOGOUT
from .check_server_login import exchange
from .check_server_person import Person, describe
from .check_server_target import Target
from .check_server_visitors import NotBack
from .findings import describe_error


def check_logout(target: Target, person: Person) -> None:
    """Check that a logout ends the tokens and the sign-in."""
    tokens = _sign_in(target, person, "a logout", LOGOUT, "logout")
    if tokens is None:
        return
    try:
        target.client.logout(tokens.access_token)
    except (ServerUnavailable, ServerError) as error:
        target.found.error(LOGOUT, "logout", describe_error(error))
        return
    target.found.ok(LOGOUT, "logout", "reports success")
    _check_access_token(target, tokens)
    _check_refresh_token(target, person, tokens)
    _check_sign_in(target, person)


def _sign_in(
    target: Target, person: Person, purpose: str, subject: str, check: str
) -> Tokens | None:
    redirect = person.authorize(purpose, target.redirect_uri, subject, check)
    if redirect is None:
        return None
    return exchange(target, person, redirect, subject, check)


def _check_access_token(target: Target, tokens: Tokens) -> None:
    check = "access_token_ends"
    user = target.expect_refusal(
        LOGOUT,
        check,
        "the access token afterwards",
        INVALID_ACCESS_TOKEN,
        lambda: target.client.user_info(tokens.access_token),
    )
    if user is not None:
        text = "the access token still works afterwards"
        target.found.error(LOGOUT, check, text, "Invalidate it")


def _check_refresh_token(target: Target, person: Person, tokens: Tokens) -> None:
    check = "refresh_token_ends"
    new = target.expect_refusal(
        LOGOUT,
        check,
        "the refresh token afterwards",
        INVALID_REFRESH_TOKEN,
        lambda: target.client.refresh(tokens),
    )
    if new is not None:
        person.access_tokens.append(new.access_token)
        text = "the refresh token still works afterwards"
        target.found.warning(LOGOUT, check, text, "Invalidate it too")


def _check_sign_in(target: Target, person: Person) -> None:
    """Check that authorize shows its sign-in page again after the logout."""
    found, check = target.found, "sign_in_ends"
    try:
        address = person.look(target.redirect_uri, "after the logout")
    except NotBack as error:
        found.skip(LOGOUT, check, why=error.text)
        return
    redirect = address and parse_redirect(address, target.redirect_uri)
    if redirect and "code" in redirect.parameters:
        found.error(
            LOGOUT,
            check,
            "the sign-in is still alive afterwards: authorize redirects back with a code",
            "End the sign-in too, so that authorize shows the sign-in page",
        )
    elif redirect or address is None:
        found.ok(LOGOUT, check, "ends the sign-in")
    else:
        found.skip(LOGOUT, check, why="the address is not the redirect_uri with parameters")


def check_cancelled_sign_in(target: Target, person: Person, *, returns_state: bool) -> None:
    """Check how authorize redirects back if the person cancels."""
    found, check, uri = target.found, "cancelled_sign_in", target.redirect_uri
    state = secrets.token_urlsafe(24)
    url = person.url(uri, state=state)
    redirect = person.come_back(lambda: person.visitor.cancel(url, uri), uri, AUTHORIZE, check)
    if redirect is None:
        return
    fix = "Redirect back with error=access_denied, and without a code"
    if "code" in redirect.parameters:
        found.error(AUTHORIZE, check, "returns a code for a cancelled sign-in", fix)
    elif redirect.parameters.get("error") != ["access_denied"]:
        what = describe(redirect) if "error" in redirect.parameters else "no error"
        found.warning(AUTHORIZE, check, f"returns {what} for a cancelled sign-in", fix)
    elif returns_state and redirect.parameters.get("state") != [state]:
        found.error(
            AUTHORIZE,
            check,
            "does not return state with the error of a cancelled sign-in",
            "Return state with an error too",
        )
    else:
        found.ok(AUTHORIZE, check, "returns access_denied for a cancelled sign-in")
