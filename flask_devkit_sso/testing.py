"""Helpers for the tests of applications that use the extension."""

from __future__ import annotations

import time
from typing import cast

from flask import Flask
from flask.testing import FlaskClient
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
    with app.test_request_context():
        for hook in state.hooks.on_login:
            app.ensure_sync(hook)(state.hooks.make_user(info))
        value = service.sessions.create(info, None, verified_at=time.time())
    domain = _domain(app)
    client.set_cookie(state.session_cookie, value, domain=domain, httponly=True, samesite="Lax")
    return cast(Cookie, client.get_cookie(state.session_cookie, domain=domain))


def logout(client: FlaskClient) -> None:
    """Sign a Flask test client out: its session ends in the store, and its cookie is deleted.

    :raises ConfigError: if the application has no SECRET_KEY or no extension.
    """
    app = client.application
    state, service = _services(app)
    domain = _domain(app)
    cookie = client.get_cookie(state.session_cookie, domain=domain)
    if cookie is None:
        return
    session = service.sessions.load(cookie.value)
    if session is not None:
        service.sessions.end(session)
    client.delete_cookie(state.session_cookie, domain=domain)


def _services(app: Flask) -> tuple[AppState, SessionService]:
    state = refresh_state(app) if EXTENSION in app.extensions else None
    if state is None or state.session_service is None:
        raise ConfigError("login_as needs an application with DevKitSSO and a SECRET_KEY")
    return state, state.session_service


def _domain(app: Flask) -> str:
    domain: str = (app.config["SERVER_NAME"] or "localhost").partition(":")[0]
    return domain
