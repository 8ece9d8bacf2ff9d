"""The sign-in form: who signs in, and in which browser."""

from __future__ import annotations

import unicodedata
from urllib.parse import urlsplit

from flask import Blueprint, Response, make_response, render_template, request

from .authorization_response import redirect_with_code, redirect_with_error
from .forms import Forms
from .grants import SIGN_IN_LIFETIME, AuthorizationRequest, SignIn
from .pages import error_page
from .people import Person
from .state import current_state

bp = Blueprint("sign_in", __name__)

_NAME_LENGTH = 64
_SIGN_IN, _FORM = "sandbox", "sandbox_form"


def current_sign_in() -> SignIn | None:
    """Return who is signed in in the browser that sent the request."""
    cookie = request.cookies.get(_cookie_name(_SIGN_IN), "")
    return current_state().grants.sign_in_of_cookie(cookie)


def new_form(authorization_request: AuthorizationRequest) -> Response:
    """Show a sign-in form, which continues an authorization request."""
    browser = request.cookies.get(_cookie_name(_FORM)) or Forms.new_browser()
    token = current_state().forms.new_token(authorization_request, browser)
    response = _form_page(authorization_request, token)
    _set_cookie(response, _FORM, browser)
    return response


@bp.post("/sign-in")
def submit() -> Response:
    """Process a sign-in form."""
    state = current_state()
    token = request.form.get("form_token", "")
    browser = request.cookies.get(_cookie_name(_FORM), "")
    authorization_request = state.forms.request_of(token, browser)
    if authorization_request is None:
        return error_page(
            "This sign-in page is out of date, or was opened in another browser.",
            "Go back to the application and sign in again. The browser has to accept cookies.",
        )
    if "cancel" in request.form:
        return redirect_with_error(
            authorization_request, "access_denied", "The person cancelled the sign-in."
        )
    name = request.form.get("username") or request.form.get("typed_username", "")
    username = unicodedata.normalize("NFC", name).strip()
    if not username or len(username) > _NAME_LENGTH or not username.isprintable():
        problem = f"Pick a person, or type a name of 1 to {_NAME_LENGTH} characters."
        return _form_page(authorization_request, token, problem, 400)
    person = state.people.get(username)
    refusal = _check_password(person, authorization_request, token)
    if refusal is not None:
        return refusal
    if person.disabled:
        problem = f"The account {username} is disabled."
        return _form_page(authorization_request, token, problem, 403)
    # Always a new cookie: one that somebody knows from before must not become a sign-in.
    cookie, sign_in = state.grants.sign_in(person)
    response = redirect_with_code(authorization_request, sign_in)
    _set_cookie(response, _SIGN_IN, cookie, max_age=SIGN_IN_LIFETIME)
    return response


def _check_password(
    person: Person, authorization_request: AuthorizationRequest, token: str
) -> Response | None:
    """Return None if the person has no password or sent it, and otherwise what to respond."""
    if person.password_hash is None:
        return None
    password = request.form.get("password")
    if password is None:
        return _form_page(authorization_request, token, person=person)
    guesses = current_state().password_guesses
    if not guesses.take(person.username):
        problem = f"Too many wrong passwords. Wait {guesses.seconds} seconds."
        response = _form_page(authorization_request, token, problem, 429, person)
        response.headers["Retry-After"] = str(guesses.seconds)
        return response
    if not person.has_password(password):
        problem = "The password is wrong."
        return _form_page(authorization_request, token, problem, 403, person)
    guesses.forget(person.username)
    return None


def _form_page(
    authorization_request: AuthorizationRequest,
    token: str,
    problem: str | None = None,
    status: int = 200,
    person: Person | None = None,
) -> Response:
    """Return the page that asks who signs in or, if it is known, for the person's password."""
    parts = urlsplit(authorization_request.redirect_uri)
    page = render_template(
        "sandbox/password.html" if person else "sandbox/sign_in.html",
        application=f"{parts.scheme}://{parts.netloc}",
        people=current_state().people.listed(),
        person=person,
        form_token=token,
        problem=problem,
        name_length=_NAME_LENGTH,
    )
    return make_response(page, status)


def _set_cookie(response: Response, name: str, value: str, max_age: int | None = None) -> None:
    response.set_cookie(
        _cookie_name(name),
        value,
        max_age=max_age,
        httponly=True,
        samesite="Lax",
        secure=request.is_secure,
    )


def _cookie_name(name: str) -> str:
    # Browsers share cookies between the ports of a host; two sandboxes must not. A neighbouring
    # host cannot set a cookie whose name begins with __Host-, but such a cookie needs https.
    prefix = "__Host-" if request.is_secure else ""
    return f"{prefix}{name}_{request.environ['SERVER_PORT']}"
