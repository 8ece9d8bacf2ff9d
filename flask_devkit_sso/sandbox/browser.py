"""What a person's browser loads: the home page, and authorize (docs/protocol.md section 1)."""

from __future__ import annotations

import re

from flask import Blueprint, Response, render_template, request

from .authorization_response import redirect_with_code, redirect_with_error
from .faults import AUTHORIZE_ERRORS, respond
from .grants import AuthorizationRequest
from .pages import error_page
from .sign_in import current_sign_in, new_form
from .state import current_state

bp = Blueprint("browser", __name__)


@bp.get("/")
def home() -> str:
    """Show what this server is, and who is signed in."""
    people = current_state().people.listed()
    return render_template("sandbox/home.html", people=people, sign_in=current_sign_in())


@bp.get("/sso/oauth2/authorize")
def authorize() -> Response:
    """Redirect a signed-in browser back with a code; show others the sign-in page."""
    fault = current_state().faults.take("authorize")
    if fault in AUTHORIZE_ERRORS:
        return _authorize(fault)
    return respond(fault, lambda: _authorize(None))


def _authorize(error: str | None) -> Response:
    state = current_state()
    query = request.args
    if any(len(values) > 1 for _, values in query.lists()):
        return error_page("A parameter is repeated.")
    if query.get("client_id") != state.config.client_id:
        return error_page(_problem_with("client_id"), "No such client is registered here.")
    redirect_uri = query.get("redirect_uri", "")
    if redirect_uri not in state.config.redirect_uris:
        return error_page(
            _problem_with("redirect_uri"),
            "It must be one of the registered redirect URIs, byte for byte.",
            sent=redirect_uri,
            registered=state.config.redirect_uris,
        )
    # From here on the redirect URI is trusted, so errors are sent there (RFC 6749 section 4.1.2.1).
    authorization_request = AuthorizationRequest(
        redirect_uri, query.get("state") or None, query.get("code_challenge") or None
    )
    failure = (error, "The sandbox was told to fail.") if error else _failure()
    if failure:
        return redirect_with_error(authorization_request, *failure)
    sign_in = current_sign_in()
    if sign_in:
        return redirect_with_code(authorization_request, sign_in)
    return new_form(authorization_request)


def _problem_with(parameter: str) -> str:
    problem = "invalid" if request.args.get(parameter) else "missing"
    return f"The {parameter} parameter is {problem}."


def _failure() -> tuple[str, str] | None:
    """Return the error and its description to send to the redirect URI, or None."""
    response_type = request.args.get("response_type", "")
    if response_type != "code":
        error = "unsupported_response_type" if response_type else "invalid_request"
        return error, "The response_type must be code."
    challenge = request.args.get("code_challenge") or None
    problem = _pkce_problem(challenge, request.args.get("code_challenge_method"))
    return ("invalid_request", problem) if problem else None


def _pkce_problem(challenge: str | None, method: str | None) -> str | None:
    if challenge is None:
        return "A code_challenge_method needs a code_challenge." if method else None
    # Without a method, RFC 7636 means "plain".
    if method != "S256":
        return "The code_challenge_method must be S256."
    if not re.fullmatch(r"[A-Za-z0-9_-]{43}", challenge):
        return "The code_challenge is not a SHA-256 digest in base64url."
    return None
