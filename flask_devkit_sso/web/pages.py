"""The extension's own pages and JSON answers, and how to tell which of them a request wants."""

from __future__ import annotations

import logging
import re
from typing import Any, Final
from urllib.parse import quote, unquote

from flask import (
    Request,
    Response,
    current_app,
    jsonify,
    make_response,
    render_template,
    request,
    url_for,
)
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

from ..errors import REASONS, RETRY_AFTER, LoginFailed, StoreUnavailable
from ..messages import Catalogue
from ..service import get_app, get_state
from ..session.logins import MAX_NEXT

log: Final = logging.getLogger("flask_devkit_sso")

_NO_LOGIN: Final = ("cross_site", "not_configured", "store_unavailable")
"""The reasons for which another login is no remedy."""

_OUR_ENDPOINTS: Final = ("devkit_sso_authorize.", "devkit_sso_callback.")


def is_page_load(request: Request) -> bool:
    """Tell whether a browser asks for a page that a person will look at (Fetch Metadata, Accept).

    ``*/*`` alone is none: that is what scripts and tools send.
    """
    destination = request.headers.get("Sec-Fetch-Dest")
    if destination:
        return destination == "document"
    if "X-Requested-With" in request.headers:
        return False
    accept = request.headers.get("Accept")
    return not accept or any(kind == "text/html" for kind in request.accept_mimetypes.values())


def wants_json(request: Request) -> bool:
    """Tell whether a request prefers JSON to a page; one that names neither may send JSON."""
    accepted = request.accept_mimetypes
    html, json = accepted["text/html"], accepted["application/json"]
    return json > html if json != html else request.is_json or not is_page_load(request)


def is_same_origin(request: Request) -> bool:
    """Tell whether a POST comes from a page of this site: Fetch Metadata, else Origin."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = _origin()
    return bool(origin) and request.headers.get("Origin", "").lower() == origin.lower()


def starts_here(request: Request) -> bool:
    """Tell whether a navigation began on this site or in the address bar, not on another site."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = _origin()
    return bool(origin) and f"{request.referrer}/".startswith(f"{origin}/")


def is_ours(request: Request) -> bool:
    """Tell whether a request is for one of the extension's own routes."""
    return (request.endpoint or "").startswith(_OUR_ENDPOINTS)


def _origin() -> str:
    found = re.match(r"https?://[^/?#]+", get_state().redirect_uri(request) or "")
    if found is None:
        return ""
    # As browsers write an origin: without the port that goes without saying.
    return found[0].removesuffix(":443" if found[0].startswith("https:") else ":80")


def here(request: Request) -> str:
    """Return the address of the current page, as :func:`safe_next` accepts it."""
    path = quote(request.script_root + request.path, safe="/-._~!$&'()*+,;=:@")
    query = quote(request.query_string, safe="/?-._~!$&'()*+,;=:@%")
    return f"{path}?{query}" if query else path


def safe_next(url: str | None) -> str:
    """Return where a login leads: ``url`` if that surely stays on this site, else the default.

    The list of what may be in it holds nothing that Werkzeug or a browser rewrites, so what is
    judged here is what will be emitted. A way back into our own routes is no way back.
    """
    default = get_state().settings.after_login_url
    if default == "/":
        default = request.script_root + "/"
    if not url or len(url) > MAX_NEXT:
        return default
    if not re.fullmatch(r"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?#]|%[0-9A-Fa-f]{2})*", url):
        return default
    path = unquote(re.split(r"[?#]", url, maxsplit=1)[0])
    if "//" in path or "\\" in path or not {".", ".."}.isdisjoint(path.split("/")):
        return default
    if get_state().lands_on(path) and re.search(r"[?&]code=", url):
        # Where logins come back to: the code of one is no part of a page's address.
        return default
    return default if _leads_to_us(path) else url


def _leads_to_us(path: str) -> bool:
    adapter = current_app.create_url_adapter(request)
    root = request.script_root
    if adapter is None or not path.startswith(root):
        return False
    try:
        endpoint: str = adapter.match(path.removeprefix(root), method="GET")[0]
    except RequestRedirect:
        return False
    except HTTPException:
        # Unknown, or no GET there: a person coming back would be none the happier if it is ours.
        return path.startswith(root + get_state().settings.url_prefix + "/")
    return endpoint.startswith(_OUR_ENDPOINTS)


def catalogue() -> Catalogue:
    """Return the texts in the language that the request asks for."""
    return get_state().catalogues.choose(get_app(), request.accept_languages)


def speaks(response: Response, language: str) -> Response:
    """Say which language an answer is in, and that it was asked for."""
    response.content_language.add(language)
    response.vary.add("Accept-Language")
    return response


def page(
    template: str, status: int = 200, *, form: bool = False, script: bool = False, **context: Any
) -> Response:
    """Render a page of ours with the headers that all of them have.

    The policies stand in the page too: an extension such as Flask-Talisman replaces headers.

    :param form: whether it holds a form: under ``no-referrer`` a browser would send
        ``Origin: null`` with it.
    :param script: whether it loads the landing script.
    """
    referrer = "same-origin" if form else "no-referrer"
    policy = "default-src 'none'; style-src 'self'; base-uri 'none'"
    if script:
        policy += "; script-src 'self'; connect-src 'self'"
    texts = catalogue()
    html = render_template(
        f"devkit_sso/{template}",
        language=texts.language,
        sso_text=texts.markup,
        referrer_policy=referrer,
        content_policy=policy,
        **context,
    )
    response = make_response(html, status)
    response.headers["Referrer-Policy"] = referrer
    # Browsers don't take this part from a page.
    response.headers["Content-Security-Policy"] = f"{policy}; frame-ancestors 'none'"
    response.headers["X-Frame-Options"] = "DENY"
    return _private(speaks(response, texts.language))


def failed(error: LoginFailed) -> LoginFailed:
    """Log a failure and give it its answer, so that the caller can raise it.

    It is raised, not returned, so that an application's ``errorhandler(LoginFailed)`` wins.
    """
    status, reference = REASONS[error.reason], error.reference
    documented = f"docs/failures.md#{error.reason}"
    level = logging.ERROR if error.reason == "not_configured" else logging.WARNING
    log.log(
        level,
        "%s failed: %s (reference %s, see %s)%s",
        "login" if _is_about_login(error) else "request",
        error.reason,
        reference,
        documented,
        f": {error.hint}" if error.hint else "",
    )
    if wants_json(request):
        texts = catalogue()
        response = jsonify(
            error=error.reason,
            message=error.message or texts.texts[f"failure.{error.reason}.message"],
            reference=reference,
            login_url=_login_url(error),
        )
        response.status_code = status
        _private(speaks(response, texts.language))
    else:
        login_url = _login_url(error, next=error.next)
        response = page(
            "failure.html",
            status,
            reason=error.reason,
            message=error.message,
            reference=reference,
            login_url=login_url,
            again_url=None if login_url else _again_url(),
            hint=error.hint if current_app.debug else None,
            documented=documented if current_app.debug else None,
        )
    if status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER)
    error.response = response
    return error


def store_unavailable(error: StoreUnavailable) -> Any:
    """Answer for a view that met store trouble by way of the extension: 503, not 500."""
    failure = failed(LoginFailed("store_unavailable", hint=str(error)))
    failure.__cause__ = error
    # So that the application's own handler for LoginFailed has its say.
    return current_app.handle_user_exception(failure)


def _is_about_login(error: LoginFailed) -> bool:
    """Tell whether another login may help: not whom an outage meets on the application's pages."""
    return error.reason not in _NO_LOGIN and is_ours(request)


def _login_url(error: LoginFailed, next: str | None = None) -> str | None:
    return url_for("devkit_sso_authorize.login", next=next) if _is_about_login(error) else None


def _again_url() -> str | None:
    """Return where a person tries again what was not about a login; never a code's address."""
    if not is_ours(request):
        # A form of the application's can only be sent again by the browser.
        return safe_next(here(request)) if request.method in ("GET", "HEAD") else None
    if (request.endpoint or "").startswith("devkit_sso_callback."):
        return url_for("devkit_sso_authorize.login")
    return here(request)


def not_configured(problems: list[str]) -> LoginFailed:
    """Return the failure for an application on which nobody can sign in.

    :param problems: sentences, the mends among them.
    """
    return LoginFailed("not_configured", hint=". ".join(problems) + ".")


def _private(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
