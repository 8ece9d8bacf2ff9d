"""Sends the browser back to the application (docs/protocol.md section 1)."""

from __future__ import annotations

from urllib.parse import urlencode

from flask import Response, request

from .grants import AuthorizationRequest, SignIn
from .state import current_state


def redirect_with_code(authorization_request: AuthorizationRequest, sign_in: SignIn) -> Response:
    """Redirect the browser of a person who is signed in, with a new code."""
    code = current_state().grants.new_code(sign_in, authorization_request)
    return _redirect(authorization_request, code=code)


def redirect_with_error(
    authorization_request: AuthorizationRequest, error: str, description: str
) -> Response:
    """Redirect the browser with an error of RFC 6749 section 4.1.2.1."""
    return _redirect(authorization_request, error=error, error_description=description)


def _redirect(authorization_request: AuthorizationRequest, **parameters: str) -> Response:
    config = current_state().config
    if config.echo_state and authorization_request.state is not None:
        parameters["state"] = authorization_request.state
    if config.issuer:
        parameters["iss"] = request.host_url.rstrip("/")
    # 303 turns the form's POST into a GET.
    response = Response(status=302 if request.method == "GET" else 303)
    response.headers["Location"] = authorization_response_url(
        authorization_request.redirect_uri, parameters, config.code_position
    )
    return response


def authorization_response_url(redirect_uri: str, parameters: dict[str, str], position: str) -> str:
    """Add the parameters of an authorization response to a redirect URI.

    In a redirect URI with a fragment, the position ``"end"`` puts them at its very end
    (docs/protocol.md section 1), and ``"query"`` before the fragment. Everything else stays byte
    for byte.
    """
    base, hash_mark, fragment = redirect_uri.partition("#")
    if hash_mark and position == "end":
        return f"{base}#{_add_query(fragment, parameters)}"
    return f"{_add_query(base, parameters)}{hash_mark}{fragment}"


def _add_query(text: str, parameters: dict[str, str]) -> str:
    return f"{text}{'&' if '?' in text else '?'}{urlencode(parameters)}"
