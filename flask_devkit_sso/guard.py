"""Who may see a view: the current user, the decorators, and what an uninvited request is told."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast
from weakref import WeakSet

from flask import (
    Flask,
    Response,
    abort,
    current_app,
    has_request_context,
    jsonify,
    redirect,
    request,
    url_for,
)
from werkzeug.exceptions import Forbidden, Unauthorized
from werkzeug.local import LocalProxy

from .contract import ROLES
from .errors import ConfigError, LoginFailed, StoreUnavailable
from .pages import failed, here, is_ours, is_page_load, not_configured, page, safe_next
from .sessions import Session
from .state import EXTENSION, get_state
from .users import Anonymous, User

F = TypeVar("F", bound=Callable[..., Any])

_guarded_functions: WeakSet[Callable[..., Any]] = WeakSet()
"""What the decorators were given: registered as a view itself, it would be open."""


class Visit:
    """What is known about the visitor of one request; read at most once."""

    def __init__(self, session: Session | None) -> None:
        self.session = session
        self.user: User | Anonymous = Anonymous()
        if session is not None:
            self.user = make_user(session.user)


def make_user(info: Any) -> User:
    """Return the application's view of a judged user."""
    return User(info.uid, info.username, info.role, get_state().hooks.account_loader)


def visit() -> Visit:
    """Return the current request's visit.

    It is kept in the WSGI environment: an application context may outlive a request in tests, and
    would hand one visitor's session to the next.

    :raises LoginFailed: ``store_unavailable``, which is not the same as "not signed in".
    """
    state = get_state()
    slot = f"flask_devkit_sso.visit.{id(state)}"
    known: Visit | None = request.environ.get(slot)
    if known is None:
        cookie = request.cookies.get(state.cookie_name)
        try:
            session = state.sessions.load(cookie) if cookie and state.sessions else None
        except StoreUnavailable as error:
            raise failed(LoginFailed("store_unavailable", hint=str(error))) from error
        known = request.environ[slot] = Visit(session)
    return known


def _find_user() -> User | Anonymous:
    return visit().user if has_request_context() else Anonymous()


current_user = cast(User, LocalProxy(_find_user))
"""The user of the current request: a proxy of a :class:`User`; anonymous outside a request."""


def require_user(roles: tuple[str, ...] = ()) -> None:
    """Let the current request pass, or raise its answer (docs: who needs to sign in).

    :param roles: any one of them will do; empty: being signed in is enough.
    """
    user = visit().user
    if isinstance(user, Anonymous):
        _turn_away()
    if roles and user.role not in roles:
        raise Forbidden(response=_forbidden(user, roles))


def _turn_away() -> None:
    if problems := get_state().problems(request):
        raise failed(not_configured(problems))
    page_load = is_page_load(request)
    if page_load and request.method in ("GET", "HEAD"):
        abort(redirect(url_for("devkit_sso_authorize.login", next=safe_next(here(request)))))
    login_url = url_for("devkit_sso_authorize.login")
    if page_load:
        raise Unauthorized(response=page("form_not_sent.html", 401, login_url=login_url))
    response = jsonify(error="login_required", login_url=login_url)
    response.status_code = 401
    raise Unauthorized(response=response)


def _forbidden(user: User | Anonymous, roles: tuple[str, ...]) -> Response:
    if not is_page_load(request):
        response = jsonify(error="forbidden", roles=list(roles))
        response.status_code = 403
        return response
    return page(
        "forbidden.html",
        403,
        username=user.username,
        roles=list(roles),
        home_url=safe_next(None),
        logout_url=url_for("devkit_sso_authorize.logout"),
    )


def login_required(view: F) -> F:
    """Guard a view: only who is signed in sees it. Write it below ``@app.get``.

    :param view: a function, plain or async; for a class-based view put this in its ``decorators``.
    :raises TypeError: for anything else, such as a class or ``@login_required()``.
    """
    return _guard(view, ())


def role_required(*roles: str) -> Callable[[F], F]:
    """Guard a view: only who has one of the roles sees it. Write it below ``@app.get``.

    :param roles: ``"Admin"``, ``"User"`` or both.
    :raises ValueError: for no role, and for a name that the server never sends.
    """
    unknown = [role for role in roles if role not in ROLES]
    if unknown or not roles:
        raise ValueError(
            f"role_required takes one or more of {', '.join(ROLES)}, not {unknown or 'nothing'}"
        )
    return lambda view: _guard(view, roles)


def public(view: F) -> F:
    """Mark a view that :meth:`DevKitSSO.protect` leaves open."""
    view.devkit_sso_public = True  # type: ignore[attr-defined]
    return view


def _guard(view: F, roles: tuple[str, ...]) -> F:
    if not callable(view) or inspect.isclass(view):
        raise TypeError(
            f"{view!r} is no view function: write @login_required without parentheses, or for a "
            "class-based view: decorators = [login_required]"
        )
    layer: Any = view
    while layer is not None:
        _guarded_functions.add(layer)
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

    return cast(F, guarded)


def check_views(app: Flask) -> None:
    """Refuse to serve an application that has a guarded function as an open view.

    ``@login_required`` *above* ``@app.get`` guards what nobody calls: Flask has registered the
    bare function before.

    :raises ConfigError: naming each such view.
    """
    bare = [
        f"{view.__module__}.{view.__qualname__} (endpoint {endpoint})"
        for endpoint, view in app.view_functions.items()
        if view in _guarded_functions
    ]
    if bare:
        raise ConfigError(
            f"guarded, but registered as a view without its guard: {', '.join(bare)}. Write "
            "@login_required and @role_required below @app.get or @app.route, next to the function"
        )


def is_guardable(request: Any) -> bool:
    """Tell whether a request reaches a view that :meth:`DevKitSSO.protect` may guard."""
    rule = request.url_rule
    if rule is None or is_ours(request):
        return False
    if request.method == "OPTIONS" and rule.provide_automatic_options:
        return False
    view = current_app.view_functions[rule.endpoint]
    view_class = getattr(view, "view_class", None)
    return not any(getattr(item, "devkit_sso_public", False) for item in (view, view_class))


def finish(response: Response) -> Response:
    """Mark an answer that depends on who asked, so that no cache hands it to another.

    Nor may a browser show the page at the redirect_uri without asking: a login may come back there.
    """
    state = current_app.extensions[EXTENSION]
    if state.lands_on(request.script_root + request.path):
        response.vary.add("Cookie")
        if not response.cache_control.no_store:
            response.headers["Cache-Control"] = "no-cache"
    if f"flask_devkit_sso.visit.{id(state)}" in request.environ:
        response.vary.add("Cookie")
        response.headers.setdefault("Cache-Control", "no-store")
    return response
