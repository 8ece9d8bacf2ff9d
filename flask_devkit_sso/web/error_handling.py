"""Fits our exceptions and the current user into the application's error handling."""

from __future__ import annotations

from typing import Any, Final, TypeGuard, TypeVar

from flask import Flask, request
from werkzeug.exceptions import HTTPException

from ..errors import SSOError

E = TypeVar("E", bound=HTTPException)

_IS_HANDLING: Final = "flask_devkit_sso.is_handling_error"


def answers(error: E) -> E:
    """Mark an exception that is our response to a request, and return it.

    Flask returns its response even with TRAP_HTTP_EXCEPTIONS, which is meant for mistakes in the
    application's own code. The application's error handlers still apply.
    """
    error.is_devkit_sso = True  # type: ignore[attr-defined]
    return error


def is_handling_error() -> bool:
    """Return whether the current request has failed, so that the application's error page is being
    created, or a function is running after it."""
    return _IS_HANDLING in request.environ


def watch_errors(app: Flask) -> None:
    """Extend Flask's two methods that turn exceptions into responses.

    The exception is their last argument. A class of the application's, or a later version of Flask,
    may pass its context as the first one.
    """
    handle_user_exception, handle_exception = app.handle_user_exception, app.handle_exception

    def handle(*args: Any) -> Any:
        request.environ[_IS_HANDLING] = True
        if _is_response(error := args[-1]):
            # Without a status, it is a redirect, and no error handler applies.
            return app.handle_http_exception(*args) if error.code else error.response
        return handle_user_exception(*args)

    def handle_unexpected(*args: Any) -> Any:
        request.environ[_IS_HANDLING] = True
        if _is_response(args[-1]):
            # A function that runs after the view raised it. Flask would respond with 500.
            return app.finalize_request(*args, from_error_handler=True)  # type: ignore[misc]
        return handle_exception(*args)

    app.handle_user_exception = handle  # type: ignore[assignment, method-assign]
    app.handle_exception = handle_unexpected  # type: ignore[assignment, method-assign]


def _is_response(error: Exception) -> TypeGuard[HTTPException]:
    """Return whether an exception is one of ours that is a response."""
    return isinstance(error, HTTPException) and (
        isinstance(error, SSOError) or hasattr(error, "is_devkit_sso")
    )
