"""Applications with several hosts, and below a path.

The redirect URI determines where people sign in.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from flask_devkit_sso import DevKitSSO, current_user, login_required

from ..conftest import CLIENT_ID, CLIENT_SECRET, SECRET_KEY
from ..scripted import ScriptedServer

SCRIPT = {"Accept": "*/*"}

Build = Callable[..., Flask]


@pytest.fixture
def build(server: ScriptedServer, tmp_path: Path) -> Build:
    """Make an application, with the arguments of ``Flask``."""

    def make(
        redirect_uri: str | None, config: dict[str, Any] | None = None, **options: Any
    ) -> Flask:
        app = Flask("tests", instance_path=str(tmp_path), **options)
        app.config.update(
            SECRET_KEY=SECRET_KEY,
            DEVKIT_SSO_CLIENT_ID=CLIENT_ID,
            DEVKIT_SSO_CLIENT_SECRET=CLIENT_SECRET,
            DEVKIT_SSO_SERVER_URL=server.url,
        )
        if redirect_uri is not None:
            app.config["DEVKIT_SSO_REDIRECT_URI"] = redirect_uri
        app.config.update(config or {})
        DevKitSSO(app)
        return app

    return make


def add_page(app: Flask, path: str = "/page", **options: Any) -> None:
    @app.get(path, endpoint=f"page{len(app.view_functions)}", **options)
    @login_required
    def page(**values: str) -> str:
        return f"{current_user.username} {values}"


def signs_in(client: FlaskClient, at: str, path: str = "/page") -> TestResponse:
    """Open a page, sign in as a browser does, and return the page."""
    response = client.get(path, base_url=at)
    while response.status_code in (302, 303):
        query = response.location.partition("?")[2]
        if "response_type=" in query:
            break
        response = client.get(response.location, base_url=at)
        if response.location and response.location.startswith("http"):
            at = "/".join(response.location.split("/")[:3])
    return response


HOST_MATCHING = {"host_matching": True, "static_host": "app.example.com"}
