"""The extension object, which an application creates and initialises."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, Final, TypeVar

from flask import Blueprint, Flask, Request, Response, abort, has_request_context
from werkzeug.exceptions import BadRequest

from .config.problem import Problem, describe
from .config.secret_key import CREATE_KEY
from .errors import ConfigError, LoginFailed, StoreUnavailable
from .service import (
    EXTENSION,
    AppState,
    collect,
    get_request,
    get_session_service,
    refresh_state,
)
from .users import Hooks
from .web.blueprints import create_authorize_blueprint, create_callback_blueprint
from .web.csrf import exempt_our_routes
from .web.error_handling import watch_errors
from .web.failures import as_login_failed, handle_store_unavailable
from .web.flask_session import watch_flask_session
from .web.guard import check_roles, is_guardable, is_one_of, require_user
from .web.headers import watch_responses
from .web.landing import landing_page
from .web.place import find_place, find_route_problems, find_unreachable_rules, url_for
from .web.request_user import current_access_token, current_user, find_uid
from .web.requests import forget_query
from .web.returning import return_url, safe_next
from .web.urls import local_url
from .web.verify import is_unknown, unknown_path, watch_verify
from .web.view_checks import find_view_problems

F = TypeVar("F", bound=Callable[..., Any])

log: Final = logging.getLogger("flask_devkit_sso")


class DevKitSSO:
    """Signs the users of a Flask application in through DevKit single sign-on.

    :param app: the application, or None to call :meth:`init_app` later. One object may serve
        several applications. It keeps the state of each in ``app.extensions["devkit_sso"]``.
    """

    def __init__(self, app: Flask | None = None) -> None:
        self._hooks = Hooks()
        self.authorize_blueprint = create_authorize_blueprint()
        """``devkit_sso_authorize``: routes for login and logout. ``init_app`` registers it."""
        self.callback_blueprint = create_callback_blueprint()
        """``devkit_sso_callback``: routes that complete a login. ``init_app`` registers it."""
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Read the settings of an application and register the routes on it.

        The settings are in ``app.config`` and in the credentials file, which ``app.config``
        overrides. No file is written, no store opened and no network used before a request needs
        it. Missing settings are logged once, at ERROR. The application runs without them, but
        nobody can sign in.

        :raises ConfigError: if a setting or the credentials file is invalid, or if the application
            is already initialised.
        """
        if EXTENSION in app.extensions:
            raise ConfigError("This application is already initialised: call init_app only once")
        state = AppState(app, self._hooks)
        is_collected = collect(app)
        place = {}
        try:
            place = find_place(app, state.redirect_uri)
        except ConfigError as error:
            state.loaded.errors.append(Problem(str(error)))
        if state.loaded.errors and not is_collected:
            raise ConfigError("\n".join(map(str, state.loaded.errors)))
        app.extensions[EXTENSION] = state
        if not is_collected:
            _log_problems(state)

        self._run_first(app)
        watch_responses(app)
        watch_errors(app)
        watch_verify(app, self._prepare)
        app.register_error_handler(StoreUnavailable, handle_store_unavailable)
        app.context_processor(lambda: self._template_context(app))
        for blueprint in (self.authorize_blueprint, self.callback_blueprint):
            app.register_blueprint(blueprint, url_prefix=state.settings.url_prefix, **place)

    def protect(
        self,
        target: Flask | Blueprint,
        *,
        public: Iterable[str] = (),
        roles: Iterable[str] | None = None,
    ) -> None:
        """Require a login for every view of an application or of a blueprint.

        Guards add up: a request has to pass each ``protect`` that applies to its view, and the
        view's own ``login_required`` or ``role_required``.

        :param target: a blueprint before it is registered, or an application.
        :param public: endpoints that need no login. Endpoints of a blueprint may be given with or
            without its name. They still need one if another guard asks for it.
        :param roles: the user needs one of these roles, ``"Admin"`` or ``"User"``. By default,
            being signed in is enough.
        :raises TypeError: if ``public`` or ``roles`` is a string.
        :raises ValueError: if ``roles`` is empty or contains a role that does not exist.
        """
        if isinstance(public, str):
            raise TypeError("public takes a list of endpoints, not a string")
        if isinstance(roles, str):
            raise TypeError(f"roles takes a list of roles, not a string: write [{roles!r}]")
        open_endpoints = frozenset(public)
        required_roles = () if roles is None else tuple(roles)
        if roles is not None:
            check_roles(required_roles)

        @target.before_request
        def guard() -> None:
            here = get_request()
            if is_guardable(here) and not is_one_of(open_endpoints, target):
                require_user(required_roles)

    def on_login(self, function: F) -> F:
        """Register ``function(user)``, which runs at each login before there is a session.

        The function may raise :class:`~flask_devkit_sso.LoginRefused`. If it raises any other
        exception, the response is a 500, and the person is not signed in.
        """
        self._hooks.on_login.append(function)
        return function

    def account_loader(self, function: F) -> F:
        """Register ``function(user)``, which returns the value of ``current_user.account``.

        The function is called at most once per request.
        """
        self._hooks.account_loader = function
        return function

    def login_url(self, next: str | None = None) -> str:
        """Return the URL that starts a login.

        :param next: the address on this site to return to after the login. By default, the page
            that the person is on: the current one, or in a script's request the one that
            ``HX-Current-URL`` or ``Referer`` names.
        """
        if has_request_context():
            next = return_url() if next is None else safe_next(next)
        return url_for("devkit_sso_authorize.login", next=next)

    def logout_url(self) -> str:
        """Return the URL for signing out. A GET shows a page that asks for confirmation, and a POST
        signs out."""
        return url_for("devkit_sso_authorize.logout")

    def access_token(self) -> str:
        """Return a valid access token of the current user, refreshed if necessary.

        :raises Unauthorized: if nobody is signed in, or if the server refuses to refresh the token,
            which ends the session.
        :raises ServerError, ServerUnavailable: if a refresh is necessary and fails.
        :raises RuntimeError: outside a request, where there is no current user.
        """
        if not has_request_context():
            raise RuntimeError(
                "access_token() returns the current user's token, so it needs a request: call it "
                "in the view, and pass the token to code that runs outside the request"
            )
        return current_access_token()

    def end_sessions(self, uid: str) -> int:
        """End every session of a user, on every worker and host, and return how many there were.

        A login that waits for the user's confirmation (binding ``confirm``) ends too, but does not
        count.

        Needs an application context, but no settings other than SECRET_KEY and
        DEVKIT_SSO_STORE_URL.

        :raises StoreUnavailable: if the store fails. Some sessions may have ended already, so call
            it again. A view that does not catch it responds with 503.
        :raises LoginFailed: ``not_configured``, if there is no SECRET_KEY.
        """
        try:
            service = get_session_service()
        except LoginFailed as error:
            raise as_login_failed(error) if has_request_context() else error  # noqa: B904
        return service.end_sessions(uid)

    def _run_first(self, app: Flask) -> None:
        """Extend Flask's method that precedes each view.

        If a function of the application redirected before that, the browser would carry along a
        fragment that may contain an authorization code.
        """
        preprocess = app.preprocess_request

        def preprocess_request(*args: Any) -> Any:
            response = self._before_request(app, get_request())
            return preprocess(*args) if response is None else response

        app.preprocess_request = preprocess_request  # type: ignore[method-assign]

    def _before_request(self, app: Flask, here: Request) -> Response | None:
        state = self._prepare(app, here)
        response = landing_page(state, here)
        if response is not None:
            # The script reads the code in the browser.
            forget_query()
        elif is_unknown(state, here):
            return unknown_path(here)
        return response

    def _prepare(self, app: Flask, here: Request, *, at_any_host: bool = False) -> AppState:
        """Do what precedes each request, and return the application's state.

        :param at_any_host: whether to ignore TRUSTED_HOSTS.
        :raises HTTPException: if nothing may respond to the request.
        :raises ConfigError: if the application's views or routes are wrong.
        """
        known, state = app.extensions[EXTENSION], refresh_state(app)
        if state is not known:
            _log_problems(state)
        if here.script_root and local_url(here.script_root, "") is None:
            # Browsers could take every address of this application for one of another site. A
            # proxy that passes X-Forwarded-Prefix on lets a client do this.
            abort(400)
        if isinstance(here.routing_exception, BadRequest) and not at_any_host:
            # TRUSTED_HOSTS does not contain the host. Flask raises it only after this function.
            raise here.routing_exception
        if not state.has_checked_views:
            self._check_views(app, state)
            state.has_checked_views = True
        if state.service is not None:
            state.service.logouts.start_round()
        return state

    def _check_views(self, app: Flask, state: AppState) -> None:
        if problems := [*find_view_problems(app, state), *find_route_problems(app, state)]:
            raise ConfigError("\n".join(map(str, problems)))
        if rules := find_unreachable_rules(app, state):
            log.warning(
                "no request reaches %s: everything below DEVKIT_SSO_URL_PREFIX (%s) is the "
                "package's",
                ", ".join(rules),
                state.settings.url_prefix,
            )
        exempt_our_routes(app, self.authorize_blueprint, self.callback_blueprint)
        watch_flask_session(app, find_uid)
        if state.has_weak_key and not app.testing:
            # Not in init_app: tests may set TESTING after it.
            log.log(
                logging.WARNING if app.debug else logging.ERROR,
                "SECRET_KEY is weak, so without debug or testing nobody can sign in. %s",
                CREATE_KEY,
            )

    def _template_context(self, app: Flask) -> dict[str, Any]:
        context: dict[str, Any] = {
            "devkit_sso": SimpleNamespace(
                current_user=current_user, login_url=self.login_url, logout_url=self.logout_url
            )
        }
        if not hasattr(app, "login_manager"):
            context["current_user"] = current_user
        return context


def _log_problems(state: AppState) -> None:
    if problems := [*state.loaded.errors, *state.missing()]:
        log.error("nobody can sign in: %s", describe(problems))
    for warning in state.loaded.warnings:
        log.warning("%s", warning)
    if state.settings.insecure_http:
        log.warning("DEVKIT_SSO_INSECURE_HTTP is on: others may be able to read secrets")
