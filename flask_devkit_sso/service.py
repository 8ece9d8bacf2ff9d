"""The extension's state in one application: ``app.extensions["devkit_sso"]``."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from flask import Flask, Request, current_app, has_request_context, request, url_for

from . import audit, signals
from .config.loading import (
    HOST_MATCHING,
    NO_REDIRECT_URI,
    AssignedConfig,
    is_missing,
    load_settings,
)
from .config.problem import Problem, describe
from .config.redirect_uri import RedirectURI, is_loopback
from .config.secret_key import CREATE_KEY, is_weak, read_secret_keys
from .config.settings import PREFIX
from .config.values import MEMORY
from .errors import ConfigError, LoginFailed
from .messages import Catalogues
from .protocol.client import Client
from .protocol.transport import Transport
from .session.ending import record_ends
from .session.keys import Keys
from .session.login_results import LoginResults
from .session.logins import Logins
from .session.logouts import PendingLogouts
from .session.maintenance import Maintenance
from .session.refresh import TokenRefresh
from .session.revalidate import Revalidation
from .session.sessions import Session, Sessions
from .session.verified_users import VerifiedUsers
from .store.base import Store, Unreplicated
from .store.open import open_store
from .users import Hooks

EXTENSION: Final = "devkit_sso"

LOOK_EVERY: Final = 1.0
"""Seconds after which ``app.config`` is compared with the settings that are in use."""

log: Final = logging.getLogger("flask_devkit_sso")


@dataclass(frozen=True)
class SessionService:
    """Everything that sessions need. It works without an authentication server."""

    store: Store
    keys: Keys
    sessions: Sessions
    verified_users: VerifiedUsers
    login_results: LoginResults

    def end_sessions(self, uid: str, by: str = "application") -> int:
        """End all sessions of a user and all logins that wait for the user's confirmation, forget
        what the server said about the user, and return how many sessions there were. Needs an
        application context.

        :param by: who does it, for the audit trail: ``application`` or ``command``.
        :raises StoreUnavailable: if the store fails. Some sessions may have ended already, so call
            it again. Also if all have ended, but a failover of the store could undo that.
        """
        unreplicated = None
        # First, because a login that was confirmed just before this is one of the sessions.
        try:
            self.login_results.remove_all(uid)
        except Unreplicated as error:
            unreplicated = error
        ended, ends_in_doubt = self.sessions.end_all(uid)
        audit.record("sessions_ended", by, uid=uid, count=len(ended))
        record_ends(ended, "ended")
        self.verified_users.forget(uid)
        if ended:
            signals.session_ended.send(get_app(), uid=uid, why="ended")
        if in_doubt := ends_in_doubt or unreplicated:
            raise in_doubt
        return len(ended)

    def end_session(self, name: str) -> Session | None:
        """End the session with a name, and return it, or None if there is none. Needs an
        application context.

        :raises StoreUnavailable: if the store fails. The session may have ended.
        """
        session = self.sessions.find(name)
        if session is None or self.sessions.end(session) is None:
            return None
        audit.record("sessions_ended", "command", uid=session.user.uid, session=name, count=1)
        record_ends([session], "ended")
        signals.session_ended.send(get_app(), uid=session.user.uid, why="ended")
        return session


@dataclass(frozen=True)
class Service(SessionService):
    """Everything that a login needs. It exists only if nothing is missing."""

    client: Client
    logins: Logins
    logouts: PendingLogouts
    maintenance: Maintenance


class AppState:
    """The settings of one application, and the services that could be created from them.

    All requests share it, so it contains nothing about a single user.

    :ivar loaded: the settings with everything that is wrong or missing.
    :ivar session_service: None without a SECRET_KEY or a usable store.
    :ivar service: None while anything that a login needs is missing.
    :ivar has_weak_key: whether SECRET_KEY or one of its fallbacks is weak.
    :ivar assigned: what ``app.config`` contained, to notice what is assigned later.
    :ivar look_at: when to compare it with ``app.config`` again, as ``time.monotonic`` counts.
    :ivar shares_origin: whether the authentication server has the redirect URI's origin.
    :ivar mount_point: the path below which browsers reach the application, as the redirect URI
        shows it, or "".
    :ivar prefix_segment: the last segment of ``DEVKIT_SSO_URL_PREFIX``.
    :ivar verify_path: the path of the route for forward authentication.
    """

    def __init__(self, app: Flask, hooks: Hooks) -> None:
        self._app = app
        self._needs_redirect_uri = app.url_map.host_matching
        self.assigned = AssignedConfig.read(app.config)
        self.look_at = 0.0
        self.loaded = load_settings(app.config, app.instance_path)
        self.settings = settings = self.loaded.settings
        self.hooks = hooks
        self.catalogues = Catalogues()
        self.redirect_uri: RedirectURI | None = None
        if settings.redirect_uri is not None:
            self.redirect_uri = RedirectURI(settings.redirect_uri, settings.callback_path)
        self.is_secure = self.redirect_uri is not None and self.redirect_uri.is_secure
        self.shares_origin = self.redirect_uri is not None and self.redirect_uri.shares_origin(
            settings.interface_url("authorize_url")
        )
        self.mount_point = ""
        if self.redirect_uri is not None:
            self.mount_point = self.redirect_uri.mount_point(app.config["APPLICATION_ROOT"])
        self.prefix_segment = settings.url_prefix.rpartition("/")[2]
        self.verify_path = f"{settings.url_prefix}/verify"
        name = settings.cookie_name or f"devkit_sso_{settings.installation}"
        self._portless_cookie = f"__Host-{name}" if self.is_secure else name
        self._has_port_in_cookie = self.redirect_uri is None and settings.cookie_name is None
        self.session_service = self._create_session_service(app)
        self.service = self._create_service(app)
        self.has_checked_views = False

    @property
    def session_cookie(self) -> str:
        """The name of the session's cookie.

        Without a redirect URI it contains the port, because browsers send cookies to all ports of a
        host: two applications in development would otherwise sign each other out.
        """
        name = self._portless_cookie
        if self._has_port_in_cookie:
            # Not request.host, which raises an exception if TRUSTED_HOSTS does not contain it.
            is_request = has_request_context()
            host = request.headers.get("Host") if is_request else self._app.config["SERVER_NAME"]
            port = re.search(r":([0-9]{1,5})$", host or "")
            name += f"_{port[1]}" if port else ""
        return name

    def find_session_cookie(self, cookies: Mapping[str, str]) -> str | None:
        """Return the name of the session's cookie among a request's cookies, or None.

        One without a port counts too: ``login_as`` does not know at which port it will be used.
        """
        if self._portless_cookie in cookies and not self._has_port_in_cookie:
            return self._portless_cookie
        names = (self.session_cookie, self._portless_cookie)
        return next((name for name in names if name in cookies), None)

    @property
    def login_cookie_prefix(self) -> str:
        """The beginning of the names of login cookies."""
        return f"{self.session_cookie}_login_"

    @property
    def marker_cookie(self) -> str:
        """The cookie which says that a login has started in this browser (web/landing.py)."""
        return f"{self.session_cookie}_marker"

    @property
    def ticket_cookie(self) -> str:
        """The cookie which asks for the application's page once (web/onward.py)."""
        return f"{self.session_cookie}_ticket"

    def _create_session_service(self, app: Flask) -> SessionService | None:
        secret_keys: list[bytes] = []
        store = None
        try:
            secret_keys = read_secret_keys(app.config)
        except ConfigError as error:
            self.loaded.errors.append(Problem(str(error)))
        try:
            store = open_store(self.settings.store_url, app.instance_path)
        except ConfigError as error:
            self.loaded.errors.append(Problem(str(error)))
        # Only Keys keeps the keys themselves, so that nothing else can show them by accident.
        self.has_secret_key = bool(secret_keys)
        self.has_weak_key = any(map(is_weak, secret_keys))
        if not secret_keys or store is None:
            return None
        keys = Keys(secret_keys, self.settings.installation)
        return SessionService(
            store=store,
            keys=keys,
            sessions=Sessions(store, keys, self.settings),
            verified_users=VerifiedUsers(store, self.settings),
            login_results=LoginResults(store, keys, self.settings),
        )

    def _create_service(self, app: Flask) -> Service | None:
        base, settings, server = self.session_service, self.settings, self.settings.server
        if base is None or server is None:
            return None
        transport = Transport(trust=settings.trust, timeout=settings.timeout)
        client = Client(server, transport)
        store, sessions, users = base.store, base.sessions, base.verified_users
        logouts = PendingLogouts(store, base.keys, client, settings)
        refresh = TokenRefresh(app, self.hooks, store, sessions, client, logouts, settings)
        revalidation = Revalidation(
            app, self.hooks, store, sessions, users, client, refresh, settings
        )
        return Service(
            **vars(base),
            client=client,
            logins=Logins(store, base.keys, settings, lambda: self.login_cookie_prefix),
            logouts=logouts,
            maintenance=Maintenance(app, sessions, users, refresh, revalidation, settings),
        )

    def missing(self, *more: str) -> list[Problem]:
        """Return what :meth:`LoadedSettings.missing` returns, and a missing SECRET_KEY."""
        if self._needs_redirect_uri and self.redirect_uri is None:
            more = (HOST_MATCHING,)
        found = self.loaded.missing(*more)
        if not self._app.config.get("SECRET_KEY"):
            found.append(Problem(is_missing("SECRET_KEY"), CREATE_KEY))
        return found

    def problems(self, *more: str) -> list[Problem]:
        """Return what prevents people from signing in. Needs an application context.

        ``debug`` and ``testing`` are read at each call, because tests may set them after
        ``init_app``.

        :param more: sentences about settings that only the current request needs.
        """
        if not more and self.is_ready:
            return []
        found = [*self.loaded.errors, *self.missing(*more)]
        if current_app.debug or current_app.testing:
            return found
        if self.has_weak_key:
            text = (
                "SECRET_KEY, or one of SECRET_KEY_FALLBACKS, is shorter than 16 bytes or a "
                "placeholder"
            )
            found.append(Problem(text, CREATE_KEY))
        if self.settings.store_url == MEMORY:
            found.append(
                Problem(
                    f"{PREFIX}STORE_URL is memory://, which works only with debug or testing",
                    "Remove it to use a SQLite file, or set the URL of a Redis server",
                )
            )
        return found

    @property
    def is_ready(self) -> bool:
        """Whether nothing can be wrong. Every request to a guarded view asks."""
        is_complete = self.service is not None and not self.loaded.errors
        return is_complete and not self.has_weak_key and self.settings.store_url != MEMORY


def refresh_state(app: Flask) -> AppState:
    """Return an application's state, created again if settings were assigned after ``init_app``.

    This is noticed within :data:`LOOK_EVERY` seconds, and with ``debug`` or ``testing`` at once.
    A mistake in them raises no exception, but prevents people from signing in.
    """
    old: AppState = app.extensions[EXTENSION]
    now = time.monotonic()
    if now < old.look_at and not (app.debug or app.testing):
        return old
    old.look_at = now + LOOK_EVERY
    late = old.assigned.differences(AssignedConfig.read(app.config))
    if not late:
        return old
    new = app.extensions[EXTENSION] = AppState(app, old.hooks)
    log.info("assigned after init_app: %s", ", ".join(late))
    errors, url_prefix = new.loaded.errors, old.settings.url_prefix
    if new.settings.url_prefix != url_prefix:
        errors.append(Problem(f"The routes have been below {url_prefix} since init_app"))
    if errors:
        text = f"Assigned after init_app: {', '.join(late)}"
        errors.append(Problem(text, "Assign settings before init_app, which checks them"))
    return new


_collected: ContextVar[list[Flask] | None] = ContextVar("devkit_sso_collected", default=None)


@contextmanager
def collecting() -> Iterator[list[Flask]]:
    """Let ``init_app`` collect problems in ``AppState.loaded`` instead of raising or logging them.

    This is for commands that load an application in order to fix it. It yields the list of
    applications that ``init_app`` was called for, even if creating them failed later.
    """
    apps: list[Flask] = []
    token = _collected.set(apps)
    try:
        yield apps
    finally:
        _collected.reset(token)


def collect(app: Flask) -> bool:
    """Register the application if the caller runs inside :func:`collecting`, and return whether it
    does."""
    apps = _collected.get()
    if apps is not None:
        apps.append(app)
    return apps is not None


def get_app() -> Flask:
    """Return the current application itself, not its proxy. Signals need it as their sender."""
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    return app


def get_request() -> Request:
    """Return the current request itself. What runs for every request uses it, because each use of
    the proxy takes longer than reading a header."""
    here: Request = request._get_current_object()  # type: ignore[attr-defined]
    return here


def get_state() -> AppState:
    """Return the current application's state.

    :raises ConfigError: if the extension was not initialised on it.
    """
    try:
        state: AppState = get_app().extensions[EXTENSION]
    except KeyError:
        raise ConfigError(
            "Flask-DevKit-SSO is not initialised on this application: call "
            "DevKitSSO().init_app(app)"
        ) from None
    return state


def get_session_service() -> SessionService:
    """Return the session service of the current application.

    :raises LoginFailed: ``not_configured``.
    """
    state = get_state()
    if state.session_service is None:
        raise _not_configured(state.problems())
    return state.session_service


def get_service() -> Service:
    """Return the complete service of the current application. Needs a request.

    :raises LoginFailed: ``not_configured``, with all problems in its hint.
    """
    state = get_state()
    if state.service is not None and state.redirect_uri is not None and state.is_ready:
        return state.service
    more = [NO_REDIRECT_URI] if find_redirect_uri() is None else []
    problems = state.problems(*more)
    if problems or state.service is None:
        raise _not_configured(problems)
    return state.service


def get_redirect_uri() -> RedirectURI:
    """Return the redirect URI for the current request.

    :raises LoginFailed: ``not_configured``, if there is none for the request's host.
    """
    uri = find_redirect_uri()
    if uri is None:
        raise _not_configured(get_state().problems(NO_REDIRECT_URI))
    return uri


def _not_configured(problems: list[Problem]) -> LoginFailed:
    return LoginFailed("not_configured", hint=describe(problems))


def find_redirect_uri() -> RedirectURI | None:
    """Return the redirect URI for the current request, or None if there is none for its host.

    Without the setting, it is the callback's own URL, but only on a loopback host. On other hosts,
    the Host header would decide where codes are sent.
    """
    state = get_state()
    if state.redirect_uri is not None:
        return state.redirect_uri
    if current_app.url_map.host_matching or not is_loopback(request_host()):
        return None
    # Not the host of SERVER_NAME, where the browser would have other cookies.
    url = f"{request.host_url.rstrip('/')}{url_for('devkit_sso_callback.callback')}"
    return RedirectURI(url, state.settings.callback_path)


def request_host() -> str | None:
    """Return the host name or address of the current request, without the port."""
    try:
        return urlsplit(f"//{request.host}").hostname
    except ValueError:
        return None
