"""The HTTP/1.1 server of the sandbox: it keeps connections open and numbers them."""

from __future__ import annotations

import itertools
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO

from flask import Flask
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Response

from .environ import CLOSE, CONNECTION, SLOW, SLOW_HEADERS, TRANSPORT_FAULTS
from .state import state_of

MAX_BODY = 1024 * 1024
SECONDS_PER_BYTE = 0.2

_connections = itertools.count(1)


class SandboxRequestHandler(WSGIRequestHandler):
    """Serves the requests of one connection.

    Werkzeug's own handler closes the connection after each response, and logs queries, which may
    contain codes.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    # Seconds after which an idle connection is closed, as standard servers do.
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
        # Read the whole body now; the rest of it would be taken for the next request.
        try:
            chunked = "wsgi.input_terminated" in environ
            length = MAX_BODY + 1 if chunked else int(environ.get("CONTENT_LENGTH") or 0)
            body = environ["wsgi.input"].read(min(max(length, 0), MAX_BODY + 1))
        except (ValueError, OSError):
            self.send_error(400)
            return
        if len(body) > MAX_BODY:
            self.send_error(413)
            return
        if not chunked and len(body) < length:
            self.close_connection = True
            return
        environ["wsgi.input"] = BytesIO(body)
        environ["CONTENT_LENGTH"] = str(len(body))
        faults: list[str] = []
        environ[TRANSPORT_FAULTS] = faults
        self._send(Response.from_app(self.server.app, environ, buffered=True), faults)

    def _send(self, response: Response, faults: list[str]) -> None:
        if CLOSE in faults:
            self.log_request("closed")
            self.close_connection = True
            return
        body = response.get_data()
        head = self._head(response, len(body))
        if SLOW_HEADERS in faults:
            self._send_slowly(head + body)
        elif SLOW in faults:
            self.wfile.write(head)
            self._send_slowly(body)
        else:
            self.wfile.write(head + body)

    def _head(self, response: Response, length: int) -> bytes:
        # end_headers writes to wfile.
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

    def _send_slowly(self, data: bytes) -> None:
        for byte in data:
            time.sleep(SECONDS_PER_BYTE)
            self.wfile.write(bytes([byte]))

    def version_string(self) -> str:
        return "devkit-sso-sandbox"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        # After a malformed request line, command is empty and path is the previous request's.
        path = (self.path if self.command else "-").partition("?")[0].partition("#")[0]
        line = f"{self.command or '-'} {path} {code}\n"
        # Nobody may be reading the log any more.
        if sys.stderr is not None:
            with suppress(OSError):
                sys.stderr.write(line.encode("unicode_escape").decode().replace("\\n", "\n"))

    def log(self, type: str, message: str, *args: object) -> None:
        """Log nothing else: Werkzeug's other messages quote the request."""


def open_server(
    app: Flask, host: str = "127.0.0.1", port: int = 9000, ssl_context: ssl.SSLContext | None = None
) -> BaseWSGIServer:
    """Return a server that listens, ready for ``serve_forever``. After it, call ``stop_answering``.

    :param port: 0 for any free port; the server's ``port`` says which.
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
        # Otherwise the thread that accepts connections would wait for each handshake.
        server.socket.do_handshake_on_connect = False  # type: ignore[attr-defined]
    return server


def stop_answering(app: Flask) -> None:
    """End delayed responses, and close connections instead of answering further requests."""
    state_of(app).stopping.set()


@contextmanager
def running(
    app: Flask, *, host: str = "127.0.0.1", port: int = 0, ssl_context: ssl.SSLContext | None = None
) -> Iterator[str]:
    """Serve a sandbox in a thread while the ``with`` block runs; yields its URL."""
    server = open_server(app, host, port, ssl_context)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"{'https' if ssl_context else 'http'}://{host}:{server.port}"
    finally:
        stop_answering(app)
        server.shutdown()
        thread.join()
