"""Sites for the browser tests: an application, a TLS proxy and an authentication server."""

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
    # The same engine without windows and profiles, which take longer than most pages.
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
"""The full browser, for the example and the README's program, and for features that the headless
shell lacks: the back/forward cache and profile settings."""


CODE = "d6eda491b5b2166e16bd"


class Site:
    """An application served over a socket.

    Create the site first and set ``app`` later, because the application needs to know the port.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True, ssl_context=tls)
        self.port = self._server.server_port
        self.scheme = "https" if tls else "http"
        self.app: Callable[..., Iterable[bytes]] | None = None
        # By default, stopping a server takes half a second.
        serve = self._server.serve_forever
        self._thread = threading.Thread(target=serve, args=(0.02,), daemon=True)
        self._thread.start()

    def _serve(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        assert self.app is not None
        body = self.app(environ, start_response)
        try:
            return list(body)
        finally:
            # Werkzeug's server leaves a file open if the browser goes away while it is sent.
            if hasattr(body, "close"):
                body.close()

    def url(self, path: str = "/", host: str = "localhost") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class TlsProxy(ThreadingHTTPServer):
    """Terminates TLS in front of a site, as a reverse proxy does.

    :param host: the ``Host`` that the site receives; None passes on the browser's.
    :param forwarded: whether to add ``X-Forwarded-*``.
    :param prefix: a path prefix to strip; ``X-Forwarded-Prefix`` has it if ``forwarded`` is set.
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
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def url(self, path: str = "/") -> str:
        return f"https://localhost:{self.server_port}{self.prefix}{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore connections that the browser closes."""

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
        response = upstream.getresponse()
        content = response.read()
        self.send_response(response.status)
        for name, value in response.getheaders():
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
    """Return the URL of an authorization response.

    The vendor's server appends the parameters to the very end of the redirect_uri, and standard
    servers before the fragment (docs/protocol.md section 1).
    """
    parameters = {name: values[0] for name, values in parse_qs(query).items()}
    response = f"code={code}"
    if echo_state and "state" in parameters:
        response += f"&state={quote(parameters['state'])}"
    uri = parameters["redirect_uri"]
    head, hash_sign, fragment = uri.partition("#")
    if position == "end":
        return (
            f"{uri}{'&' if '?' in fragment else '?'}{response}"
            if hash_sign
            else f"{uri}?{response}"
        )
    return f"{head}{'&' if '?' in head else '?'}{response}{hash_sign}{fragment}"


def sends_back(wait: bool = False, **how: str | bool) -> Callable[[Handler], None]:
    """Redirect back from authorize at once, or show a page with a link back (``wait``)."""

    def respond(handler: Handler) -> None:
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

    return respond


class Watch:
    """Records what a page does in the background: console, requests, referers."""

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
