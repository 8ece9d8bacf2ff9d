"""The interfaces that a client's server calls (docs/protocol.md sections 2 to 6)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, request

from .envelope import INTERNAL_ERROR, SUCCESS, Refusal, envelope, invalid, missing
from .faults import SLOW, SLOW_HEADERS, spoil
from .state import Call, SignIn, State, same, the_state

# A key of the WSGI environ: which TCP connection a request came on.
CONNECTION = "flask_devkit_sso.sandbox.connection"

Body = dict[str, Any]
Data = dict[str, Any]


def add_interfaces(app: Flask, validity_path: str) -> None:
    """Register the five interfaces on a sandbox."""
    for name, act in (
        ("getToken", get_token),
        ("getUserInfo", get_user_info),
        ("refreshToken", refresh_token),
        ("logout", logout),
    ):
        app.add_url_rule(f"/sso/oauth2/{name}", name, _view(name, act), methods=["POST"])
    app.add_url_rule(validity_path, "validity", _view("validity", validity), methods=["POST"])


def _view(interface: str, act: Callable[[State, Body], Data]) -> Callable[[], Response]:
    def view() -> Response:
        state = the_state()
        how = state.take_fault(interface)
        # Recorded on arrival: a test that hangs up on a hanging answer wants to see the call.
        call = Call(interface, how or "", request.environ.get(CONNECTION, 0))
        state.record(call)

        def right() -> Response:
            code, data, status = SUCCESS, {}, 200
            try:
                body = _read_body()
                with state.lock:
                    data = act(state, body)
            except Refusal as refusal:
                code, status = refusal.code, refusal.status
            if how in (None, SLOW, SLOW_HEADERS):
                call.code = code
            return envelope(code, data, status)

        return spoil(how, right)

    return view


def _read_body() -> Body:
    try:
        body = json.loads(request.get_data()) if request.mimetype == "application/json" else None
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise Refusal(INTERNAL_ERROR, 400)
    return body


def _require(body: Body, *parameters: str) -> None:
    for parameter in parameters:
        if body.get(parameter) in (None, ""):
            raise missing(parameter)


def _text(body: Body, name: str) -> str:
    """Return a string of the body; anything else as "", which is never right."""
    value = body.get(name)
    return value if isinstance(value, str) else ""


def _check(parameter: str, right: bool) -> None:
    if not right:
        raise invalid(parameter)


def _check_client(state: State, body: Body) -> None:
    _check("client_id", same(_text(body, "client_id"), state.config.client_id))


def _check_access_token(state: State, body: Body) -> SignIn:
    holder = state.holder(_text(body, "access_token"))
    if holder is None:
        raise invalid("access_token")
    return holder


def get_token(state: State, body: Body) -> Data:
    """Exchange an authorization code for tokens (docs/protocol.md section 2).

    A request that is refused does not use its code up.
    """
    _require(body, "client_id", "authorization_code", "grant_type", "client_secret", "redirect_uri")
    code = _text(body, "authorization_code")
    verifier = None if body.get("code_verifier") in (None, "") else _text(body, "code_verifier")
    grant = state.code(code)
    secret_is_right = same(_text(body, "client_secret"), state.config.client_secret)

    _check_client(state, body)
    if secret_is_right:
        # Only who can exchange codes can end anything by using one twice.
        state.end_reused(code)
    if grant is None or not grant.asked.proven_by(verifier):
        raise invalid("authorization_code")
    _check("grant_type", body["grant_type"] == "authorization_code")
    _check("client_secret", secret_is_right)
    _check("redirect_uri", same(_text(body, "redirect_uri"), grant.asked.redirect_uri))

    access_token, refresh_token = state.exchange(code)
    return {
        "access_token": access_token,
        "expires_in": state.config.token_lifetime,
        "refresh_token": refresh_token,
    }


def get_user_info(state: State, body: Body) -> Data:
    """Tell who signed in (docs/protocol.md section 3)."""
    _require(body, "client_id", "access_token")
    _check_client(state, body)
    person = state.person(_check_access_token(state, body).username)
    _check("access_token", not person.disabled)
    return {"uid": person.uid, "username": person.username, "role": person.role}


def refresh_token(state: State, body: Body) -> Data:
    """Issue another access token (docs/protocol.md section 4)."""
    _require(body, "client_id", "refresh_token")
    _check_client(state, body)
    tokens = state.refresh(_text(body, "refresh_token"))
    if tokens is None:
        raise invalid("refresh_token")
    data: Data = {"access_token": tokens[0], "expires_in": state.config.token_lifetime}
    if tokens[1] is not None:
        data["refresh_token"] = tokens[1]
    return data


def validity(state: State, body: Body) -> Data:
    """Tell which users are valid (docs/protocol.md section 5).

    A disabled user's token may still ask: the answer about that very user says it.
    """
    _require(body, "client_id", "access_token")
    _check_client(state, body)
    _check_access_token(state, body)
    users = body.get(state.config.validity_field)
    if not isinstance(users, list):
        raise Refusal(INTERNAL_ERROR)
    return {"validation_list": [state.is_valid(user) for user in users]}


def logout(state: State, body: Body) -> Data:
    """End the token's sign-in, in the browser too (docs/protocol.md section 6)."""
    _require(body, "client_id", "access_token")
    _check_client(state, body)
    _check_access_token(state, body).alive = False
    return {}
