"""The cookies of the extension."""

from __future__ import annotations

from typing import Final

from flask import Response, request
from werkzeug.http import http_date

from ..service import get_state

_LONG_AGO: Final = http_date(0)
"""The date that deletes a cookie. Werkzeug's ``delete_cookie`` formats it each time."""


def set_cookie(
    response: Response,
    name: str,
    value: str,
    max_age: int | None = None,
    *,
    expires: str | None = None,
) -> Response:
    """Set one of our cookies. ``max_age`` is in seconds; None keeps it until the browser closes.

    :param expires: a date that says the same as ``max_age``. By default, Werkzeug calculates it.
    """
    response.set_cookie(
        name,
        value,
        max_age=max_age,
        expires=expires,
        path="/",
        secure=get_state().is_secure,
        httponly=True,
        samesite="Lax",
    )
    return response


def delete_cookie(response: Response, name: str) -> Response:
    """Delete one of our cookies."""
    return set_cookie(response, name, "", 0, expires=_LONG_AGO)


def login_and_session_cookies() -> dict[str, str]:
    """Return the current request's cookies of a session or of logins in progress."""
    state = get_state()
    session, logins = state.session_cookie, state.login_cookie_prefix
    return {
        name: value
        for name, value in request.cookies.items()
        if name == session or name.startswith(logins)
    }
