"""Applications for servers that are processes of their own."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask

from flask_devkit_sso import DevKitSSO, current_user, login_required


def create_app() -> Flask:
    """Return an application configured by the environment, which says who it takes one for."""
    app = Flask("tests", instance_path=os.environ["INSTANCE"])
    app.config.from_prefixed_env()
    DevKitSSO(app)

    @app.get("/")
    def home() -> str:
        return "home"

    @app.get("/who")
    @login_required
    def who() -> dict[str, Any]:
        return {
            "username": current_user.username,
            "uid": current_user.uid,
            "role": current_user.role,
            "worker": os.getpid(),
        }

    return app
