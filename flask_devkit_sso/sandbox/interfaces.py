"""The five interfaces that an application's server calls (docs/protocol.md sections 2 to 6)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, request

from .calls import Call
from .envelope import INTERNAL_ERROR, SUCCESS, InterfaceError, envelope, invalid, missing
from .environ import SLOW, SLOW_HEADERS, connection_number
from .faults import respond
from .grants import SignIn
from .hashing import constant_time_equal, hashed
from .state import SandboxState, current_state

Body = dict[str, Any]
Data = dict[str, Any]
Interface = Callable[[SandboxState, Body], Data]
"""Processes a request; returns the response's ``data`` or raises :exc:`InterfaceError`."""


def add_interfaces(app: Flask, validity_path: str) -> None:
    """Register the interfaces on a sandbox."""
    for name, interface in (
        ("getToken", get_token),
        ("getUserInfo", get_user_info),
        ("refreshToken", refresh_token),
        ("logout", logout),
    ):
        app.add_url_rule(f"/sso/oauth2/{name}", name, _view(name, interface), methods=["POST"])
    app.add_url_rule(validity_path, "validity", _view("validity", validity), methods=["POST"])


def _view(name: str, interface: Interface) -> Callable[[], Response]:
    def view() -> Response:
        state = current_state()
        fault = state.faults.take(name)
        # Logged on arrival, so that a test sees a call even if its response hangs.
        call = Call(name, fault or "", connection_number())
        state.calls.add(call)

        def process() -> Response:
            code, data, status = SUCCESS, {}, 200
            try:
                body = _read_body()
                with state.grants.lock:
                    data = interface(state, body)
            except InterfaceError as error:
                code, status = error.code, error.status
            if fault in (None, SLOW, SLOW_HEADERS):
                call.code = code
            return envelope(code, data, status)

        return respond(fault, process)

    return view


def _read_body() -> Body:
    try:
        body = json.loads(request.get_data()) if request.mimetype == "application/json" else None
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise InterfaceError(INTERNAL_ERROR, 400)
    return body


def _require(body: Body, *parameters: str) -> None:
    for parameter in parameters:
        if body.get(parameter) in (None, ""):
            raise missing(parameter)


def _text(body: Body, name: str) -> str:
    """Return a string of the body. Anything else becomes "", which is never valid."""
    value = body.get(name)
    return value if isinstance(value, str) else ""


def _check(parameter: str, is_valid: bool) -> None:
    if not is_valid:
        raise invalid(parameter)


def _check_client(state: SandboxState, body: Body) -> None:
    client_id = _text(body, "client_id")
    _check("client_id", constant_time_equal(client_id, state.config.client_id))


def _check_access_token(state: SandboxState, body: Body) -> SignIn:
    sign_in = state.grants.sign_in_of_access_token(_text(body, "access_token"))
    if sign_in is None:
        raise invalid("access_token")
    return sign_in


def get_token(state: SandboxState, body: Body) -> Data:
    """Exchange an authorization code for tokens (docs/protocol.md section 2).

    A refused request does not use the code.
    """
    _require(body, "client_id", "authorization_code", "grant_type", "client_secret", "redirect_uri")
    code = _text(body, "authorization_code")
    verifier = None if body.get("code_verifier") in (None, "") else _text(body, "code_verifier")
    grant = state.grants.grant_of_code(code)
    secret_is_valid = _is_client_secret(state, _text(body, "client_secret"), code)

    _check_client(state, body)
    if secret_is_valid:
        # Only a client that could exchange the code may revoke tokens by using it twice.
        state.grants.revoke_if_used(code)
    if grant is None or not grant.request.accepts_verifier(verifier):
        raise invalid("authorization_code")
    _check("grant_type", body["grant_type"] == "authorization_code")
    _check("client_secret", secret_is_valid)
    redirect_uri = _text(body, "redirect_uri")
    _check("redirect_uri", constant_time_equal(redirect_uri, grant.request.redirect_uri))

    access_token, refresh_token = state.grants.exchange(code)
    return {
        "access_token": access_token,
        "expires_in": state.config.token_lifetime,
        "refresh_token": refresh_token,
    }


def _is_client_secret(state: SandboxState, secret: str, code: str) -> bool:
    """Return whether this is the client's secret, as far as whoever has the code may guess it.

    Guesses are counted for the person who got the code: limiting the client itself would let
    anybody lock it out.
    """
    person = state.grants.person_of_code(code)
    if person is None or not state.secret_guesses.take(person):
        return False
    is_right = constant_time_equal(hashed(secret), state.client_secret_hash)
    if is_right:
        state.secret_guesses.forget(person)
    return is_right


def get_user_info(state: SandboxState, body: Body) -> Data:
    """Return the user of an access token (docs/protocol.md section 3)."""
    _require(body, "client_id", "access_token")
    _check_client(state, body)
    person = state.people.get(_check_access_token(state, body).username)
    _check("access_token", not person.disabled)
    return {"uid": person.uid, "username": person.username, "role": person.role}


def refresh_token(state: SandboxState, body: Body) -> Data:
    """Issue another access token (docs/protocol.md section 4)."""
    _require(body, "client_id", "refresh_token")
    _check_client(state, body)
    tokens = state.grants.refresh(_text(body, "refresh_token"))
    if tokens is None:
        raise invalid("refresh_token")
    access_token, new_refresh_token = tokens
    data: Data = {"access_token": access_token, "expires_in": state.config.token_lifetime}
    if new_refresh_token is not None:
        data["refresh_token"] = new_refresh_token
    return data


def validity(state: SandboxState, body: Body) -> Data:
    """Return which users are valid (docs/protocol.md section 5).

    A disabled user's access token is accepted: the response says that the user is not valid.
    """
    _require(body, "client_id", "access_token")
    _check_client(state, body)
    _check_access_token(state, body)
    users = body.get(state.config.validity_field)
    if not isinstance(users, list):
        raise InterfaceError(INTERNAL_ERROR)
    return {"validation_list": state.people.are_valid(users, state.config.validity_key)}


def logout(state: SandboxState, body: Body) -> Data:
    """End the sign-in of an access token, in the browser too (docs/protocol.md section 6)."""
    _require(body, "client_id", "access_token")
    _check_client(state, body)
    _check_access_token(state, body).alive = False
    return {}
