"""Serving the sandbox by HTTP/1.1, with connections that are kept and counted."""

from __future__ import annotations

import itertools
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

from flask import Flask
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Response

from .faults import CLOSE, SLOW, SLOW_HEADERS, TRANSPORT
from .state import EXTENSION
from .upstream import CONNECTION

LARGEST_BODY = 1024 * 1024
SECONDS_A_BYTE = 0.2

_connections = itertools.count(1)


class SandboxRequestHandler(WSGIRequestHandler):
    """Serves one connection, request by request.

    Werkzeug's own handler closes it after each answer. And it logs the query, in which codes are.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    # Standard servers close an idle connection after so many seconds.
    timeout = 5

    def setup(self) -> None:
        super().setup()
        self.connection_number = next(_connections)

    def handle(self) -> None:
        if isinstance(self.connection, ssl.SSLSocket):
            try:
                self.connection.do_handshake()
            except OSError:
                return
        super().handle()

    def run_wsgi(self) -> None:
        environ = self.environ = self.make_environ()
        environ[CONNECTION] = self.connection_number
        # The whole body is read first: what is left of it would be taken for the next request.
        try:
            chunked = "wsgi.input_terminated" in environ
            length = LARGEST_BODY + 1 if chunked else int(environ.get("CONTENT_LENGTH") or 0)
            body = environ["wsgi.input"].read(min(max(length, 0), LARGEST_BODY + 1))
        except (ValueError, OSError):
            self.send_error(400)
            return
        if len(body) > LARGEST_BODY:
            self.send_error(413)
            return
        if not chunked and len(body) < length:
            self.close_connection = True
            return
        environ["wsgi.input"] = BytesIO(body)
        environ["CONTENT_LENGTH"] = str(len(body))
        asked: list[str] = []
        environ[TRANSPORT] = asked
        self._answer(Response.from_app(self.server.app, environ, buffered=True), asked)

    def _answer(self, response: Response, asked: list[str]) -> None:
        if CLOSE in asked:
            self.log_request("closed")
            self.close_connection = True
            return
        body = response.get_data()
        head = self._head(response, len(body))
        if SLOW_HEADERS in asked:
            self._drip(head + body)
        elif SLOW in asked:
            self.wfile.write(head)
            self._drip(body)
        else:
            self.wfile.write(head + body)

    def _head(self, response: Response, length: int) -> bytes:
        out, buffer = self.wfile, BytesIO()
        self.wfile = buffer
        try:
            self.send_response(response.status_code)
            for name, value in response.headers:
                self.send_header(name, value)
            if "Content-Length" not in response.headers and response.status_code not in (204, 304):
                self.send_header("Content-Length", str(length))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
        finally:
            self.wfile = out
        return buffer.getvalue()

    def _drip(self, data: bytes) -> None:
        for byte in data:
            time.sleep(SECONDS_A_BYTE)
            self.wfile.write(bytes([byte]))

    def version_string(self) -> str:
        return "devkit-sso-sandbox"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        # A request line that could not be read leaves no command, and the path of the one before.
        path = (self.path if self.command else "-").partition("?")[0].partition("#")[0]
        line = f"{self.command or '-'} {path} {code}\n"
        sys.stderr.write(line.encode("unicode_escape").decode().replace("\\n", "\n"))

    def log(self, type: str, message: str, *args: object) -> None:
        """Log nothing else: what it would be quotes the request."""


def open_server(
    app: Flask, host: str = "127.0.0.1", port: int = 9000, ssl_context: ssl.SSLContext | None = None
) -> BaseWSGIServer:
    """Return a server that listens, its port in ``.port`` (0: any free one).

    ``serve_forever`` serves. Who stops it calls ``stop_answering`` too.
    """
    server = make_server(
        host,
        port,
        app,
        threaded=True,
        request_handler=SandboxRequestHandler,
        ssl_context=ssl_context,
    )
    if isinstance(server.socket, ssl.SSLSocket):
        # Else the thread that accepts connections would wait for each one's handshake.
        server.socket.do_handshake_on_connect = False  # type: ignore[attr-defined]
    return server


def stop_answering(app: Flask) -> None:
    """End the answers that are kept waiting, and answer no request any more."""
    app.extensions[EXTENSION].stopping.set()


@contextmanager
def running(
    app: Flask, *, host: str = "127.0.0.1", port: int = 0, ssl_context: ssl.SSLContext | None = None
) -> Iterator[str]:
    """Serve a sandbox in a thread of this process while the block runs; yields its address."""
    server = open_server(app, host, port, ssl_context)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"{'https' if ssl_context else 'http'}://{host}:{server.port}"
    finally:
        stop_answering(app)
        server.shutdown()
        thread.join()
