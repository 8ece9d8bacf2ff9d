"""How the application's error handling treats our exceptions, and its pages the current user."""

from __future__ import annotations

from typing import Any, Final, TypeGuard, TypeVar

from flask import Flask, request
from werkzeug.exceptions import HTTPException

from ..errors import SSOError

E = TypeVar("E", bound=HTTPException)

_IS_HANDLING: Final = "flask_devkit_sso.is_handling_error"


def answers(error: E) -> E:
    """Mark an exception that is our response to a request, and return it.

    Flask returns the response whatever the application has in TRAP_HTTP_EXCEPTIONS, which is about
    mistakes in its own code. The application's error handlers still apply.
    """
    error.is_devkit_sso = True  # type: ignore[attr-defined]
    return error


def is_handling_error() -> bool:
    """Return whether the current request has failed, so that what runs now is the application's
    error page, or a function that runs after it."""
    return _IS_HANDLING in request.environ


def watch_errors(app: Flask) -> None:
    """Extend Flask's two methods that turn exceptions into responses."""
    handle_user_exception, handle_exception = app.handle_user_exception, app.handle_exception

    def handle(error: Exception) -> Any:
        request.environ[_IS_HANDLING] = True
        if _is_response(error):
            # Without a status it is a redirect, to which no error handler applies.
            return app.handle_http_exception(error) if error.code else error.response
        return handle_user_exception(error)

    def handle_unexpected(error: Exception) -> Any:
        request.environ[_IS_HANDLING] = True
        if _is_response(error):
            # A function that runs after the view has raised it. It would become a 500.
            return app.finalize_request(error, from_error_handler=True)
        return handle_exception(error)

    app.handle_user_exception = handle  # type: ignore[assignment, method-assign]
    app.handle_exception = handle_unexpected  # type: ignore[assignment, method-assign]


def _is_response(error: Exception) -> TypeGuard[HTTPException]:
    """Return whether an exception is one of ours that is a response."""
    return isinstance(error, HTTPException) and (
        isinstance(error, SSOError) or hasattr(error, "is_devkit_sso")
    )
