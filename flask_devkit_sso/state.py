"""What one application has of this extension: ``app.extensions["devkit_sso"]``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from flask import Flask, Request, current_app, url_for

from .client import Client
from .errors import ConfigError
from .keys import Keys
from .logins import Logins
from .messages import Catalogues
from .sessions import Sessions
from .settings import PREFIX, Settings, is_loopback, is_weak
from .stores import open_store
from .transport import Transport
from .users import User

EXTENSION = "devkit_sso"


@dataclass
class Hooks:
    """What the application registered on its extension object; the same for all its apps."""

    on_login: list[Callable[[User], Any]] = field(default_factory=list)
    account_loader: Callable[[User], Any] | None = None


class State:
    """The extension's parts for one application. Nothing in it belongs to a visitor.

    :param secret_keys: as of :func:`~flask_devkit_sso.settings.read_secret_keys`; without one
        there is neither ``sessions`` nor ``logins``.
    """

    def __init__(
        self, app: Flask, settings: Settings, secret_keys: list[bytes], hooks: Hooks
    ) -> None:
        self.settings = settings
        self.hooks = hooks
        name = settings.cookie_name or f"devkit_sso_{settings.installation}"
        self.cookie_name = f"__Host-{name}" if settings.secure else name
        # Written by the landing page's script, so it can't be a __Host- cookie in plain http.
        self.pass_cookie = f"{name}_pass_"
        self.sessions: Sessions | None = None
        self.logins: Logins | None = None
        self.keys: Keys | None = None
        if secret_keys:
            self.keys = Keys(secret_keys, settings.installation)
            store = open_store(settings.store_url, app.instance_path)
            self.sessions = Sessions(store, self.keys, settings)
            self.logins = Logins(store, self.keys, settings, f"{self.cookie_name}_login_")
        server = settings.server
        transport = Transport(ca_bundle=settings.ca_bundle, timeout=settings.timeout)
        self.client = Client(server, transport) if server else None
        self.missing = [*settings.missing, *([] if secret_keys else ["SECRET_KEY"])]
        self.weak_key = bool(secret_keys) and is_weak(secret_keys[0])
        self.catalogues = Catalogues()
        self.checked = False

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
        """Return what keeps everybody from signing in, each with its mend; empty when all is well.

        Debug and testing are looked at here and now: tests switch them on late.
        """
        found = [f"{key} is missing" for key in self.missing]
        if self.redirect_uri(request) is None:
            found.append(
                f"{PREFIX}REDIRECT_URI is missing, which only a loopback host can do without"
            )
        if not (current_app.debug or current_app.testing):
            if self.weak_key:
                found.append(
                    "SECRET_KEY is shorter than 16 bytes or a placeholder: make one with "
                    "python -c 'import secrets; print(secrets.token_hex())'"
                )
            if self.settings.store_url == "memory://":
                found.append(
                    f"{PREFIX}STORE_URL is memory://, which works with debug or testing only"
                )
        return found

    def lands_on(self, path: str) -> bool:
        """Tell whether the redirect_uri leads to a path, and no view of ours is there: then the
        landing page has to read the answer out of the address."""
        uri = self.settings.redirect_uri
        if uri is None or ("#" not in uri and path == url_for("devkit_sso_callback.callback")):
            return False
        return path == (unquote(urlsplit(uri).path) or "/")

    def redirect_uri(self, request: Request) -> str | None:
        """Return the one redirect_uri in force; None where there is none for this host."""
        if self.settings.redirect_uri is not None:
            return self.settings.redirect_uri
        if is_loopback(_host(request)):
            return url_for("devkit_sso_callback.callback", _external=True)
        return None


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


def _host(request: Request) -> str | None:
    """The host name or address of a request, without its port."""
    try:
        return urlsplit(f"//{request.host}").hostname
    except ValueError:
        return None
