"""A cookie that is signed by hand, with a time."""

from __future__ import annotations

from flask import Flask, Response, abort, request
from itsdangerous import BadData, URLSafeTimedSerializer

from . import LOGIN_PATH, PAGE, SECRET_KEY, Site, new_app


def create(site: Site) -> Flask:
    """Return the application."""
    app = new_app(site)
    serializer = URLSafeTimedSerializer(SECRET_KEY)

    @app.get(PAGE)
    def private() -> str:
        try:
            user = serializer.loads(request.cookies["user"], max_age=43200)
        except (KeyError, BadData):
            abort(401)
        return f"Hello {user['username']}"

    @app.get(LOGIN_PATH)
    def login() -> Response:
        response = Response()
        response.set_cookie("user", serializer.dumps({"uid": "u-1", "username": "ada"}))
        return response

    return app
