"""The page that a person sees if the sign-in cannot continue."""

from __future__ import annotations

from flask import Response, make_response, render_template


def error_page(
    problem: str,
    fix: str | None = None,
    *,
    sent: str | None = None,
    registered: tuple[str, ...] = (),
) -> Response:
    """Return an error page, for an error that must not be sent to a redirect URI."""
    page = render_template(
        "sandbox/error.html", problem=problem, fix=fix, sent=sent, registered=registered
    )
    return make_response(page, 400)
