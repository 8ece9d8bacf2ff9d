"""An application with the extension, and a login to it. It imports no contender."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from flask import Flask

from flask_devkit_sso import DevKitSSO, current_user, login_required

SECRET_KEY = "0123456789abcdef0123456789abcdef"

REDIRECT_URI = "http://localhost/sso/callback"


def new_app(folder: Path | None = None) -> Flask:
    """Return an application without routes."""
    app = Flask("benchmark", instance_path=str(folder) if folder else None, static_folder=None)
    app.secret_key = SECRET_KEY
    return app


def ours(server: str, store: str | None, folder: Path | None = None) -> Flask:
    """Return an application with the extension."""
    app = new_app(folder)
    app.config.update(
        DEVKIT_SSO_CLIENT_ID="20221017000000001",
        DEVKIT_SSO_CLIENT_SECRET="benchmark-secret",
        DEVKIT_SSO_SERVER_URL=server,
        DEVKIT_SSO_REDIRECT_URI=REDIRECT_URI,
    )
    if store:
        app.config["DEVKIT_SSO_STORE_URL"] = store
    DevKitSSO(app)

    @app.get("/private")
    @login_required
    def private() -> str:
        return f"Hello {current_user.username}"

    return app


def sign_in(app: Flask) -> str:
    """Sign in and return the cookies."""
    client = app.test_client()
    query = parse_qs(urlsplit(client.get("/sso/authorize").location).query)
    callback = {"code": "c1", "state": query["state"][0]}
    response = client.get("/sso/callback", query_string=callback)
    assert response.status_code == 303, response.text
    cookies = (client.get_cookie(name) for name in [app.extensions["devkit_sso"].session_cookie])
    return "; ".join(f"{cookie.key}={cookie.value}" for cookie in cookies if cookie)
