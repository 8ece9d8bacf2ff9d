"""Turns errors into responses: a page or JSON, and a line in the log with the same reference."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, cast

from flask import Response, current_app, request

from .. import signals
from ..errors import (
    REASONS,
    RETRY_AFTER,
    LoginFailed,
    ServerUnavailable,
    SSOError,
    StoreUnavailable,
    without_frames,
)
from ..service import get_app
from .pages import catalogue, page, set_language, set_private
from .place import url_for
from .requests import decode_query, is_ours, is_verify, wants_json
from .responses import json_response
from .returning import current_url, protected_url, safe_next

log: Final = logging.getLogger("flask_devkit_sso")

_LOGIN_IS_NO_REMEDY: Final = ("cross_site", "not_configured", "store_unavailable")


def as_login_failed(error: LoginFailed | ServerUnavailable | StoreUnavailable) -> LoginFailed:
    """Convert an error into a :class:`LoginFailed` without frames, log it, and attach its response.

    The caller raises it, so that an application's ``errorhandler(LoginFailed)`` takes precedence.
    """
    match error:
        case LoginFailed():
            failure = error
        case StoreUnavailable():
            failure = LoginFailed("store_unavailable", hint=str(error))
        case ServerUnavailable():
            failure = LoginFailed(error.reason, hint=error.description or "")
    if failure is not error:
        failure.__cause__ = error
    if failure.response is None:
        _respond(failure)
    return without_frames(failure)


def handle_store_unavailable(error: StoreUnavailable) -> Any:
    """Return the response for an application's view that did not catch the error."""
    return current_app.handle_user_exception(as_login_failed(error))


def handles_failures(view: Callable[[], Response]) -> Callable[[], Response]:
    """Decorate one of our views, so that a failure gets its response and sends the signal
    ``login_failed``.

    The response is not that of an application's handler for all errors, which may turn them into
    JSON.
    """

    @wraps(view)
    def handled() -> Response:
        decode_query(request)
        try:
            return view()
        except (LoginFailed, StoreUnavailable) as error:
            failure = as_login_failed(error)
        if failure.reason != "cross_site":
            signals.login_failed.send(get_app(), reason=failure.reason, error=failure)
        if _has_handler(failure) or failure.response is None:
            raise failure
        return cast(Response, failure.response)

    return handled


def _has_handler(failure: LoginFailed) -> bool:
    """Return whether the application has an error handler for this kind of failure."""
    handlers = get_app().error_handler_spec
    return any(
        issubclass(kind, SSOError) and isinstance(failure, kind)
        for scope in (None, *request.blueprints)
        for by_class in handlers.get(scope, {}).values()
        for kind in by_class
    )


def _respond(failure: LoginFailed) -> None:
    """Log a failure and give it its response."""
    status, reference = REASONS[failure.reason], failure.reference
    documented = f"docs/failures.md#{failure.reason}"
    level = logging.ERROR if failure.reason == "not_configured" else logging.WARNING
    log.log(
        level,
        "%s failed: %s (reference %s, see %s)%s",
        "login" if _is_about_login(failure) else "request",
        failure.reason,
        reference,
        documented,
        f": {failure.hint}" if failure.hint else "",
    )
    if wants_json(request):
        texts = catalogue()
        response = json_response(
            status,
            error=failure.reason,
            message=failure.message or texts.texts[f"failure.{failure.reason}.message"],
            reference=reference,
            login_url=_login_url(failure),
        )
        set_private(set_language(response, texts.language))
    else:
        login_url = _login_url(failure, next=failure.next)
        response = page(
            "failure.html",
            status,
            reason=failure.reason,
            message=failure.message,
            reference=reference,
            login_url=login_url,
            again_url=None if login_url else _again_url(),
            hints=_sentences(failure.hint) if current_app.debug else (),
            documented=documented if current_app.debug else None,
        )
    if status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER)
    failure.response = response


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.?]) (?=[A-Z])", text) if text else []


def _is_about_login(failure: LoginFailed) -> bool:
    """Return whether signing in again may help. It never helps on the application's own pages."""
    is_login = is_ours(request) and not is_verify(request)
    return is_login and failure.reason not in _LOGIN_IS_NO_REMEDY


def _login_url(failure: LoginFailed, next: str | None = None) -> str | None:
    return url_for("devkit_sso_authorize.login", next=next) if _is_about_login(failure) else None


def _again_url() -> str | None:
    """Return the address for "Try again" if signing in again does not help. It never contains an
    authorization code."""
    if is_verify(request):
        return protected_url()
    if not is_ours(request):
        # Only the browser can submit a form of the application again.
        return safe_next(current_url()) if request.method in ("GET", "HEAD") else None
    if (request.endpoint or "").startswith("devkit_sso_callback."):
        return url_for("devkit_sso_authorize.login")
    return current_url()
