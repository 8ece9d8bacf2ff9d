"""An authentication server whose responses a test scripts, over a real socket.

It shares no code with the package: its responses are written out here and in the tests.
"""

from __future__ import annotations

import itertools
import json
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

AUTHORIZE = "/sso/oauth2/authorize"
GET_TOKEN = "/sso/oauth2/getToken"
GET_USER_INFO = "/sso/oauth2/getUserInfo"
REFRESH_TOKEN = "/sso/oauth2/refreshToken"
LOGOUT = "/sso/oauth2/logout"

TOKEN = {
    "code": "2000",
    "message": "OK",
    "messageArgs": [],
    "data": {
        "access_token": "canary-access-token-1f6a",
        "expires_in": 3600,
        "refresh_token": "canary-refresh-token-9b2c",
    },
}
ADA = {
    "code": "2000",
    "message": "OK",
    "messageArgs": [],
    "data": {"uid": "u-1", "username": "ada", "role": "Admin"},
}
DONE = {"code": "2000", "message": "OK", "messageArgs": [], "data": {}}


@dataclass(frozen=True)
class Seen:
    """One request as the server received it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Otherwise the body, which is a packet of its own, waits 40 ms for the client's ACK.
    disable_nagle_algorithm = True
    server: ScriptedServer
    seen: Seen

    def setup(self) -> None:
        super().setup()
        self.number = self.server.count_connection()

    def finish(self) -> None:
        self.server.count_end()
        super().finish()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.seen = Seen(self.command, self.path, headers, body, self.number)
        self.server.seen.append(self.seen)
        self.server.answers[self.path.partition("?")[0]](self)

    do_GET = do_POST

    def log_message(self, format: str, *args: object) -> None:
        pass


def says(
    what: Any, status: int = 200, headers: dict[str, str] | None = None
) -> Callable[[Handler], None]:
    """Respond with a JSON value, or with unchanged bytes."""
    body = what if isinstance(what, bytes) else json.dumps(what).encode()

    def answer(handler: Handler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def fails(code: str) -> Callable[[Handler], None]:
    """Respond with an error envelope and HTTP 200."""
    return says({"code": code, "message": "no", "messageArgs": [], "data": {}})


def redirects(location: str) -> Callable[[Handler], None]:
    """Redirect to an address."""
    return says(b"", 302, {"Location": location})


def registers(is_registered: Callable[[str], bool]) -> Callable[[Handler], None]:
    """Be an authorize interface: show a sign-in page, or an error for another redirect URI."""

    def answer(handler: Handler) -> None:
        if is_registered(redirect_uri_of(handler)):
            says(b'<form action="/login" method="post"><input name="name"></form>')(handler)
        else:
            says(b"<p>Not registered</p>", 400)(handler)

    return answer


def redirect_uri_of(handler: Handler) -> str:
    """Return the redirect URI of an authorization request."""
    return parse_qs(urlsplit(handler.path).query)["redirect_uri"][0]


def closes(handler: Handler) -> None:
    """Close the connection without a response."""
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def tokens(
    access_token: str, expires_in: int, refresh_token: str | None = None
) -> Callable[[Handler], None]:
    """Respond with tokens."""
    data: dict[str, Any] = {"access_token": access_token, "expires_in": expires_in}
    return says({"code": "2000", "data": data | {"refresh_token": refresh_token or "r-1"}})


def invalid_chunk(handler: Handler) -> None:
    """Respond with a chunk of a size that http.client raises a ValueError for."""
    handler.close_connection = True
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n{}\r\n")


def same_person(handler: Handler) -> None:
    """Respond with the person for whom :func:`distinguish_people` issued the access token."""
    number = handler.seen.json["access_token"].rpartition("-")[2]
    data = {"uid": f"u-{number}", "username": f"person-{number}", "role": "User"}
    says({"code": "2000", "data": data})(handler)


def distinguish_people(server: ScriptedServer, expires_in: int = 3600) -> None:
    """Let each login be another person's: the first is person-1, with token-1 and the uid u-1."""
    numbers = itertools.count(1)

    def issue(handler: Handler) -> None:
        tokens(f"token-{next(numbers)}", expires_in)(handler)

    server.answers |= {GET_TOKEN: issue, GET_USER_INFO: same_person}


def hangs(handler: Handler) -> None:
    """Keep a call waiting until the server stops, for at most a minute, and close."""
    handler.server.stopping.wait(60)
    closes(handler)


class ScriptedServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, tls: ssl.SSLContext | None = None, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        super().__init__((host, port), Handler)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.scheme = "https" if tls else "http"
        self.seen: list[Seen] = []
        self.connections = self.open_connections = 0
        self._lock = threading.Lock()
        self.stopping = threading.Event()
        self.answers: dict[str, Callable[[Handler], None]] = {
            GET_TOKEN: says(TOKEN),
            GET_USER_INFO: says(ADA),
            REFRESH_TOKEN: says(
                {"code": "2000", "data": {"access_token": "canary-second-7d", "expires_in": 60}}
            ),
            LOGOUT: says(DONE),
        }
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}"

    @property
    def paths(self) -> list[str]:
        return [seen.path for seen in self.seen]

    def count_connection(self) -> int:
        with self._lock:
            self.connections += 1
            self.open_connections += 1
            return self.connections

    def count_end(self) -> None:
        with self._lock:
            self.open_connections -= 1

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that gave up."""

    def stop(self) -> None:
        self.stopping.set()
        self.shutdown()
        self.server_close()
