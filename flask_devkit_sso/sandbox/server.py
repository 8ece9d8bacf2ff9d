"""The sandbox as a Flask application."""

from __future__ import annotations

from flask import Flask, Response, render_template, request

from . import browser, control, sign_in
from .config import SandboxConfig
from .environ import CLOSE, add_transport_fault
from .interfaces import add_interfaces
from .people import People
from .serving import MAX_BODY
from .state import EXTENSION, SandboxState


def create_sandbox(config: SandboxConfig, people: People | None = None) -> Flask:
    """Return a Flask application that is an authentication server (docs/protocol.md).

    Serve it with ``open_server`` or ``running``: other servers cannot produce the faults of the
    connection, such as ``close`` and ``slow``.

    :param people: who can sign in; by default the initial people, who are not saved.
    """
    app = Flask(
        __package__,
        static_url_path="/_sandbox/static",
        static_folder="static",
        template_folder="templates",
    )
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    state = app.extensions[EXTENSION] = SandboxState(config, people or People())
    app.register_blueprint(browser.bp)
    app.register_blueprint(sign_in.bp)
    app.register_blueprint(control.bp)
    add_interfaces(app, config.validity_path)

    @app.before_request
    def close_if_stopped() -> Response | None:
        # Connections that are kept open outlive the listening socket.
        if not state.stopping.is_set():
            return None
        add_transport_fault(CLOSE)
        return Response(status=503)

    app.register_error_handler(404, _not_found)
    app.after_request(_add_headers)
    return app


def _not_found(error: Exception) -> tuple[str, int]:
    return render_template("sandbox/not_found.html"), 404


def _add_headers(response: Response) -> Response:
    if request.endpoint != "static":
        response.headers["Cache-Control"] = "no-store"
    # No form-action: Chromium also applies it to the redirect after the form, which goes to the
    # application.
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
