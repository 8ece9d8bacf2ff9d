"""HTTP framing: what is sent for a response decides where the next one on the connection begins.

Each response is written out as bytes (RFC 9112 sections 6 and 7).
"""

from __future__ import annotations

import gzip
import json
import threading
from contextlib import suppress

import pytest
from flask import Flask

from ..conftest import AppMaker, come_back, reason, sign_in, start
from ..scripted import (
    GET_TOKEN,
    GET_USER_INFO,
    TOKEN,
    Answer,
    Handler,
    ScriptedServer,
    says,
)

BODY = json.dumps(TOKEN).encode()
SIZE = b"%d" % len(BODY)
HEX = b"%x" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def sends(head: bytes, body: bytes = b"") -> Answer:
    """Send a response as bytes, and keep the connection open."""

    def answer(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n%b\r\n%b" % (head, body))

    return answer


def chunks(size: bytes, end: bytes = b"\r\n", trailer: bytes = b"") -> bytes:
    """Return the body as one chunk."""
    return size + b"\r\n" + BODY + end + b"0\r\n" + trailer + b"\r\n"


USABLE = {
    "one chunk": (CHUNKED, chunks(HEX), 1),
    "padded size": (CHUNKED, chunks(HEX.zfill(8) + b"  "), 1),
    "extension": (CHUNKED, chunks(HEX + b';a=b;c="d"'), 1),
    "trailers": (CHUNKED, chunks(HEX, trailer=b"X-Sum: 1\r\nX-More: 2\r\n"), 1),
    "upper case": (b"TRANSFER-ENCODING: Chunked\r\n", chunks(HEX.upper()), 1),
    "length": (b"Content-Length: " + SIZE + b"  \r\n", BODY, 1),
    # These are odd, so the connection is not used again.
    "length and chunked": (CHUNKED + b"Content-Length: 5\r\n", chunks(HEX), 2),
    "malformed header": (b"Content-Length: " + SIZE + b"\r\nno colon\r\n", BODY, 2),
    "more than its length": (b"Content-Length: " + SIZE + b"\r\n", BODY + b"HTTP/1.1 200 OK", 2),
    "more than its chunks": (CHUNKED, chunks(HEX) + b"\r\n", 2),
}


@pytest.mark.parametrize("name", USABLE)
def test_usable_framing(app: Flask, server: ScriptedServer, name: str) -> None:
    """The second number is that of the connections for a login of two calls."""
    head, body, connections = USABLE[name]
    server.answers[GET_TOKEN] = sends(head, body)
    sign_in(app.test_client())
    assert (server.paths, server.connections) == ([GET_TOKEN, GET_USER_INFO], connections)


INVALID = {
    "size -5": (CHUNKED, chunks(b"-5")),
    "size -1": (CHUNKED, chunks(b"-1")),
    "size -0": (CHUNKED, b"-0\r\n\r\n"),
    "size with a plus": (CHUNKED, chunks(b"+" + HEX)),
    "size with 0x": (CHUNKED, chunks(b"0x" + HEX)),
    "size with an underscore": (CHUNKED, chunks(b"_".join((HEX[:1], HEX[1:])))),
    "size with a space before": (CHUNKED, chunks(b" " + HEX)),
    "empty size": (CHUNKED, chunks(b"")),
    "size that is no number": (CHUNKED, chunks(b"zz")),
    "enormous size": (CHUNKED, chunks(b"F" * 17)),
    "extension of 64 KB": (CHUNKED, chunks(HEX + b";" + b"x" * 65536)),
    "line feed alone": (CHUNKED, HEX + b"\n" + BODY + b"\r\n0\r\n\r\n"),
    "chunk longer than its size": (CHUNKED, chunks(HEX, end=b"XX\r\n")),
    "chunk shorter than its size": (CHUNKED, chunks(b"%x" % (len(BODY) + 4))),
    "trailer of 128 KB": (CHUNKED, chunks(HEX, trailer=b"X: " + b"x" * 131072 + b"\r\n")),
    "chunked twice": (CHUNKED * 2, chunks(HEX)),
    "gzip, chunked": (b"Transfer-Encoding: gzip, chunked\r\n", chunks(HEX)),
    "identity": (b"Transfer-Encoding: identity\r\nContent-Length: " + SIZE + b"\r\n", BODY),
    "length -1": (b"Content-Length: -1\r\n", BODY),
    "length with a plus": (b"Content-Length: +" + SIZE + b"\r\n", BODY),
    "length with an underscore": (b"Content-Length: 1_0\r\n", BODY),
    "empty length": (b"Content-Length: \r\n", BODY),
    "two lengths": (b"Content-Length: 5\r\nContent-Length: " + SIZE + b"\r\n", BODY),
    "a list of lengths": (b"Content-Length: 5, 5\r\n", BODY),
    "folded length": (b"Content-Length: 5\r\n 0\r\n", BODY),
    "length behind a bare carriage return": (b"X: y\rContent-Length: " + SIZE + b"\r\n", BODY),
    "100 headers": (b"X: y\r\n" * 101, BODY),
    "header of 64 KB": (b"X: " + b"y" * 65536 + b"\r\n", BODY),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_framing(
    app: Flask, server: ScriptedServer, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The login fails at once, although the connection stays open, which is not used again."""
    server.answers[GET_TOKEN] = sends(*INVALID[name])
    client = app.test_client()
    response = come_back(client, start(client)["state"])
    assert (response.status_code, reason(response)) == (503, "server_unavailable")
    assert "did not respond" not in caplog.text
    server.answers[GET_TOKEN] = says(TOKEN)
    sign_in(app.test_client())
    assert server.paths == [GET_TOKEN, GET_TOKEN, GET_USER_INFO]
    assert server.connections == 2


OK = b"HTTP/1.1 200 OK\r\n"
EMPTY = gzip.compress(b"")
ENDLESS = {
    "size -1": (OK + CHUNKED + b"\r\n-1\r\n", b" " * 65536),
    "no length": (OK + b"\r\n", b" " * 65536),
    "extensions": (OK + CHUNKED + b"\r\n", b"1;" + b"x" * 4000 + b"\r\n \r\n"),
    "trailers": (OK + CHUNKED + b"\r\n0\r\n", b"X: y\r\n" * 10_000),
    "empty gzip members": (
        OK + CHUNKED + b"Content-Encoding: gzip\r\n\r\n",
        (b"%x\r\n" % len(EMPTY) + EMPTY + b"\r\n") * 1000,
    ),
    "interim responses": (b"", b"HTTP/1.1 103 x\r\n\r\n" * 1000),
}


# A hundred thousand responses take seconds to read.
SLOW = {"interim responses": pytest.mark.slow}


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW.get(name, ())) for name in ENDLESS])
def test_an_endless_response_is_cut_off(
    make_app: AppMaker, server: ScriptedServer, name: str
) -> None:
    """Count what the server can send before the connection is closed, long before the deadline.

    At most 2 MiB are read, and the buffers of both sockets contain a few more.
    """
    begin, more = ENDLESS[name]
    sent: list[int] = []
    has_ended = threading.Event()

    def sends_for_ever(handler: Handler) -> None:
        with suppress(OSError):
            handler.wfile.write(begin)
            while not handler.server.stopping.is_set():
                handler.wfile.write(more)
                sent.append(len(more))
        handler.close_connection = True
        has_ended.set()

    server.answers[GET_TOKEN] = sends_for_ever
    client = make_app(timeout=300).test_client()
    assert come_back(client, start(client)["state"]).status_code in (502, 503)
    assert has_ended.wait(60)
    assert sum(sent) < 20 * 1024 * 1024
