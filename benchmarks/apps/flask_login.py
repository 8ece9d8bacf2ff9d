"""Flask-Login, which loads the user with a function of the application."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable

from flask import Flask
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user

from . import LOGIN_PATH, PAGE, Site, new_app


class Person(UserMixin):  # type: ignore[misc]
    """A user of Flask-Login."""

    def __init__(self, id: str, username: str) -> None:
        self.id = id
        self.username = username


ADA = Person("u-1", "ada")


def in_memory(site: Site) -> Flask:
    """Return an application whose users are in a dictionary."""
    return _create(site, {ADA.id: ADA}.get)


def on_sqlite(site: Site) -> Flask:
    """Return an application that reads the user from a SQLite file, over a connection that each
    thread keeps."""
    file = site.folder / "people.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE person (id TEXT PRIMARY KEY, username TEXT)")
        connection.execute("INSERT INTO person VALUES (?, ?)", (ADA.id, ADA.username))
    connection.close()
    local = threading.local()

    def load(id: str) -> Person | None:
        if not hasattr(local, "connection"):
            local.connection = sqlite3.connect(file)
        query = "SELECT id, username FROM person WHERE id = ?"
        row = local.connection.execute(query, (id,)).fetchone()
        return Person(*row) if row else None

    return _create(site, load)


def _create(site: Site, load: Callable[[str], Person | None]) -> Flask:
    app = new_app(site)
    LoginManager(app).user_loader(load)

    @app.get(PAGE)
    @login_required  # type: ignore[untyped-decorator]
    def private() -> str:
        return f"Hello {current_user.username}"

    @app.get(LOGIN_PATH)
    def login() -> str:
        login_user(ADA)
        return ""

    return app
