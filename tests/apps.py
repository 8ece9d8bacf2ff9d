"""Applications for servers that run in separate processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Flask

from flask_devkit_sso import DevKitSSO, current_user, login_required


def set_clock_by(file: Path) -> None:
    """Add the seconds in a file to the clocks of this process.

    The file has two numbers: seconds to add to both clocks, and seconds to add to the wall clock
    only.

    Debian's libfaketime does not help: with it every time.sleep in Python raises an error.
    """
    real_time, real_monotonic = time.time, time.monotonic

    def seconds() -> list[float]:
        return [float(number) for number in file.read_text().split()]

    time.time = lambda: real_time() + sum(seconds())
    time.monotonic = lambda: real_monotonic() + seconds()[0]


def run_first(app: Flask, respond: Callable[[], Any]) -> None:
    """Let a function respond before the extension does, as a host in front of the application.

    :param respond: returns None if the application itself is to respond.
    """
    preprocess = app.preprocess_request

    def preprocess_request(*args: Any) -> Any:
        response = respond()
        return preprocess(*args) if response is None else response

    app.preprocess_request = preprocess_request  # type: ignore[method-assign]


def create_app() -> Flask:
    """Return an application, configured by the environment, with a page that shows the user."""
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
