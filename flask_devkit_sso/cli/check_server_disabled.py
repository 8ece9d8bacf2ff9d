"""Tests what a disabled person can still do (docs/protocol.md, sections 1 and 3 to 5)."""

from __future__ import annotations

from contextlib import suppress

from ..errors import ServerError, ServerUnavailable
from ..protocol.contract import Tokens, UserInfo
from ..protocol.error_codes import INVALID_ACCESS_TOKEN, INVALID_REFRESH_TOKEN
from .check_server_authorize import parse_redirect
from .check_server_checks import AUTHORIZE, GET_USER_INFO, REFRESH_TOKEN, VALIDITY
from .check_server_person import Person
from .check_server_target import Target
from .check_server_visitors import NotBack


def check_disabled_person(target: Target, person: Person) -> None:
    """Have the account disabled after a sign-in, and check what still works."""
    found = target.found
    subjects = [AUTHORIZE, GET_USER_INFO, REFRESH_TOKEN]
    subjects += [VALIDITY] * (target.server.validity is not None)
    try:
        user, tokens = _disable(target, person)
    except NotBack as error:
        for subject in subjects:
            found.skip(subject, "disabled_person", why=error.text)
        return
    try:
        _check_interfaces(target, person, user, tokens)
    finally:
        with suppress(NotBack):
            person.visitor.change_account("enable")


def _disable(target: Target, person: Person) -> tuple[UserInfo, Tokens]:
    """Sign in, and have the account disabled.

    :raises NotBack: if one of the two was not possible.
    """
    uri = target.redirect_uri
    purpose = "an account that you then disable at the server (press Enter to skip this)"
    person.visitor.require_account_changes()
    address = person.visitor.sign_in(person.url(uri), uri, purpose)
    redirect = parse_redirect(address, uri)
    try:
        if redirect is None or len(redirect.parameters.get("code", [])) != 1:
            raise NotBack("skipped", "the address is not the redirect_uri with a code")
        tokens = target.client.exchange(redirect.code, redirect_uri=uri)
        person.access_tokens.append(tokens.access_token)
        user = target.client.user_info(tokens.access_token)
    except (ServerError, ServerUnavailable):
        raise NotBack("skipped", "the sign-in before it failed") from None
    person.visitor.change_account("disable")
    return user, tokens


def _check_interfaces(target: Target, person: Person, user: UserInfo, tokens: Tokens) -> None:
    found, check, client = target.found, "disabled_person", target.client
    validity = target.server.validity
    still_returned = target.expect_refusal(
        GET_USER_INFO,
        check,
        "a disabled person",
        INVALID_ACCESS_TOKEN,
        lambda: client.user_info(tokens.access_token),
    )
    if still_returned is not None:
        report = found.error if validity is None else found.warning
        report(
            GET_USER_INFO,
            check,
            "still returns a disabled person",
            f"Refuse the access token with {INVALID_ACCESS_TOKEN}",
        )
    if validity is not None:
        _check_validity(target, user, tokens)
    new = target.expect_refusal(
        REFRESH_TOKEN,
        check,
        "a disabled person",
        INVALID_REFRESH_TOKEN,
        lambda: client.refresh(tokens),
    )
    if new is not None:
        person.access_tokens.append(new.access_token)
        found.error(
            REFRESH_TOKEN,
            check,
            "still refreshes the tokens of a disabled person",
            f"Refuse the refresh token with {INVALID_REFRESH_TOKEN}",
        )
    _check_authorize(target, person)


def _check_validity(target: Target, user: UserInfo, tokens: Tokens) -> None:
    found, check = target.found, "disabled_person"
    is_valid = target.expect_refusal(
        VALIDITY,
        check,
        "the access token of a disabled person",
        INVALID_ACCESS_TOKEN,
        lambda: target.client.is_valid(user, tokens.access_token),
    )
    if is_valid:
        found.error(VALIDITY, check, "returns true for a disabled person", "Return false")
    elif is_valid is not None:
        found.ok(VALIDITY, check, "returns false for a disabled person")


def _check_authorize(target: Target, person: Person) -> None:
    found, check = target.found, "disabled_person"
    try:
        address = person.look(target.redirect_uri, "with the account disabled")
    except NotBack as error:
        found.skip(AUTHORIZE, check, why=error.text)
        return
    redirect = address and parse_redirect(address, target.redirect_uri)
    if redirect and "code" in redirect.parameters:
        found.error(
            AUTHORIZE, check, "issues a code for a disabled person", "Refuse the sign-in instead"
        )
    else:
        found.ok(AUTHORIZE, check, "issues no code for a disabled person")
