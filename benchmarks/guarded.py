"""A request to a page that only people who are signed in may see."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
from authlib.integrations.flask_client import OAuth
from flask import Flask, Response, abort, request, session
from flask_dance.consumer import OAuth2ConsumerBlueprint
from flask_login import LoginManager, UserMixin, login_user
from flask_login import current_user as flask_login_user
from flask_login import login_required as flask_login_required
from flask_session import Session
from itsdangerous import URLSafeTimedSerializer

from .ours import SECRET_KEY, new_app, ours, sign_in

BASELINE = "Flask's session cookie"


def plain() -> Flask:
    """Return an application without any login."""
    app = new_app()
    app.add_url_rule("/private", view_func=lambda: "Hello ada", endpoint="private")
    _add_login(app, lambda: None)
    return app


def signed_cookie() -> Flask:
    """Return an application that signs a cookie by hand."""
    app = new_app()
    serializer = URLSafeTimedSerializer(SECRET_KEY)

    @app.get("/private")
    def private() -> str:
        user = serializer.loads(request.cookies["user"], max_age=43200)
        return f"Hello {user['username']}"

    @app.get("/login")
    def login() -> Response:
        response = Response()
        response.set_cookie("user", serializer.dumps({"uid": "u-1", "username": "ada"}))
        return response

    return app


def flask_session(store: str | None = None) -> Flask:
    """Return an application that keeps its user in Flask's session, or with Flask-Session in
    Redis."""
    app = new_app()
    if store:
        app.config.update(SESSION_TYPE="redis", SESSION_REDIS=redis.from_url(store))
        Session(app)

    @app.get("/private")
    def private() -> str:
        if "username" not in session:
            abort(401)
        return f"Hello {session['username']}"

    _add_login(app, lambda: session.update(uid="u-1", username="ada", role="Admin"))
    return app


def authlib_client() -> Flask:
    """Return an application as Authlib's documentation shows it: the user is in the session."""
    app = new_app()
    OAuth(app).register("devkit", client_id="id", client_secret="secret")

    @app.get("/private")
    def private() -> str:
        user = session.get("user")
        if user is None:
            abort(401)
        return f"Hello {user['username']}"

    user = {"uid": "u-1", "username": "ada", "role": "Admin", "email": "ada@example.com"}
    _add_login(app, lambda: session.update(user=user))
    return app


def flask_dance() -> Flask:
    """Return an application with Flask-Dance, whose token is in the session."""
    app = new_app()
    blueprint = OAuth2ConsumerBlueprint(
        "devkit",
        __name__,
        client_id="id",
        client_secret="secret",
        base_url="http://localhost",
        token_url="http://localhost/token",
        authorization_url="http://localhost/authorize",
    )
    app.register_blueprint(blueprint, url_prefix="/dance")

    @app.get("/private")
    def private() -> str:
        if not blueprint.session.authorized:
            abort(401)
        return f"Hello {session['username']}"

    def login() -> None:
        blueprint.token = {"access_token": "a" * 32, "token_type": "bearer", "expires_in": 3600}
        session["username"] = "ada"

    _add_login(app, login)
    return app


class Person(UserMixin):
    """A user of Flask-Login."""

    def __init__(self, id: str, username: str) -> None:
        self.id = id
        self.username = username


def flask_login(file: Path | None = None) -> Flask:
    """Return an application with Flask-Login, whose users are in memory or in a SQLite file."""
    app = new_app()
    manager = LoginManager(app)
    ada = Person("u-1", "ada")
    local = threading.local()
    if file:
        with sqlite3.connect(file) as connection:
            connection.execute("CREATE TABLE person (id TEXT PRIMARY KEY, username TEXT)")
            connection.execute("INSERT INTO person VALUES ('u-1', 'ada')")

    @manager.user_loader
    def load(id: str) -> Person | None:
        if file is None:
            return ada if id == "u-1" else None
        if not hasattr(local, "connection"):
            local.connection = sqlite3.connect(file)
        row = local.connection.execute("SELECT * FROM person WHERE id = ?", (id,)).fetchone()
        return Person(*row) if row else None

    @app.get("/private")
    @flask_login_required
    def private() -> str:
        return f"Hello {flask_login_user.username}"

    _add_login(app, lambda: login_user(ada))
    return app


def caller(app: Flask, cookies: str = "", path: str = "/private") -> Callable[[], None]:
    """Return a function that makes one request to a page, in this process."""
    if not cookies:
        client = app.test_client()
        client.get("/login")
        jar = client._cookies.values()
        cookies = "; ".join(f"{cookie.key}={cookie.value}" for cookie in jar)
    with app.test_request_context(path) as context:
        template = dict(context.request.environ)
    for name in [name for name in template if name.startswith(("werkzeug", "flask"))]:
        del template[name]
    if cookies:
        template["HTTP_COOKIE"] = cookies
    template["HTTP_ACCEPT"] = "text/html"
    wsgi = app.wsgi_app
    statuses: list[str] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        statuses.append(status)

    def call() -> None:
        body = wsgi(template.copy(), start_response)
        b"".join(body)
        body.close()  # type: ignore[attr-defined]
        if statuses.pop() != "200 OK":
            raise AssertionError("a request failed")

    return call


def contenders(server: str, redis_url: str, folder: Path) -> dict[str, Callable[[], None]]:
    """Return the functions to compare: each makes one guarded request."""
    on_sqlite = ours(server, None, folder / "ours")
    on_redis = ours(server, redis_url)
    return {
        "a route without any login": caller(plain()),
        "a signed cookie by hand": caller(signed_cookie()),
        BASELINE: caller(flask_session()),
        "Authlib, user in the session": caller(authlib_client()),
        "Flask-Dance, token in the session": caller(flask_dance()),
        "Flask-Login, user in memory": caller(flask_login()),
        "Flask-Login, one SELECT": caller(flask_login(folder / "people.db")),
        "Flask-Session on Redis": caller(flask_session(redis_url)),
        "Flask-DevKit-SSO on SQLite": caller(on_sqlite, sign_in(on_sqlite)),
        "Flask-DevKit-SSO on Redis": caller(on_redis, sign_in(on_redis)),
    }


def unguarded(server: str, folder: Path) -> dict[str, Callable[[], None]]:
    """Return a request to a public page without and with the extension, and with a session."""
    app = ours(server, None, folder / "unguarded")
    app.add_url_rule("/public", view_func=lambda: "Hello", endpoint="public")
    bare = new_app()
    bare.add_url_rule("/public", view_func=lambda: "Hello", endpoint="public")
    return {
        "without the extension": caller(bare, "a=b", "/public"),
        "with the extension": caller(app, "a=b", "/public"),
        "with the extension, signed in": caller(app, sign_in(app), "/public"),
    }


def _add_login(app: Flask, login: Callable[[], object]) -> None:
    @app.get("/login")
    def login_view() -> str:
        login()
        return ""
