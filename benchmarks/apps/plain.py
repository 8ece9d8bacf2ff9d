"""A page without any login: what Flask itself takes."""

from __future__ import annotations

from flask import Flask

from . import LOGIN_PATH, PAGE, Site, new_app


def create(site: Site) -> Flask:
    """Return the application."""
    app = new_app(site)
    app.add_url_rule(PAGE, view_func=lambda: "Hello ada", endpoint="private")
    app.add_url_rule(LOGIN_PATH, view_func=lambda: "", endpoint="login")
    return app
