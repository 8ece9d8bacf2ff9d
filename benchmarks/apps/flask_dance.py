"""Flask-Dance, which keeps its token in Flask's session. The application keeps the user there too.

Flask-Dance does not speak DevKit's protocol, so this application signs in with plain OAuth 2.0.
"""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, abort, session
from flask_dance.consumer import OAuth2ConsumerBlueprint, oauth_authorized

from . import CALLBACK_PATH, CLIENT_ID, CLIENT_SECRET, LOGIN_PATH, PAGE, Site, new_app

# oauthlib refuses http:// without this variable.
os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"


def create(site: Site) -> Flask:
    """Return the application."""
    app = new_app(site)
    blueprint = OAuth2ConsumerBlueprint(
        "server",
        __name__,
        client_id=CLIENT_ID,
        client_secret=CLIENT_SECRET,
        base_url=site.server,
        authorization_url=f"{site.server}/oauth2/authorize",
        token_url=f"{site.server}/oauth2/token",
        login_url=LOGIN_PATH,
        authorized_url=CALLBACK_PATH,
    )
    app.register_blueprint(blueprint)

    @oauth_authorized.connect_via(blueprint)  # type: ignore[untyped-decorator]
    def fetch_user(sender: Any, token: dict[str, str]) -> None:
        response = sender.session.post("/oauth2/userinfo")
        response.raise_for_status()
        session["user"] = response.json()

    # A signal keeps only a weak reference to its receivers.
    app.extensions["fetch_user"] = fetch_user

    @app.get(PAGE)
    def private() -> str:
        if not blueprint.session.authorized:
            abort(401)
        return f"Hello {session['user']['username']}"

    return app
