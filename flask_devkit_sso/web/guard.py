"""Guards views: decides who may see a view, and responds to everybody else."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Set
from functools import wraps
from typing import Any, TypeVar, cast
from weakref import WeakSet

from flask import (
    Blueprint,
    Flask,
    Response,
    current_app,
    redirect,
    request,
)
from werkzeug.exceptions import Forbidden, HTTPException, Unauthorized

from ..errors import LoginFailed
from ..protocol.contract import ROLES
from ..service import get_service
from ..users import Anonymous, User
from .error_handling import answers
from .failures import as_login_failed
from .pages import page
from .place import require_sign_in_host, url_for
from .request_user import verified_user
from .requests import is_frame, is_ours, is_page_load
from .responses import json_response
from .returning import default_url, return_url

F = TypeVar("F", bound=Callable[..., Any])

guarded_functions: WeakSet[Callable[..., Any]] = WeakSet()
"""The functions that decorators received. One that is itself registered as a view has no guard."""

guards: WeakSet[Callable[..., Any]] = WeakSet()
"""The functions that decorators returned."""


def login_required(view: F) -> F:
    """Guard a view so that only people who are signed in see it.

    Write it directly below ``@app.get``, above all other decorators: what a decorator above the
    guard caches is shown to everybody. Above ``@app.get`` it would guard nothing. In both cases the
    application refuses to serve requests, unless it cannot see the mistake: a decorator that does
    not use :func:`functools.wraps` hides it.

    :param view: a function, plain or async. For a class-based view, put ``login_required`` into
        its ``decorators``.
    :raises TypeError: for anything but a function, such as a class, and for ``@login_required()``.
    """
    return _guard(view, ())


def role_required(*roles: str) -> Callable[[F], F]:
    """Guard a view so that only people with one of the roles see it.

    Write it directly below ``@app.get``, above all other decorators.

    :param roles: ``"Admin"``, ``"User"`` or both.
    :raises ValueError: if no role is given, or a role that does not exist.
    """
    check_roles(roles)
    return lambda view: _guard(view, roles)


def check_roles(roles: tuple[str, ...]) -> None:
    """Check the roles that a guard requires.

    :raises ValueError: if there are none, or if one does not exist.
    """
    unknown = [role for role in roles if role not in ROLES]
    if unknown or not roles:
        raise ValueError(f"roles are one or more of {', '.join(ROLES)}, not {unknown or 'nothing'}")


def public(view: F) -> F:
    """Mark a view as public, so that :meth:`DevKitSSO.protect` does not guard it."""
    view.devkit_sso_public = True  # type: ignore[attr-defined]
    return view


def require_user(roles: tuple[str, ...] = ()) -> None:
    """Let the current request pass, or raise an exception with the response to it.

    :param roles: the user needs one of them. If it is empty, being signed in is enough.
    :raises LoginFailed: as :func:`verified_user`.
    :raises Unauthorized: if nobody is signed in. If a page is loaded, the exception is a redirect
        to the login instead.
    :raises Forbidden: if the user has none of the roles.
    """
    user = verified_user().user
    if isinstance(user, Anonymous):
        _ask_to_sign_in()
    if roles and user.role not in roles:
        raise answers(Forbidden(response=forbidden(user, roles)))


def is_guardable(request: Any) -> bool:
    """Return whether a request is for a view that :meth:`DevKitSSO.protect` may guard."""
    rule = request.url_rule
    if rule is None or is_ours(request):
        return False
    if request.method == "OPTIONS" and rule.provide_automatic_options:
        return False
    view = current_app.view_functions[rule.endpoint]
    # Only the class's own mark counts: a subclass of a public view is not public.
    own = vars(getattr(view, "view_class", object))
    return not (getattr(view, "devkit_sso_public", False) or "devkit_sso_public" in own)


def is_one_of(endpoints: Set[str], target: Flask | Blueprint) -> bool:
    """Return whether the current request is for one of a target's endpoints.

    :param endpoints: complete names, or for a blueprint names with or without the blueprint's own.
    """
    if request.endpoint in endpoints:
        return True
    if not isinstance(target, Blueprint):
        return False
    # Look for the blueprint itself: another one may have its name, even one nested in it.
    names = [name for name in request.blueprints if current_app.blueprints.get(name) is target]
    own = [endpoint.removeprefix(f"{target.name}.") for endpoint in endpoints]
    return any(request.endpoint == f"{name}.{endpoint}" for name in names for endpoint in own)


def _guard(view: F, roles: tuple[str, ...]) -> F:
    if not callable(view) or inspect.isclass(view):
        raise TypeError(
            f"{view!r} is not a view function: write @login_required without parentheses, or for a "
            "class-based view: decorators = [login_required]"
        )
    layer: Any = view
    while layer is not None:
        guarded_functions.add(layer)
        layer = getattr(layer, "__wrapped__", None)

    if inspect.iscoroutinefunction(view):

        @wraps(view)
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            require_user(roles)
            return await view(*args, **kwargs)
    else:

        @wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            require_user(roles)
            return view(*args, **kwargs)

    guards.add(guarded)
    return cast(F, guarded)


def _ask_to_sign_in() -> None:
    """Raise the exception with the response to an anonymous request."""
    try:
        get_service()
        require_sign_in_host()
    except LoginFailed as error:
        raise as_login_failed(error)  # noqa: B904 - its cause is set
    page_load = is_page_load(request)
    login_url = url_for("devkit_sso_authorize.login", next=return_url())
    if page_load and request.method in ("GET", "HEAD"):
        raise answers(HTTPException(response=redirect(login_url)))
    if page_load:
        raise answers(Unauthorized(response=page("form_not_sent.html", 401, login_url=login_url)))
    if is_frame(request):
        raise answers(
            Unauthorized(response=page("framed.html", 401, framed=True, login_url=login_url))
        )
    raise answers(Unauthorized(response=login_required_json(login_url)))


def login_required_json(login_url: str) -> Response:
    """Return the response for a script that nobody is signed in."""
    return json_response(401, error="login_required", login_url=login_url)


def forbidden(user: User | Anonymous, roles: tuple[str, ...]) -> Response:
    """Return the response for a user who has none of the roles."""
    if not is_page_load(request):
        return json_response(403, error="forbidden", roles=list(roles))
    return page(
        "forbidden.html",
        403,
        username=user.username,
        roles=list(roles),
        home_url=default_url(),
        logout_url=url_for("devkit_sso_authorize.logout"),
    )
