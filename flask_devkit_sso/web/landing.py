"""The landing page: reads an authorization response from the address's fragment.

Browsers do not send the fragment (docs/protocol.md section 1), so a script reads it and posts it to
the callback.
"""

from __future__ import annotations

import json
from typing import Any, Final

from flask import Response, after_this_request, make_response, render_template, request
from werkzeug.exceptions import RequestEntityTooLarge

from ..errors import LoginFailed
from ..protocol.authorization import AuthorizationResponse
from ..service import get_state
from .cookies import delete_cookie
from .pages import catalogue, page, set_language
from .requests import is_page_load

_MAX_POST: Final = 32 * 1024
"""Maximum size of the body that the landing script posts, in bytes."""


def landing_page() -> Response | None:
    """Return the landing page if the current request may be the end of a login, or None.

    This runs before each request. The page is a 200, because a browser would carry the fragment
    along with a redirect.
    """
    state = get_state()
    uri, service = state.redirect_uri, state.service
    if (
        uri is None
        or request.method != "GET"
        or not uri.lands_on(request.script_root + request.path)
        or not is_page_load(request)
    ):
        return None
    passes = {
        name: value for name, value in request.cookies.items() if name.startswith(state.pass_cookie)
    }
    comes_back = request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site")
    if passes and (not comes_back or "2" in passes.values()):
        # The script sets a pass when it finds no authorization response, so this request is for the
        # application. But another tab may have set it, and a request that comes from the server may
        # have a response. It gets the landing page unless the script has run twice: some browsers
        # send the same Sec-Fetch-Site when a page is reloaded.
        @after_this_request
        def delete_passes(response: Response) -> Response:
            for name in passes:
                delete_cookie(response, name)
            return response

        return None
    if service is None or not service.logins.pending(request.cookies):
        return None
    return page("landing.html", script=True, pass_cookie=state.pass_cookie)


def landing_js() -> Response:
    """Return the landing page's script, which contains the redirect URI."""
    texts = catalogue()
    no_answer = render_template(
        "devkit_sso/no_answer.html", language=texts.language, sso_text=texts.markup
    )
    script = render_template(
        "devkit_sso/landing.js",
        redirect_uri=get_state().settings.redirect_uri or "",
        no_answer=no_answer,
    )
    response = make_response(script)
    response.mimetype = "text/javascript"
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Content-Type-Options"] = "nosniff"
    set_language(response, texts.language)
    response.add_etag()
    response.make_conditional(request)
    return response


def read_post() -> tuple[AuthorizationResponse, str]:
    """Return the authorization response that the landing script posts, and the hash (``#…``) of the
    page that was requested before the login.

    :raises LoginFailed: ``code_missing`` if the body has another form or is too long.
    """
    request.max_content_length = _MAX_POST
    try:
        # Without the cache, an error tracker cannot read the code from the request.
        text = request.get_data(cache=False).decode()
        fields = json.loads(text, object_pairs_hook=_unique_names)
    except (RequestEntityTooLarge, ValueError, RecursionError):
        raise LoginFailed("code_missing") from None
    if not (isinstance(fields, dict) and request.is_json):
        raise LoginFailed("code_missing")
    lists = {name: fields.get(name, []) for name in ("code", "error", "state", "s")}
    texts = {name: fields.get(name, "") for name in ("login", "hash")}
    flat = [*texts.values(), *(item for found in lists.values() for item in _as_list(found))]
    # JSON may contain half of a surrogate pair, which cannot be signed or sent.
    if not all(isinstance(item, str) and item.isprintable() for item in flat):
        raise LoginFailed("code_missing")
    return AuthorizationResponse(**lists, login=texts["login"]), texts["hash"]


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Reject a name that occurs twice: the script never sends one."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [None]
