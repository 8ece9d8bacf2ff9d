"""Requests that do not extend the idle timeout, such as those of a page that polls."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

from flask import Flask, Request

F = TypeVar("F", bound=Callable[..., Any])

HEADER: Final = "X-DevKit-SSO-Passive"

_MARK: Final = "devkit_sso_passive"


def passive(view: F) -> F:
    """Mark a view as passive: its requests do not extend the idle timeout.

    Use it for views that a page requests by itself, so that a page which polls does not keep its
    session alive for ever. A single request is passive if it has the header
    ``X-DevKit-SSO-Passive: 1``. Passive requests still need a session where a guard asks for one,
    and the user is still revalidated.

    :param view: a view function, plain or async, a class-based view or one of its methods. The
        order of ``passive``, guards and ``@app.get`` does not matter. Another decorator above
        ``passive`` hides the mark unless it uses :func:`functools.wraps`.
    """
    setattr(view, _MARK, True)
    return view


def is_passive(app: Flask, here: Request) -> bool:
    """Return whether a request does not extend the idle timeout.

    The view is found by its endpoint, because something may use the session before the view runs.
    """
    if here.headers.get(HEADER) == "1":
        return True
    view: Any = app.view_functions.get(here.endpoint or "")
    while isinstance(view, partial) and not hasattr(view, _MARK):
        view = view.func
    of_class = getattr(view, "view_class", None)
    if of_class is None:
        return hasattr(view, _MARK)
    # Flask passes HEAD to the method for GET if there is no other.
    name = "get" if here.method == "HEAD" else here.method.lower()
    method = getattr(of_class, here.method.lower(), None) or getattr(of_class, name, None)
    # Only the class's own mark counts: a subclass of a passive view is not passive.
    is_marked = hasattr(view, _MARK) or _MARK in vars(of_class)
    return is_marked or hasattr(method, _MARK) or hasattr(of_class.dispatch_request, _MARK)
