"""For the tests of applications that use the extension."""

from __future__ import annotations

import time
from typing import cast

from flask.testing import FlaskClient
from werkzeug.test import Cookie

from .errors import ConfigError
from .protocol.contract import ROLES, Role, UserInfo
from .service import EXTENSION, State


def login_as(
    client: FlaskClient, username: str, role: Role | None = "User", uid: str | None = None
) -> Cookie:
    """Sign a Flask test client in, with no server and no credentials; return the session's cookie.

    The session is a real one, in the application's store, and the real guard lets it pass. The
    ``on_login`` functions run, and :class:`~flask_devkit_sso.LoginRefused` comes through.

    :param role: ``"Admin"``, ``"User"``, or None, for whom the server gave another one.
    :param uid: the account id; by default one made of the name, the same each time.
    :raises ConfigError: when the application has no SECRET_KEY, or not this extension.
    :raises ValueError: for another role.
    """
    if role not in (*ROLES, None):
        raise ValueError(f'role is "Admin", "User" or None, not {role!r}')
    app = client.application
    state: State | None = app.extensions.get(EXTENSION)
    if state is None or state.sessions is None:
        raise ConfigError(
            "login_as needs an application with DevKitSSO and a SECRET_KEY: set one before init_app"
        )
    info = UserInfo(uid or f"uid-of-{username}", username, role)
    with app.test_request_context():
        for hook in state.hooks.on_login:
            app.ensure_sync(hook)(state.hooks.make_user(info))
        value = state.sessions.create(info, None, asked=time.time())
    domain = (app.config["SERVER_NAME"] or "localhost").partition(":")[0]
    client.set_cookie(state.cookie_name, value, domain=domain, httponly=True, samesite="Lax")
    return cast(Cookie, client.get_cookie(state.cookie_name, domain=domain))


def logout(client: FlaskClient) -> None:
    """Sign a Flask test client out: its session ends in the store, and its cookie goes."""
    app = client.application
    state: State = app.extensions[EXTENSION]
    domain = (app.config["SERVER_NAME"] or "localhost").partition(":")[0]
    cookie = client.get_cookie(state.cookie_name, domain=domain)
    if cookie is None or state.sessions is None:
        return
    session = state.sessions.load(cookie.value)
    if session is not None:
        state.sessions.end(session)
    client.delete_cookie(state.cookie_name, domain=domain)
