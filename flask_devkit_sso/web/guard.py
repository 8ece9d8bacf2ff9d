"""Who may see a view: the current user, the decorators, and what an uninvited request is told."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
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

from ..errors import ConfigError, LoginFailed, ServerUnavailable, StoreUnavailable
from ..protocol.contract import ROLES
from ..service import EXTENSION, get_state
from ..session.sessions import Session
from ..users import Anonymous, User
from .pages import failed, here, is_ours, is_page_load, not_configured, page, safe_next

F = TypeVar("F", bound=Callable[..., Any])

_guarded_functions: WeakSet[Callable[..., Any]] = WeakSet()
"""What the decorators were given: registered as a view itself, it would be open."""


class Visit:
    """What is known about the visitor of one request; read at most once."""

    session: Session | None = None
    user: User | Anonymous = Anonymous()
    is_current = False

    def remember(self, session: Session | None) -> None:
        self.session = session
        self.user = get_state().hooks.make_user(session.user) if session else Anonymous()


def visit() -> Visit:
    """Return the current request's visit, by what the session says.

    It is kept in the WSGI environment: an application context may outlive a request in tests, and
    would hand one visitor's session to the next.

    :raises LoginFailed: ``store_unavailable``, which is not the same as "not signed in".
    """
    state = get_state()
    slot = f"flask_devkit_sso.visit.{id(state)}"
    known: Visit | None = request.environ.get(slot)
    if known is None:
        # Kept before anything can fail: an error page that looks at current_user sees nobody.
        known = request.environ[slot] = Visit()
        cookie = request.cookies.get(state.cookie_name)
        if cookie and state.sessions:
            with _explained_failures():
                known.remember(state.sessions.load(cookie))
    return known


def current_visit() -> Visit:
    """Return the current request's visit, once the server's word on its user is young enough.

    :raises LoginFailed: as :func:`visit`, ``server_unavailable`` when there is no such word, and
        ``not_configured`` where nobody could be asked for one.
    """
    now, state = visit(), get_state()
    # A session that tests made has no tokens, and needs no server.
    if now.session is not None and now.session.sealed_tokens is not None and not now.is_current:
        now.is_current, session = True, now.session
        now.remember(None)
        problems = state.problems(request)
        if problems or state.upkeep is None:
            raise failed(not_configured(problems))
        with _explained_failures():
            now.remember(state.upkeep.current(session))
    return now


@contextmanager
def _explained_failures() -> Iterator[None]:
    try:
        yield
    except StoreUnavailable as error:
        raise failed(LoginFailed("store_unavailable", hint=str(error))) from error
    except ServerUnavailable as error:
        raise failed(LoginFailed("server_unavailable", hint=error.description or "")) from error


def current_access_token() -> str:
    """See :meth:`DevKitSSO.access_token`; within a request."""
    now, upkeep = current_visit(), get_state().upkeep
    if now.session is None or upkeep is None:
        raise Unauthorized("Nobody is signed in.")
    token = upkeep.access_token(now.session)
    if token is None:
        now.remember(None)
        raise Unauthorized("The session has ended.")
    return token


def _find_user() -> User | Anonymous:
    return current_visit().user if has_request_context() else Anonymous()


current_user = cast(User, LocalProxy(_find_user))
"""The user of the current request: a proxy of a :class:`User`; anonymous outside a request."""


def require_user(roles: tuple[str, ...] = ()) -> None:
    """Let the current request pass, or raise its answer (docs: who needs to sign in).

    :param roles: any one of them will do; empty: being signed in is enough.
    """
    user = current_visit().user
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

    Above, it would guard nothing; no request is served then. That is not noticed where a decorator
    in between leaves :func:`functools.wraps` out.

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
    bare = []
    for endpoint, view in app.view_functions.items():
        function: Any = view
        while isinstance(function, partial):
            function = function.func
        if view in _guarded_functions or function in _guarded_functions:
            bare.append(f"{function.__module__}.{function.__qualname__} (endpoint {endpoint})")
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
    # A class's own mark alone: what inherits from an open view is not open.
    own = vars(getattr(view, "view_class", object))
    return not (getattr(view, "devkit_sso_public", False) or "devkit_sso_public" in own)


def finish(response: Response) -> Response:
    """Mark an answer that depends on who asked, so that no cache hands it to another.

    Nor may a browser show the page at the redirect_uri without asking: a login may come back there.
    """
    state = current_app.extensions[EXTENSION]
    visited = f"flask_devkit_sso.visit.{id(state)}" in request.environ
    # A streamed body is made later, and may ask then.
    may_visit = response.is_streamed and not response.direct_passthrough
    lands = state.lands_on(request.script_root + request.path)
    if visited or may_visit or lands:
        response.vary.add("Cookie")
    if visited or (may_visit and state.cookie_name in request.cookies):
        response.headers.setdefault("Cache-Control", "no-store")
    if visited and response.direct_passthrough and response.cache_control.public:
        # send_file says so whenever it is told an age, by SEND_FILE_MAX_AGE_DEFAULT for all files.
        response.cache_control.public = False
        response.cache_control.private = True
    if lands and not response.cache_control.no_store:
        response.headers["Cache-Control"] = "no-cache"
    return response
