"""What a person's browser sees: authorize and the sign-in page (docs/protocol.md section 1)."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import urlencode, urlsplit

from flask import Blueprint, Response, make_response, render_template, request

from .faults import AUTHORIZE_ERRORS, spoil
from .state import DAY, LoginRequest, the_state

bp = Blueprint("browser", __name__)

_NAME_LENGTH = 64


@bp.get("/")
def home() -> str:
    """Say what this is, to who looks."""
    state = the_state()
    sign_in = state.signed_in(request.cookies.get(_cookie_name(), ""))
    return render_template("sandbox/home.html", people=state.people(), sign_in=sign_in)


@bp.get("/sso/oauth2/authorize")
def authorize() -> Response:
    """Send the browser back with a code, or show it the sign-in page first."""
    how = the_state().take_fault("authorize")
    if how in AUTHORIZE_ERRORS:
        return _authorize(how)
    return spoil(how, lambda: _authorize(None))


def _authorize(error: str | None) -> Response:
    state = the_state()
    query = request.args
    if any(len(values) > 1 for _, values in query.lists()):
        return _error_page("A parameter is given twice.")
    if query.get("client_id") != state.config.client_id:
        return _error_page(_fault_of("client_id"), "It is not the client that is registered here.")
    redirect_uri = query.get("redirect_uri", "")
    if redirect_uri not in state.config.redirect_uris:
        return _error_page(
            _fault_of("redirect_uri"),
            "It must be one of the registered addresses, byte for byte.",
            sent=redirect_uri,
            registered=state.config.redirect_uris,
        )
    # From here on the redirect_uri can be trusted, and errors go there.
    asked = LoginRequest(
        redirect_uri, query.get("state") or None, query.get("code_challenge") or None
    )
    if error:
        return _send_back(asked, error=error, error_description="The sandbox was told to fail.")
    response_type = query.get("response_type", "")
    if response_type != "code":
        return _send_back(
            asked,
            error="unsupported_response_type" if response_type else "invalid_request",
            error_description="The response_type must be code.",
        )
    problem = _pkce_problem(asked.code_challenge, query.get("code_challenge_method"))
    if problem:
        return _send_back(asked, error="invalid_request", error_description=problem)
    sign_in = state.signed_in(request.cookies.get(_cookie_name(), ""))
    if sign_in:
        return _send_back(asked, code=state.new_code(sign_in, asked))
    return _sign_in_page(asked, state.new_form(asked))


def _fault_of(parameter: str) -> str:
    fault = "invalid" if request.args.get(parameter) else "missing"
    return f"The {parameter} parameter is {fault}."


def _pkce_problem(challenge: str | None, method: str | None) -> str | None:
    if challenge is None:
        return "A code_challenge_method needs a code_challenge." if method else None
    # RFC 7636: without a method it is "plain".
    if method != "S256":
        return "The code_challenge_method must be S256."
    if not re.fullmatch(r"[A-Za-z0-9_-]{43}", challenge):
        return "The code_challenge is not the SHA-256 of anything."
    return None


@bp.post("/sign-in")
def sign_in() -> Response:
    """Take the sign-in form."""
    state = the_state()
    token = request.form.get("form_token", "")
    asked = state.form(token)
    if asked is None:
        return _error_page(
            "This sign-in page is out of date.", "Go back to the application and sign in again."
        )
    if "cancel" in request.form:
        return _send_back(
            asked, error="access_denied", error_description="The person cancelled the sign-in."
        )
    given = request.form.get("username") or request.form.get("typed_username", "")
    username = unicodedata.normalize("NFC", given).strip()
    if not username or len(username) > _NAME_LENGTH or not username.isprintable():
        problem = f"Pick a person, or type a name of 1 to {_NAME_LENGTH} characters."
        return _sign_in_page(asked, token, problem, 400)
    person = state.person(username)
    if person.disabled:
        return _sign_in_page(asked, token, f"The account {username} is disabled.", 403)
    cookie, new = state.sign_in(person)
    response = _send_back(asked, code=state.new_code(new, asked))
    response.set_cookie(
        _cookie_name(),
        cookie,
        max_age=DAY,
        httponly=True,
        samesite="Lax",
        secure=request.is_secure,
    )
    return response


def _cookie_name() -> str:
    # Cookies do not know ports: with it in the name, two sandboxes on one host do not meet.
    return f"sandbox_{request.environ['SERVER_PORT']}"


def _send_back(asked: LoginRequest, **answer: str) -> Response:
    config = the_state().config
    if config.echo_state and asked.state is not None:
        answer["state"] = asked.state
    if config.issuer:
        answer["iss"] = request.host_url.rstrip("/")
    # 303 turns the form's POST into a GET.
    response = Response(status=302 if request.method == "GET" else 303)
    response.headers["Location"] = way_back(asked.redirect_uri, answer, config.code_position)
    return response


def way_back(redirect_uri: str, answer: dict[str, str], position: str) -> str:
    """Return the URL that carries an answer back (docs/protocol.md section 1).

    In a redirect_uri with a fragment the answer goes to the very end, or with the position
    ``"query"`` before the fragment. Nothing else of the redirect_uri changes.
    """
    base, hash_mark, fragment = redirect_uri.partition("#")
    if hash_mark and position == "end":
        return f"{base}#{_extend(fragment, answer)}"
    return f"{_extend(base, answer)}{hash_mark}{fragment}"


def _extend(text: str, answer: dict[str, str]) -> str:
    return f"{text}{'&' if '?' in text else '?'}{urlencode(answer)}"


def _sign_in_page(
    asked: LoginRequest, form_token: str, problem: str | None = None, status: int = 200
) -> Response:
    parts = urlsplit(asked.redirect_uri)
    page = render_template(
        "sandbox/sign_in.html",
        application=f"{parts.scheme}://{parts.netloc}",
        people=the_state().people(),
        form_token=form_token,
        problem=problem,
        name_length=_NAME_LENGTH,
    )
    return make_response(page, status)


def _error_page(
    problem: str,
    remedy: str | None = None,
    *,
    sent: str | None = None,
    registered: tuple[str, ...] = (),
) -> Response:
    page = render_template(
        "sandbox/error.html", problem=problem, remedy=remedy, sent=sent, registered=registered
    )
    return make_response(page, 400)
