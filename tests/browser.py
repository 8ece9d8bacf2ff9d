"""Sites for Chromium to look at: an application of ours, and a server that sends people back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, urlsplit

from flask import Flask
from playwright.sync_api import Page
from werkzeug.serving import make_server

from .conftest import CODE
from .scripted import Handler

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

CHROMIUM = {
    "executable_path": "/usr/bin/chromium",
    "args": ["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
}


class Site:
    """An application served over a socket; made first, so that its port is known."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True)
        self.port = self._server.server_port
        self.app: Flask | None = None
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _serve(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        assert self.app is not None
        return self.app(environ, start_response)

    def url(self, path: str = "/", host: str = "localhost") -> str:
        return f"http://{host}:{self.port}{path}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def way_back(
    query: str, *, position: str = "end", echo_state: bool = True, code: str = CODE
) -> str:
    """Where a server sends the browser: the vendor adds to the very end, standard servers before
    the fragment (docs/protocol.md section 1)."""
    asked = {name: values[0] for name, values in parse_qs(query).items()}
    answer = f"code={code}"
    if echo_state and "state" in asked:
        answer += f"&state={quote(asked['state'])}"
    uri = asked["redirect_uri"]
    head, hash_sign, fragment = uri.partition("#")
    if position == "end":
        return f"{uri}{'&' if '?' in fragment else '?'}{answer}" if hash_sign else f"{uri}?{answer}"
    return f"{head}{'&' if '?' in head else '?'}{answer}{hash_sign}{fragment}"


def sends_back(wait: bool = False, **how: str | bool) -> Callable[[Handler], None]:
    """Authorize: straight back, or (``wait``) a page whose link leads back."""

    def answer(handler: Handler) -> None:
        query = urlsplit(handler.path).query
        url = way_back(query, **how)  # type: ignore[arg-type]
        body = f"<h1>Sign in</h1><a id=back href='{escape(url)}'>back</a>".encode()
        handler.send_response(200 if wait else 302)
        if not wait:
            handler.send_header("Location", url)
        handler.send_header("Content-Type", "text/html; charset=utf-8")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


class Watch:
    """What a page does that nobody sees: console, requests, referers."""

    def __init__(self, page: Page) -> None:
        self.console: list[str] = []
        self.urls: list[str] = []
        self.referers: list[str] = []
        page.on("console", lambda message: self.console.append(message.text))
        page.on("pageerror", lambda error: self.console.append(str(error)))
        page.on("request", lambda request: self.urls.append(request.url))
        page.on("request", lambda request: self.referers.append(request.headers.get("referer", "")))
        self._page = page

    def history(self) -> list[str]:
        session = self._page.context.new_cdp_session(self._page)
        entries = session.send("Page.getNavigationHistory")["entries"]
        return [entry["url"] for entry in entries]
