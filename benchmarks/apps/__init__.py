"""The applications that are compared, each in a module that imports nothing of the others.

Each has a guarded page at ``/private``, which shows the user's name, and begins a login at
``/sso/authorize``. If its login needs no server, the person is signed in then.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flask import Flask

SECRET_KEY: Final = "0123456789abcdef0123456789abcdef"
CLIENT_ID: Final = "20221017000000001"
CLIENT_SECRET: Final = "benchmark-secret"

LOGIN_PATH: Final = "/sso/authorize"
CALLBACK_PATH: Final = "/sso/callback"
REDIRECT_URI: Final = f"http://localhost{CALLBACK_PATH}"

PAGE: Final = "/private"


@dataclass(frozen=True)
class Site:
    """What an application may need: the URL of the authentication server, the URL of a Redis, and a
    folder for files."""

    server: str
    redis: str
    folder: Path


def new_app(site: Site) -> Flask:
    """Return an application without routes."""
    app = Flask("benchmark", instance_path=str(site.folder), static_folder=None)
    app.secret_key = SECRET_KEY
    return app
