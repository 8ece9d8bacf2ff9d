"""Applications, and an authentication server that people come back from, for any browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, request

from flask_devkit_sso import current_user, login_required

from .apps import run_first
from .browser import Site, response_url, sends_back
from .scripted import GET_TOKEN, Handler, ScriptedServer

AUTHORIZE = "/sso/oauth2/authorize"
ICON = "<!doctype html><link rel=icon href='data:,'>"

AppMaker = Callable[..., Flask]


def exchanged(server: ScriptedServer) -> list[str]:
    """Return the codes that were exchanged."""
    return [seen.json["authorization_code"] for seen in server.seen if seen.path == GET_TOKEN]


def serve_pages(
    site: Site,
    server: ScriptedServer,
    make_app: AppMaker,
    fragment: str,
    *,
    waits: bool = True,
    **settings: Any,
) -> Flask:
    """Serve an application with a guarded page, a page that frames it, a download and an empty
    response.

    :param fragment: the path of the redirect URI, and its fragment.
    :param waits: whether the authentication server shows a page with a link back.
    """
    app = make_app(redirect_uri=site.url(fragment), **settings)
    is_confirm = settings.get("binding") == "confirm"
    server.answers[AUTHORIZE] = sends_back(wait=waits, echo_state=not is_confirm)
    page = login_required(lambda: f"{ICON}<h1>{current_user.username}</h1>")
    app.add_url_rule("/page", "page", page)
    app.add_url_rule("/framing", "framing", lambda: f"{ICON}<iframe src=/page></iframe>")
    attachment = {"Content-Disposition": "attachment; filename=report.txt"}
    app.add_url_rule("/download", "download", lambda: ("report", attachment))
    app.add_url_rule("/empty", "empty", lambda: ("", 204))
    site.app = app
    return app


HOME = """<!doctype html><title>app</title><link rel=icon href="data:,">
<h1>%s</h1><a id=private href="/private">private</a>
<script>navigator.sendBeacon("/seen", location.href)</script>"""
KINDS = {
    "plain": "/sso/callback",
    "fragment": "/#/login",
    "fragment-at-callback": "/sso/callback#/login",
    "front-end": "/#/login",
}


class Walk:
    """An application and its authentication server, where the person is signed in after the first
    visit: it then redirects back at once, each time with a fresh code."""

    def __init__(self, site: Site, server: ScriptedServer, make_app: AppMaker) -> None:
        self._site, self._server, self._make_app = site, server, make_app
        self.seen: list[str] = []
        self.responses: list[str] = []

    def serve(self, kind: str, headers: dict[str, str] | None = None) -> None:
        """Serve an application.

        :param kind: the kind of redirect URI, a key of :data:`KINDS`.
        :param headers: headers of a separate front end.
        """
        app = self._make_app(redirect_uri=self._site.url(KINDS[kind]))
        app.view_functions["home"] = lambda: HOME % (current_user.username or "nobody")
        app.view_functions["private"] = login_required(lambda: HOME % current_user.username)

        def record() -> str:
            self.seen.append(request.get_data(as_text=True))
            return ""

        app.add_url_rule("/seen", "record", record, methods=["POST"])
        if kind == "front-end":
            # A static host responds, which reads no cookies.
            html = "<script src=/sso/landing.js></script>" + HOME % "front end"
            front_end = (html, headers or {})
            run_first(app, lambda: front_end if request.path == "/" else None)
        self._server.answers[AUTHORIZE] = self._authorize
        self._site.app = app

    def _authorize(self, handler: Handler) -> None:
        query = urlsplit(handler.path).query
        echo = "state=" in query
        url = response_url(query, echo_state=echo, code=f"CODE{len(self.responses)}")
        self.responses.append(url)
        body = f"<h1>Sign in</h1><a id=back href='{url.replace('&', '&amp;')}'>back</a>".encode()
        is_first = len(self.responses) == 1
        handler.send_response(200 if is_first else 302)
        if not is_first:
            handler.send_header("Location", url)
        handler.send_header("Cache-Control", "no-store")
        handler.send_header("Content-Type", "text/html")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
