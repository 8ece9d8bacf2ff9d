"""What a person's browser loads: authorize and the sign-in page (docs/protocol.md section 1)."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import urlencode, urlsplit

from flask import Blueprint, Response, make_response, render_template, request

from .faults import AUTHORIZE_ERRORS, respond
from .grants import SIGN_IN_LIFETIME, AuthorizationRequest, SignIn
from .state import current_state

bp = Blueprint("browser", __name__)

_NAME_LENGTH = 64


@bp.get("/")
def home() -> str:
    """Show what this server is, and who is signed in."""
    people = current_state().people.listed()
    return render_template("sandbox/home.html", people=people, sign_in=_current_sign_in())


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
        return _error_page("A parameter is repeated.")
    if query.get("client_id") != state.config.client_id:
        return _error_page(_problem_with("client_id"), "No such client is registered here.")
    redirect_uri = query.get("redirect_uri", "")
    if redirect_uri not in state.config.redirect_uris:
        return _error_page(
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
        return _redirect_back_with_error(authorization_request, *failure)
    sign_in = _current_sign_in()
    if sign_in:
        return _redirect_back_with_code(authorization_request, sign_in)
    return _sign_in_page(authorization_request, state.grants.new_form(authorization_request))


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


@bp.post("/sign-in")
def sign_in() -> Response:
    """Process the sign-in form."""
    state = current_state()
    form_token = request.form.get("form_token", "")
    authorization_request = state.grants.request_of_form(form_token)
    if authorization_request is None:
        return _error_page(
            "This sign-in page is out of date.", "Go back to the application and sign in again."
        )
    if "cancel" in request.form:
        return _redirect_back_with_error(
            authorization_request, "access_denied", "The person cancelled the sign-in."
        )
    name = request.form.get("username") or request.form.get("typed_username", "")
    username = unicodedata.normalize("NFC", name).strip()
    if not username or len(username) > _NAME_LENGTH or not username.isprintable():
        problem = f"Pick a person, or type a name of 1 to {_NAME_LENGTH} characters."
        return _sign_in_page(authorization_request, form_token, problem, 400)
    person = state.people.get(username)
    if person.disabled:
        problem = f"The account {username} is disabled."
        return _sign_in_page(authorization_request, form_token, problem, 403)
    cookie, new_sign_in = state.grants.sign_in(person)
    response = _redirect_back_with_code(authorization_request, new_sign_in)
    response.set_cookie(
        _cookie_name(),
        cookie,
        max_age=SIGN_IN_LIFETIME,
        httponly=True,
        samesite="Lax",
        secure=request.is_secure,
    )
    return response


def _current_sign_in() -> SignIn | None:
    return current_state().grants.sign_in_of_cookie(request.cookies.get(_cookie_name(), ""))


def _cookie_name() -> str:
    # Browsers share cookies between the ports of a host; two sandboxes must not.
    return f"sandbox_{request.environ['SERVER_PORT']}"


def _redirect_back_with_code(
    authorization_request: AuthorizationRequest, sign_in: SignIn
) -> Response:
    code = current_state().grants.new_code(sign_in, authorization_request)
    return _redirect_back(authorization_request, code=code)


def _redirect_back_with_error(
    authorization_request: AuthorizationRequest, error: str, description: str
) -> Response:
    return _redirect_back(authorization_request, error=error, error_description=description)


def _redirect_back(authorization_request: AuthorizationRequest, **parameters: str) -> Response:
    """Redirect the browser to the application with an authorization response."""
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


def _sign_in_page(
    authorization_request: AuthorizationRequest,
    form_token: str,
    problem: str | None = None,
    status: int = 200,
) -> Response:
    parts = urlsplit(authorization_request.redirect_uri)
    page = render_template(
        "sandbox/sign_in.html",
        application=f"{parts.scheme}://{parts.netloc}",
        people=current_state().people.listed(),
        form_token=form_token,
        problem=problem,
        name_length=_NAME_LENGTH,
    )
    return make_response(page, status)


def _error_page(
    problem: str,
    fix: str | None = None,
    *,
    sent: str | None = None,
    registered: tuple[str, ...] = (),
) -> Response:
    page = render_template(
        "sandbox/error.html", problem=problem, fix=fix, sent=sent, registered=registered
    )
    return make_response(page, 400)
