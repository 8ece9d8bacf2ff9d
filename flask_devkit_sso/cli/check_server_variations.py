"""Tests variations of a login, with a person (docs/protocol.md, sections 1 and 2)."""

from __future__ import annotations

import json
import secrets
import time

from ..config.settings import PREFIX
from ..errors import ServerError, ServerUnavailable
from ..protocol import authorization, contract
from ..protocol.error_codes import SUCCESS, invalid
from .check_server_authorize import UNREGISTERED, Attempt, parse_redirect
from .check_server_checks import AUTHORIZE, GET_TOKEN
from .check_server_person import Person
from .check_server_target import MADE_UP, Target
from .check_server_visitors import NotBack, Unattended
from .findings import describe_error


def check_undecided(target: Target, visitor: Unattended, attempts: list[Attempt]) -> None:
    """Find out, as somebody who can sign in, whether authorize refuses what it has to refuse."""
    found = target.found
    for attempt in attempts:
        uri, check, fault = attempt.redirect_uri, attempt.check, attempt.fault
        url = authorization.authorization_url(
            target.server.authorize_url,
            client_id=attempt.client_id,
            redirect_uri=uri,
            state=MADE_UP,
        )
        try:
            address = visitor.attempt(url, uri)
        except NotBack as error:
            found.skip(AUTHORIZE, check, why=error.text)
            continue
        if address is None:
            found.ok(AUTHORIZE, check, f"refuses {fault}")
            continue
        redirect = parse_redirect(address, uri)
        has_code = redirect is not None and "code" in redirect.parameters
        if check == "longer_redirect_uri":
            # A server that does this may be one that the binding redirect_uri is for.
            found.warning(
                AUTHORIZE,
                check,
                f"redirects to {fault} after a sign-in",
                "Compare the whole redirect_uri with the registered one, byte for byte",
            )
        elif has_code or uri == UNREGISTERED:
            what = "issues a code for" if has_code else "redirects back for"
            fix = "Show an error page instead, and no sign-in form"
            found.error(AUTHORIZE, check, f"{what} {fault} after a sign-in", fix)
        else:
            found.note(AUTHORIZE, check, f"redirects back for {fault}")


def check_varying_redirect_uri(target: Target, person: Person) -> bool:
    """Return whether the binding ``redirect_uri`` would work."""
    uri = authorization.add_nonce(target.redirect_uri, secrets.token_urlsafe(24))
    redirect = person.authorize(
        "a redirect_uri that varies (press Enter if the server refuses it)",
        uri,
        AUTHORIZE,
        "varying_redirect_uri",
        refusal="refuses a redirect_uri that varies",
    )
    if redirect is None:
        return False
    result = person.exchange(redirect, uri)
    text = "accepts a redirect_uri that varies at its end"
    if result != SUCCESS:
        refusal = result or "no envelope"
        text = f"accepts a redirect_uri that varies, but getToken does not ({refusal})"
    target.found.note(AUTHORIZE, "varying_redirect_uri", text)
    return result == SUCCESS


def check_pkce(target: Target, person: Person) -> None:
    found, uri, verifier = target.found, target.redirect_uri, secrets.token_urlsafe(32)
    redirect = person.authorize(
        "PKCE",
        uri,
        GET_TOKEN,
        "pkce",
        code_verifier=verifier,
        refusal=f"authorize refuses a request with PKCE: {PREFIX}PKCE must be off",
    )
    if redirect is None:
        return
    if person.exchange(redirect, uri, code_verifier=secrets.token_urlsafe(32)) == SUCCESS:
        text = f"does not check PKCE: {PREFIX}PKCE would have no effect"
    elif (right := person.exchange(redirect, uri, code_verifier=verifier)) == SUCCESS:
        text = f"checks PKCE: you can switch {PREFIX}PKCE on"
    elif right is None:
        found.skip(GET_TOKEN, "pkce", why="getToken returns no envelope to a request with PKCE")
        return
    else:
        text = (
            "refuses a wrong code_verifier, and then the right one: the refusal used the code up, "
            f"or PKCE is unknown. Try {PREFIX}PKCE with care"
        )
    found.note(GET_TOKEN, "pkce", text)


def check_wrong_parameters(target: Target, person: Person) -> None:
    """Send a valid code with wrong parameters: getToken has to check those too."""
    found, server, uri = target.found, target.server, target.redirect_uri
    check = "wrong_parameters"
    purpose = "a code that is sent with wrong parameters"
    redirect = person.authorize(purpose, uri, GET_TOKEN, check)
    if redirect is None:
        return
    parameters = {
        "client_id": server.client_id,
        "grant_type": "authorization_code",
        "client_secret": server.client_secret,
        "authorization_code": redirect.code,
        "redirect_uri": uri,
    }
    wrong = {"client_secret": MADE_UP, "grant_type": MADE_UP, "redirect_uri": f"{uri}x"}
    for name, value in wrong.items():
        body = json.dumps(parameters | {name: value}).encode()
        try:
            response = target.transport.post(server.token_url, body)
            tokens = contract.token_response(response, time.time())
        except ServerError as error:
            what = f"a wrong {name}"
            target.check_refusal(GET_TOKEN, check, what, error.server_code, invalid(name))
        except ServerUnavailable as error:
            found.error(GET_TOKEN, check, describe_error(error))
        else:
            person.access_tokens.append(tokens.access_token)
            found.error(
                GET_TOKEN, check, f"accepts a wrong {name}", f"Refuse it with {invalid(name)}"
            )
            return
