"""The extension object: what an application makes, registers and asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, TypeVar

from flask import Blueprint, Flask, Response, has_request_context, request, url_for

from .config.settings import read_secret_keys, read_settings
from .errors import ConfigError, StoreUnavailable
from .service import EXTENSION, MAKE_A_KEY, State, collect, get_app, get_state
from .users import Hooks
from .web.guard import (
    check_views,
    current_access_token,
    current_user,
    finish,
    is_guardable,
    require_user,
)
from .web.pages import here, is_ours, log, safe_next, store_unavailable
from .web.views import landing, make_authorize_blueprint, make_callback_blueprint

F = TypeVar("F", bound=Callable[..., Any])


class DevKitSSO:
    """Signs the users of a Flask application in through DevKit single sign-on.

    :param app: the application; or none, and :meth:`init_app` later. One object may serve several
        applications: what belongs to one is in its ``app.extensions["devkit_sso"]``.
    """

    def __init__(self, app: Flask | None = None) -> None:
        self._hooks = Hooks()
        self.authorize_blueprint = make_authorize_blueprint()
        """What starts and ends a sign-in: ``devkit_sso_authorize``, registered by ``init_app``."""
        self.callback_blueprint = make_callback_blueprint()
        """What completes a login: ``devkit_sso_callback``, registered by ``init_app``."""
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Read the settings of an application and register the routes on it.

        They are in ``app.config`` and, below it, in the credentials file. Nothing is written, no
        store opened and no network used before a request needs it. What is missing in the settings
        is logged once, at ERROR; the application works without sign-ins.

        :raises ConfigError: when a setting or the credentials file is wrong, or the application has
            been here before.
        """
        if EXTENSION in app.extensions:
            raise ConfigError("This application has been initialised already: call init_app once")
        reading = read_settings(app.config, app.instance_path)
        secret_keys: list[bytes] = []
        try:
            secret_keys = read_secret_keys(app.config)
        except ConfigError as error:
            reading.wrong.append(str(error))
        state = State(app, reading, secret_keys, self._hooks)
        collected = collect(app)
        if reading.wrong and not collected:
            raise ConfigError("\n".join(reading.wrong))
        app.extensions[EXTENSION] = state
        if not collected:
            _log_problems(state)

        # Before and after all others, even those registered already: an application that does not
        # change may redirect in one of its own, and a fragment would be carried along.
        app.before_request_funcs.setdefault(None, []).insert(0, self._before_request)
        app.after_request_funcs.setdefault(None, []).insert(0, finish)
        app.register_error_handler(StoreUnavailable, store_unavailable)
        app.context_processor(lambda: self._template_context(app))
        for blueprint in (self.authorize_blueprint, self.callback_blueprint):
            app.register_blueprint(blueprint, url_prefix=state.settings.url_prefix)

    def protect(self, target: Flask | Blueprint, *, public: Iterable[str] = ()) -> None:
        """Require a login for every view of an application or of a blueprint.

        :param target: a blueprint before it is registered, or an application.
        :param public: endpoints that stay open; those of a blueprint with or without its name.
        """
        if isinstance(public, str):
            raise TypeError("public takes a list of endpoints, not a string")
        open_endpoints = frozenset(public)

        @target.before_request
        def guard() -> None:
            if not is_guardable(request) or request.endpoint in open_endpoints:
                return
            if isinstance(target, Blueprint):
                names = [name for name in request.blueprints if _last(name) == target.name]
                if any(request.endpoint == f"{b}.{e}" for b in names for e in open_endpoints):
                    return
            require_user()

    def on_login(self, function: F) -> F:
        """Have ``function(user)`` run at each login, before there is a session.

        It may raise :class:`~flask_devkit_sso.LoginRefused`; another exception is a 500, and no
        login either.
        """
        self._hooks.on_login.append(function)
        return function

    def account_loader(self, function: F) -> F:
        """Have ``function(user)`` make what ``current_user.account`` is, at most once a request."""
        self._hooks.account_loader = function
        return function

    def login_url(self, next: str | None = None) -> str:
        """Return the address that starts a login.

        :param next: a path on this site to come to; by default the current page, where it is one.
        """
        if next is None and has_request_context() and not is_ours(request):
            next = here(request) if request.method in ("GET", "HEAD") else None
        if next is not None and has_request_context():
            next = safe_next(next)
        return url_for("devkit_sso_authorize.login", next=next)

    def logout_url(self) -> str:
        """Return the address that asks whether to sign out, and does so when it is posted to."""
        return url_for("devkit_sso_authorize.logout")

    def access_token(self) -> str:
        """Return a valid access token of the current user, refreshed when it must be.

        :raises Unauthorized: when nobody is signed in, or the server refuses another token, which
            ends the session.
        :raises ServerError, ServerUnavailable: when a refresh is due and fails.
        :raises RuntimeError: outside a request, where there is no current user.
        """
        if not has_request_context():
            raise RuntimeError(
                "access_token() belongs to the current user, so it needs a request: get the token "
                "in the view, and hand it to what runs outside"
            )
        return current_access_token()

    def end_sessions(self, uid: str) -> int:
        """End every session of a user, on every worker and host; return how many there were.

        Needs an application context.

        :raises StoreUnavailable: when it cannot be done now; some may have ended all the same, so
            do it again. A view that lets it pass answers as for a LoginFailed.
        """
        return get_state().end_sessions(uid)

    def _before_request(self) -> Response | None:
        app = get_app()
        state = get_state()
        if not state.checked:
            check_views(app)
            # Flask-WTF would refuse our POSTs, which check their origin themselves.
            if "csrf" in app.extensions:
                for blueprint in (self.authorize_blueprint, self.callback_blueprint):
                    app.extensions["csrf"].exempt(blueprint)
            state.checked = True
        if state.debts is not None:
            state.debts.look()
        return landing()

    def _template_context(self, app: Flask) -> dict[str, Any]:
        context: dict[str, Any] = {
            "devkit_sso": SimpleNamespace(
                current_user=current_user, login_url=self.login_url, logout_url=self.logout_url
            )
        }
        if not hasattr(app, "login_manager"):
            context["current_user"] = current_user
        return context


def _log_problems(state: State) -> None:
    if state.missing:
        log.error("nobody can sign in: %s.", ". ".join(state.told_missing()))
    for warning in state.reading.warnings:
        log.warning("%s", warning)
    if state.weak_key:
        log.warning(
            "SECRET_KEY is weak, so without debug or testing nobody can sign in: %s", MAKE_A_KEY
        )
    if state.settings.insecure_http:
        log.warning("DEVKIT_SSO_INSECURE_HTTP is on: secrets may travel readable for others")


def _last(name: str) -> str:
    return name.rpartition(".")[2]
