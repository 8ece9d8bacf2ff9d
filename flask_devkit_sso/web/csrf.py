"""Keeps the application's CSRF protection from refusing our POSTs, which check their origin.

They carry no token of the application's: the landing page's script must not read its pages, and
Flask's session may not exist yet.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from flask import Blueprint, Flask, request

from .requests import is_ours

_LIBRARIES: Final = ("flask_wtf", "flask_seasurf")
"""The modules of extensions whose check is a method."""


def exempt_our_routes(app: Flask, *blueprints: Blueprint) -> None:
    """Exempt our routes from the CSRF protection of Flask-WTF and Flask-SeaSurf."""
    extension: Any = app.extensions.get("csrf")
    if hasattr(extension, "exempt"):
        for blueprint in blueprints:
            extension.exempt(blueprint)
    if _is_known(extension) and callable(getattr(extension, "protect", None)):
        # The application may call it itself, and then Flask-WTF ignores what is exempt.
        extension.protect = _skip_ours(extension.protect)
    for functions in app.before_request_funcs.values():
        functions[:] = [
            _skip_ours(function) if _is_known(getattr(function, "__self__", None)) else function
            for function in functions
        ]


def _is_known(extension: object) -> bool:
    return any(
        parent.__module__.partition(".")[0] in _LIBRARIES for parent in type(extension).__mro__
    )


def _skip_ours(check: Callable[..., Any]) -> Callable[..., Any]:
    if hasattr(check, "devkit_sso_skips"):
        return check

    @wraps(check)
    def checked(*args: Any, **kwargs: Any) -> Any:
        return None if is_ours(request) else check(*args, **kwargs)

    checked.devkit_sso_skips = True  # type: ignore[attr-defined]
    return checked
