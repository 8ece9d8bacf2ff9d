"""What one application has of this extension: ``app.extensions["devkit_sso"]``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from urllib.parse import unquote, urlsplit

from flask import Flask, Request, current_app, url_for

from . import signals
from .config.credentials import COMMAND
from .config.settings import PREFIX, Reading, is_loopback, is_weak
from .errors import ConfigError
from .messages import Catalogues
from .protocol.client import Client
from .protocol.transport import Transport
from .session.keys import Keys
from .session.logins import Logins
from .session.logouts import Debts
from .session.sessions import Sessions
from .session.upkeep import Upkeep
from .store.base import Store
from .store.sqlite import MemoryStore, SQLiteStore
from .users import Hooks

EXTENSION = "devkit_sso"


NO_REDIRECT_URI = f"{PREFIX}REDIRECT_URI is missing, which only a loopback host can do without"

MAKE_A_KEY = "make one with python -c 'import secrets; print(secrets.token_hex())'"

_collected: ContextVar[list[Flask] | None] = ContextVar("devkit_sso_collected", default=None)


@contextmanager
def collecting() -> Iterator[list[Flask]]:
    """Have ``init_app`` leave what is wrong in the state's reading, where it would raise or log it.

    For commands that load an application in order to mend it; yields the applications that came
    by, those too whose creation failed later.
    """
    apps: list[Flask] = []
    token = _collected.set(apps)
    try:
        yield apps
    finally:
        _collected.reset(token)


def collect(app: Flask) -> bool:
    """Tell whether the caller is below :func:`collecting`, which then knows of the application."""
    apps = _collected.get()
    if apps is not None:
        apps.append(app)
    return apps is not None


class State:
    """The extension's parts for one application. Nothing in it belongs to a visitor.

    :param secret_keys: as of :func:`~flask_devkit_sso.settings.read_secret_keys`; without one
        there are neither ``sessions`` nor ``logins``, and without a server no ``debts``.
    """

    def __init__(
        self, app: Flask, reading: Reading, secret_keys: list[bytes], hooks: Hooks
    ) -> None:
        self.reading = reading
        self.settings = settings = reading.settings
        self.hooks = hooks
        name = settings.cookie_name or f"devkit_sso_{settings.installation}"
        self.cookie_name = f"__Host-{name}" if settings.secure else name
        # Written by the landing page's script, so it can't be a __Host- cookie in plain http.
        self.pass_cookie = f"{name}_pass_"
        self.sessions: Sessions | None = None
        self.logins: Logins | None = None
        self.keys: Keys | None = None
        self.upkeep: Upkeep | None = None
        self.debts: Debts | None = None
        server = settings.server
        transport = Transport(ca_bundle=settings.ca_bundle, timeout=settings.timeout)
        self.client = Client(server, transport) if server else None
        self.store: Store | None = None
        try:
            self.store = _open_store(settings.store_url, app.instance_path)
        except ConfigError as error:
            reading.wrong.append(str(error))
        if secret_keys and self.store is not None:
            store = self.store
            self.keys = Keys(secret_keys, settings.installation)
            self.sessions = Sessions(store, self.keys, settings)
            self.logins = Logins(store, self.keys, settings, f"{self.cookie_name}_login_")
            if self.client is not None:
                self.debts = Debts(store, self.keys, self.client, settings)
                self.upkeep = Upkeep(
                    app, hooks, store, self.sessions, self.client, self.debts, settings
                )
        self.missing = [*settings.missing, *([] if secret_keys else ["SECRET_KEY"])]
        self.weak_key = any(map(is_weak, secret_keys))
        self.catalogues = Catalogues()
        self.checked = False

    def end_sessions(self, uid: str) -> int:
        """End all sessions of a user and forget what the server said of them; return how many
        sessions there were. Within an application context.

        :raises StoreUnavailable: then some may have ended: do it again.
        """
        count = self.sessions.end_all(uid) if self.sessions else 0
        if self.upkeep:
            self.upkeep.forget(uid)
        if count:
            signals.session_ended.send(get_app(), uid=uid, why="ended")
        return count

    def right_origin(self, request: Request) -> str | None:
        """Return the redirect_uri's origin when a login started at the request's would not come
        back there: ``localhost`` and ``127.0.0.1`` are two hosts to a browser's cookies.

        Only among loopback hosts: elsewhere a proxy may well show us another name than the
        browser's.
        """
        uri, host = urlsplit(self.settings.redirect_uri or ""), _host(request)
        if uri.hostname == host or not (is_loopback(uri.hostname) and is_loopback(host)):
            return None
        return f"{uri.scheme}://{uri.netloc}"

    def problems(self, request: Request) -> list[str]:
        """Return what keeps everybody from signing in, and the mends; empty when all is well.

        Debug and testing are looked at here and now: tests switch them on late.
        """
        here = [NO_REDIRECT_URI] if self.redirect_uri(request) is None else []
        return [*self.told_missing(*here), *self._unfit()]

    def general_problems(self) -> list[str]:
        """Return those that are the same for each request, without the mend that they share."""
        found = [f"{key} is missing" for key in self.missing]
        if "SECRET_KEY" in self.missing:
            found[-1] += f": {MAKE_A_KEY}"
        return found + self._unfit()

    def told_missing(self, *more: str) -> list[str]:
        """Return what is missing, each with its mend: the command mends no SECRET_KEY.

        :param more: what is missing besides and set in the same places.
        """
        found = [*(_is_missing(key) for key in self.settings.missing), *more]
        if found:
            found.append(
                f"Run `{COMMAND}`, which writes {self.reading.credentials}, or set what is missing "
                "in app.config before init_app, or in the environment (FLASK_DEVKIT_SSO_CLIENT_ID "
                "and so on, with app.config.from_prefixed_env())"
            )
        if "SECRET_KEY" in self.missing:
            found.append(f"{_is_missing('SECRET_KEY')}: {MAKE_A_KEY}")
        return found

    def _unfit(self) -> list[str]:
        found = []
        if not (current_app.debug or current_app.testing):
            if self.weak_key:
                found.append(
                    "SECRET_KEY is shorter than 16 bytes or a placeholder, or one of "
                    f"SECRET_KEY_FALLBACKS is: {MAKE_A_KEY}"
                )
            if self.settings.store_url == "memory://":
                found.append(
                    f"{PREFIX}STORE_URL is memory://, which works with debug or testing only: "
                    "leave it out for a SQLite file, or name a Redis"
                )
        return found

    def lands_on(self, path: str) -> bool:
        """Tell whether the redirect_uri leads to a path, and no view of ours is there: then the
        landing page has to read the answer out of the address."""
        uri = self.settings.redirect_uri
        callback = f"{self.settings.url_prefix}/callback"
        if uri is None or ("#" not in uri and path.endswith(callback)):
            return False
        # Flask would redirect from one to the other, and a browser would carry the fragment along.
        return path.rstrip("/") == unquote(urlsplit(uri).path).rstrip("/")

    def redirect_uri(self, request: Request) -> str | None:
        """Return the one redirect_uri in force; None where there is none for this host."""
        if self.settings.redirect_uri is not None:
            return self.settings.redirect_uri
        if is_loopback(_host(request)):
            return url_for("devkit_sso_callback.callback", _external=True)
        return None


def _is_missing(key: str) -> str:
    if f"FLASK_{key}" not in os.environ:
        return f"{key} is missing"
    return (
        f"{key} is missing, since FLASK_{key} is set but not read "
        "(app.config.from_prefixed_env() belongs before init_app)"
    )


def get_app() -> Flask:
    """Return the current application itself, which signals name as their sender."""
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    return app


def get_state() -> State:
    """Return the state of the current application.

    :raises ConfigError: when the extension is not on it.
    """
    try:
        state: State = current_app.extensions[EXTENSION]
    except KeyError:
        raise ConfigError(
            "Flask-DevKit-SSO is not on this application: call DevKitSSO().init_app(app)"
        ) from None
    return state


def _open_store(url: str, folder: str) -> Store:
    """Return the store of a ``DEVKIT_SSO_STORE_URL``; nothing is opened before its first use.

    :param folder: the instance folder, below which a relative path is.
    :raises ConfigError: for a Redis without redis-py, or whose URL redis-py refuses.
    """
    if url == "memory://":
        return MemoryStore()
    if url.startswith("sqlite:"):
        return SQLiteStore(Path(folder, url.removeprefix("sqlite:///")))
    try:
        from .store.redis import RedisStore
    except ModuleNotFoundError as error:
        if error.name != "redis":
            raise
        raise ConfigError(
            f"{PREFIX}STORE_URL needs redis-py: pip install 'flask-devkit-sso[redis]'"
        ) from None
    return RedisStore(url)


def _host(request: Request) -> str | None:
    """The host name or address of a request, without its port."""
    try:
        return urlsplit(f"//{request.host}").hostname
    except ValueError:
        return None
