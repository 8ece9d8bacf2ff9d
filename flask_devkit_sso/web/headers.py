"""Keeps responses that depend on the user out of caches."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response

from ..service import get_request, get_state
from .place import is_landing_path
from .request_user import has_loaded_user
from .requests import ME, is_page_load
from .responses import is_cors, restore
from .returning import close_headers


def watch_responses(app: Flask) -> None:
    """Extend Flask's method that completes each response, so that ours sees the headers that the
    application's functions and its session have set."""
    process = app.process_response

    def process_response(*args: Any) -> Response:
        return _add_cache_headers(process(*args))

    app.process_response = process_response  # type: ignore[assignment, method-assign]


def _add_cache_headers(response: Response) -> Response:
    """Restore a response of ours, and mark one that depends on the user, so that no cache serves it
    to somebody else.

    No browser may keep a page at the redirect URI, because an authorization response may arrive
    there. With ``no-cache``, the Back button could show the page that the browser has kept, with a
    code in its address.
    """
    state, here = get_state(), get_request()
    response = restore(response, here)
    headers = response.headers
    depends = has_loaded_user(here)
    # The body of a stream is created later, and may read current_user then.
    may_depend = response.is_streamed and not response.direct_passthrough
    lands = is_landing_path(state, here)
    if depends or may_depend or lands:
        # Asking for a header that is missing takes longer than all of this function.
        present = {name.lower() for name, _ in headers}
        if "vary" in present:
            response.vary.add("Cookie")
        else:
            headers.add("Vary", "Cookie")
        is_private = depends or (may_depend and state.find_session_cookie(here.cookies))
        if is_private and "cache-control" not in present:
            headers.add("Cache-Control", "no-store")
    if close_headers(here):
        # A cache would serve the address from one person's request to another person.
        headers["Cache-Control"] = "private, no-store"
    if depends and response.direct_passthrough and response.cache_control.public:
        # send_file adds it with a max_age, which SEND_FILE_MAX_AGE_DEFAULT sets for all files.
        response.cache_control.public = False
        response.cache_control.private = True
    if lands and not response.cache_control.no_store:
        is_shown = response.mimetype == "text/html" or is_page_load(here)
        response.headers["Cache-Control"] = "no-store" if is_shown else "no-cache"
    if here.endpoint == ME:
        # Whatever the application adds to all its responses, such as with Flask-CORS.
        response.headers["Cache-Control"] = "no-store"
        for name, _ in list(response.headers):
            if is_cors(name):
                del response.headers[name]
    return response
