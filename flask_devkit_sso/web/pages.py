"""Renders the extension's own pages."""

from __future__ import annotations

from typing import Any

from flask import Response, request
from werkzeug.utils import redirect

from ..messages import Catalogue
from ..service import get_app, get_state
from .responses import html_response, keep
from .returning import default_url
from .templates import render


def catalogue() -> Catalogue:
    """Return the texts in the language that the request prefers."""
    return get_state().catalogues.choose(get_app(), request.accept_languages)


def set_language(response: Response, language: str) -> Response:
    """Declare a response's language, and that it depends on the request."""
    response.content_language.add(language)
    response.vary.add("Accept-Language")
    return response


def set_private(response: Response) -> Response:
    """Keep a response out of caches, and keep browsers from guessing its type."""
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def page(
    template: str,
    status: int = 200,
    *,
    form: bool = False,
    script: bool = False,
    framed: bool = False,
    **context: Any,
) -> Response:
    """Render one of our pages, with the headers that all of them have.

    The page repeats the policies in ``<meta>`` elements, because a proxy may replace the headers.

    :param form: whether the page contains a form. With ``no-referrer``, a browser would send the
        form with ``Origin: null``.
    :param script: whether the page loads one of our scripts.
    :param framed: whether other pages may show this one in a frame.
    """
    referrer = "same-origin" if form else "no-referrer"
    texts, settings = catalogue(), get_state().settings
    policy = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'self'"
    if settings.logo_url:
        policy += "; img-src 'self'"
    if script:
        policy += "; script-src 'self'; connect-src 'self'"
    frame = {
        "language": texts.language,
        "sso_text": texts.markup,
        "referrer_policy": referrer,
        "content_policy": policy,
        "app_name": settings.app_name,
        "logo_url": settings.logo_url,
        "start_url": default_url(),
    }
    response = html_response(render(template, frame | context), status)
    response.headers["Referrer-Policy"] = referrer
    response.headers["Content-Security-Policy"] = policy
    if not framed:
        # Browsers ignore frame-ancestors in a <meta> element.
        response.headers["Content-Security-Policy"] += "; frame-ancestors 'none'"
        response.headers["X-Frame-Options"] = "DENY"
    return set_private(set_language(response, texts.language))


def lead_to(url: str) -> Response:
    """Answer a form of one of our pages with a page that leads to another address.

    Chromium applies ``form-action`` to all redirects after a form is submitted. So it would block
    one to another site, even if that is a later one, such as the application's.
    """
    return page("forward.html", url=url)


def see_other(url: str) -> Response:
    """Redirect to another page. The response is not cached, and the next request has no Referer."""
    response = keep(redirect(url, 303, Response))
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
