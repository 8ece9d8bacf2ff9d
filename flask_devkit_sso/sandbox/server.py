"""The sandbox as a Flask application."""

from __future__ import annotations

from flask import Flask, Response, request

from . import browser, control
from .config import SandboxConfig
from .faults import CLOSE, ask_server
from .serving import LARGEST_BODY
from .state import EXTENSION, State
from .upstream import add_interfaces


def create_sandbox(config: SandboxConfig) -> Flask:
    """Return an authentication server that speaks docs/protocol.md, with nobody signed in.

    Serve it with ``open_server`` or ``running``: the failures that concern the connection
    (``close``, ``slow``) are theirs to carry out.
    """
    app = Flask(
        __package__,
        static_url_path="/_sandbox/static",
        static_folder="static",
        template_folder="templates",
    )
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    state = app.extensions[EXTENSION] = State(config)
    app.register_blueprint(browser.bp)
    app.register_blueprint(control.bp)
    add_interfaces(app, config.validity_path)

    @app.before_request
    def answer_nothing_when_stopped() -> Response | None:
        # Connections that are still open when the server stops are as dead as the server.
        if not state.stopping.is_set():
            return None
        ask_server(CLOSE)
        return Response(status=503)

    app.after_request(_add_headers)
    return app


def _add_headers(response: Response) -> Response:
    if request.endpoint != "static":
        response.headers["Cache-Control"] = "no-store"
    # No form-action: Chromium applies it to the redirect after the form too, and that one leads
    # to the application.
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
