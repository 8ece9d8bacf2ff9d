"""Applications for servers that are processes of their own."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from flask import Flask

from flask_devkit_sso import DevKitSSO, current_user, login_required


def set_clock_by(file: Path) -> None:
    """Let this process see time that a file says: seconds that have passed, and seconds by which
    its wall clock was set as well.

    Debian's libfaketime is no help: under it each time.sleep of Python's is an error.
    """
    real_time, real_monotonic = time.time, time.monotonic

    def seconds() -> list[float]:
        return [float(number) for number in file.read_text().split()]

    time.time = lambda: real_time() + sum(seconds())
    time.monotonic = lambda: real_monotonic() + seconds()[0]


def create_app() -> Flask:
    """Return an application configured by the environment, which says who it takes one for."""
    if "CLOCK" in os.environ:
        set_clock_by(Path(os.environ["CLOCK"]))
    app = Flask("tests", instance_path=os.environ.get("INSTANCE"))
    app.config.from_prefixed_env()
    sso = DevKitSSO(app)

    @app.get("/")
    def home() -> str:
        return "home"

    @app.get("/who")
    def who() -> dict[str, Any]:
        return {
            "username": current_user.username,
            "uid": current_user.uid,
            "role": current_user.role,
            "pid": os.getpid(),
        }

    @app.get("/ping")
    def ping() -> str:
        return "pong"

    @app.get("/private")
    @login_required
    def private() -> str:
        return f"private {current_user.username}"

    app.add_url_rule("/token", view_func=sso.access_token, endpoint="token")

    @app.post("/end/<uid>")
    def end(uid: str) -> dict[str, int]:
        return {"ended": sso.end_sessions(uid)}

    return app
