"""Helpers for the tests of applications that use the extension."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import cast
from urllib.parse import urlsplit

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.sansio.utils import host_is_trusted
from werkzeug.test import Cookie

from .errors import ConfigError
from .protocol.contract import ROLES, Role, UserInfo
from .service import EXTENSION, AppState, SessionService, refresh_state


def login_as(
    client: FlaskClient, username: str, role: Role | None = "User", uid: str | None = None
) -> Cookie:
    """Sign a Flask test client in and return the session's cookie.

    It needs no server and no credentials. The session is a real one in the application's store,
    and passes the real guard. The ``on_login`` functions run, and
    :class:`~flask_devkit_sso.LoginRefused` is not caught.

    The client sends the cookie to every host that the application's settings name: to SERVER_NAME
    (else ``localhost``), the redirect URI's host, TRUSTED_HOSTS, and the hosts and subdomains of
    its routes.

    :param role: ``"Admin"``, ``"User"``, or None for a user to whom the server gave another role.
    :param uid: the account id. By default it is derived from the name.
    :raises ConfigError: if the application has no SECRET_KEY or no extension.
    :raises ValueError: for another role.
    """
    if role not in (*ROLES, None):
        raise ValueError(f'role is "Admin", "User" or None, not {role!r}')
    app = client.application
    state, service = _services(app)
    info = UserInfo(uid or f"uid-of-{username}", username, role)
    hosts = _hosts(app, state)
    with app.test_request_context(base_url=_base_url(app, hosts)):
        for hook in state.hooks.on_login:
            app.ensure_sync(hook)(state.hooks.make_user(info))
        value = service.sessions.create(info, None, verified_at=time.time())
    for host, is_exact in hosts.items():
        client.set_cookie(
            state.session_cookie,
            value,
            domain=host,
            origin_only=is_exact,
            httponly=True,
            samesite="Lax",
        )
    return cast(Cookie, client.get_cookie(state.session_cookie, domain=next(iter(hosts))))


def logout(client: FlaskClient) -> None:
    """Sign a Flask test client out: its session ends in the store, and its cookie is deleted.

    :raises ConfigError: if the application has no SECRET_KEY or no extension.
    """
    app = client.application
    state, service = _services(app)
    for host in _hosts(app, state):
        cookie = client.get_cookie(state.session_cookie, domain=host)
        if cookie is None:
            continue
        session = service.sessions.load(cookie.value)
        if session is not None:
            service.sessions.end(session)
        client.delete_cookie(state.session_cookie, domain=host)


def _services(app: Flask) -> tuple[AppState, SessionService]:
    state = refresh_state(app) if EXTENSION in app.extensions else None
    if state is None or state.session_service is None:
        raise ConfigError("login_as needs an application with DevKitSSO and a SECRET_KEY")
    return state, state.session_service


def _hosts(app: Flask, state: AppState) -> dict[str, bool]:
    """Return the hosts at which a client may call the application, and whether each is exact or
    stands for its subdomains too. The first is the one that a client calls by default."""
    default = _host_name(app.config["SERVER_NAME"] or "localhost")
    hosts = {default: not app.subdomain_matching}
    if state.redirect_uri is not None and state.redirect_uri.host:
        hosts.setdefault(state.redirect_uri.host, True)
    trusted = app.config["TRUSTED_HOSTS"] or []
    for host in [trusted] if isinstance(trusted, str) else trusted:
        hosts.setdefault(_host_name(host.removeprefix(".")), not host.startswith("."))
    if app.url_map.host_matching:
        for rule in app.url_map.iter_rules():
            if rule.host and "<" not in rule.host:
                hosts.setdefault(_host_name(rule.host), True)
    return hosts


def _base_url(app: Flask, hosts: Iterable[str]) -> str | None:
    """Return where the request happens in which the ``on_login`` functions run: None for the
    default, unless TRUSTED_HOSTS refuses that."""
    trusted = app.config["TRUSTED_HOSTS"]
    default, *others = hosts
    if not trusted or host_is_trusted(default, trusted):
        return None
    scheme = app.config["PREFERRED_URL_SCHEME"]
    return next(f"{scheme}://{host}/" for host in others if host_is_trusted(host, trusted))


def _host_name(host: str) -> str:
    return urlsplit(f"//{host}").hostname or host
