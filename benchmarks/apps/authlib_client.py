"""Authlib's Flask client, as its documentation shows it: the user is in Flask's session.

Authlib does not speak DevKit's protocol, so this application signs in with plain OAuth 2.0.
"""

from __future__ import annotations

from authlib.integrations.flask_client import OAuth
from flask import Flask, Response, abort, redirect, session

from . import CALLBACK_PATH, CLIENT_ID, CLIENT_SECRET, LOGIN_PATH, PAGE, REDIRECT_URI, Site, new_app


def create(site: Site) -> Flask:
    """Return the application."""
    app = new_app(site)
    client = OAuth(app).register(
        "server",
        client_id=CLIENT_ID,
        client_secret=CLIENT_SECRET,
        authorize_url=f"{site.server}/oauth2/authorize",
        access_token_url=f"{site.server}/oauth2/token",
        client_kwargs={"token_endpoint_auth_method": "client_secret_post"},
    )

    @app.get(LOGIN_PATH)
    def login() -> Response:
        response: Response = client.authorize_redirect(REDIRECT_URI)
        return response

    @app.get(CALLBACK_PATH)
    def callback() -> Response:
        token = client.authorize_access_token()
        response = client.post(f"{site.server}/oauth2/userinfo", token=token)
        response.raise_for_status()
        session["user"] = response.json()
        return redirect("/")  # type: ignore[return-value]

    @app.get(PAGE)
    def private() -> str:
        user = session.get("user")
        if user is None:
            abort(401)
        return f"Hello {user['username']}"

    return app
