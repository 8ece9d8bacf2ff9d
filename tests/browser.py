"""Sites for Chromium to look at: an application of ours, and a server that sends people back."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Callable, Iterable
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, urlsplit

from playwright.sync_api import Page
from werkzeug.serving import make_server

from .scripted import Handler

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

CHROMIUM = {
    # The same engine without windows and profiles, which cost more than most pages.
    "executable_path": "/usr/bin/chromium-headless-shell",
    "args": [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        # Starting a process for each site and tab takes longer than most tests.
        "--renderer-process-limit=1",
    ],
}

WHOLE_CHROMIUM = CHROMIUM | {"executable_path": "/usr/bin/chromium"}
"""For the example and the README's program, and for what the shell lacks: a cache of pages, and
settings of a profile."""


CODE = "d6eda491b5b2166e16bd"


class Site:
    """An application served over a socket; made first, so that its port is known."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True, ssl_context=tls)
        self.port = self._server.server_port
        self.scheme = "https" if tls else "http"
        self.app: Callable[..., Iterable[bytes]] | None = None
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _serve(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        assert self.app is not None
        return self.app(environ, start_response)

    def url(self, path: str = "/", host: str = "localhost") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class TlsProxy(ThreadingHTTPServer):
    """Ends TLS before a site, as a reverse proxy does.

    :param host: what the site is shown as ``Host``; None: what the browser sent.
    :param forwarded: whether it adds ``X-Forwarded-*``.
    :param prefix: a path that it takes away, and names where ``forwarded``.
    """

    daemon_threads = True

    def __init__(
        self,
        tls: ssl.SSLContext,
        site: Site,
        *,
        host: str | None = None,
        forwarded: bool = False,
        prefix: str = "",
    ) -> None:
        super().__init__(("127.0.0.1", 0), _ProxyHandler)
        self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.site, self.host, self.forwarded, self.prefix = site, host, forwarded, prefix
        self.redirects: list[str] = []
        self.cookies: list[str] = []
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def url(self, path: str = "/") -> str:
        return f"https://localhost:{self.server_port}{self.prefix}{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that closes a connection is no news."""

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class _ProxyHandler(BaseHTTPRequestHandler):
    server: TlsProxy

    def do_GET(self) -> None:
        proxy = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = dict(self.headers.items())
        if proxy.forwarded:
            headers |= {
                "X-Forwarded-For": "192.0.2.1",
                "X-Forwarded-Proto": "https",
                "X-Forwarded-Host": headers["Host"],
                "X-Forwarded-Prefix": proxy.prefix,
            }
        headers["Host"] = proxy.host or headers["Host"]
        upstream = http.client.HTTPConnection("127.0.0.1", proxy.site.port)
        upstream.request(self.command, self.path.removeprefix(proxy.prefix), body, headers)
        answer = upstream.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name not in ("Connection", "Content-Length", "Date", "Server"):
                self.send_header(name, value)
            proxy.redirects += [value] if name == "Location" else []
            proxy.cookies += [value] if name == "Set-Cookie" else []
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        upstream.close()

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


def response_url(
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
        url = response_url(query, **how)  # type: ignore[arg-type]
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
