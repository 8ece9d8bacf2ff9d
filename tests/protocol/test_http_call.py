"""One HTTP request to a server, through the transport alone."""

from __future__ import annotations

import gzip
import logging
import socket
import ssl
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trustme

from flask_devkit_sso import ServerError, ServerUnavailable
from flask_devkit_sso.protocol.transport import Transport
from flask_devkit_sso.protocol.trust import Trust

from ..conftest import wait_until
from ..scripted import Handler, ScriptedServer, closes, redirects, says
from ..threads import at_once

LARGE = b" " * (16 * 1024 * 1024)
"""More than the buffers of both sockets, so that sending it fails if the server does not read."""


@pytest.fixture
def transport() -> Transport:
    return Transport(trust=Trust(), timeout=60)


def test_a_page_without_a_body_that_claims_to_be_compressed(
    transport: Transport, server: ScriptedServer
) -> None:
    """As a server sends it that compresses every response, the empty ones too."""
    server.answers["/page"] = says(b"", 302, {"Content-Encoding": "gzip", "Location": "/"})
    response = transport.get(f"{server.url}/page")
    assert (response.status, response.headers["Location"]) == (302, "/")
    server.answers["/page"] = says(gzip.compress(b"page"), 200, {"Content-Encoding": "gzip"})
    assert transport.get(f"{server.url}/page").body == b"page"


class HastyServer(ScriptedServer):
    """Responds as soon as it has read the headers, and closes."""

    def finish_request(self, request: Any, client_address: Any) -> None:
        with request, request.makefile("rb") as file:
            while file.readline().strip():
                pass
            request.sendall(b"HTTP/1.1 413 x\r\nContent-Length: 9\r\n\r\ntoo large")


def test_a_response_that_arrives_before_everything_was_sent(transport: Transport) -> None:
    server = HastyServer()
    try:
        response = transport.post(f"{server.url}/", LARGE)
        assert (response.status, response.body) == (413, b"too large")
    finally:
        server.stop()


def test_a_server_that_wants_a_certificate_of_the_client(tmp_path: Path) -> None:
    """With TLS 1.3, its alert arrives after the handshake, perhaps while the request is sent."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    server = ScriptedServer(context)
    try:
        transport = Transport(trust=Trust(str(tmp_path / "ca.pem")), timeout=60)
        with pytest.raises(ServerUnavailable, match="wants a certificate of the client"):
            transport.post(f"{server.url}/", LARGE)
    finally:
        server.stop()


def idle_connections(transport: Transport, server: ScriptedServer, count: int) -> None:
    """Let the transport have this many idle connections."""
    everybody = threading.Barrier(count)

    def together(handler: Handler) -> None:
        everybody.wait(30)
        says(b"{}")(handler)

    server.answers["/page"] = together
    at_once([lambda: transport.get(f"{server.url}/page")] * count)
    assert server.connections == count


def restarted(handler: Handler) -> None:
    """Break the old connections when they are used again, as after a restart or a failover."""
    if handler.number <= 3:
        closes(handler)
    else:
        says(b"{}")(handler)


@pytest.mark.parametrize("is_repeatable", [False, True])
def test_when_one_idle_connection_breaks_no_other_one_is_used(
    transport: Transport, server: ScriptedServer, is_repeatable: bool
) -> None:
    idle_connections(transport, server, 3)
    server.seen.clear()
    server.answers["/page"] = restarted
    url = f"{server.url}/page"
    if is_repeatable:
        assert transport.post(url, b"{}", repeatable=True).status == 200
    else:
        with pytest.raises(ServerUnavailable):
            transport.post(url, b"{}")
        assert len(server.seen) == 1
        assert transport.post(url, b"{}").status == 200
    assert len(server.seen) == 2


def test_a_call_that_is_given_up_breaks_no_other_one(
    transport: Transport, server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Its thread has read the response and logs it slowly, while another call uses the connection.

    The response to that one arrives after the first has been given up.
    """
    has_read, has_ended = threading.Event(), threading.Event()

    def logs_slowly(record: logging.LogRecord) -> bool:
        if "HTTP 299" in record.getMessage():
            has_read.set()
            has_ended.wait(30)
        return True

    def first() -> None:
        with suppress(ServerUnavailable):
            transport.post(f"{server.url}/first", b"{}", deadline=time.monotonic() + 4)
        has_ended.set()

    def second() -> int:
        assert has_read.wait(30)
        return transport.post(f"{server.url}/second", b"{}").status

    def responds_later(handler: Handler) -> None:
        has_ended.wait(30)
        says(b"{}")(handler)

    server.answers |= {"/first": says(b"{}", 299), "/second": responds_later}
    log = logging.getLogger("flask_devkit_sso")
    caplog.set_level(logging.DEBUG, logger=log.name)
    log.addFilter(logs_slowly)
    try:
        assert at_once([first, second]) == [None, 200]
    finally:
        log.removeFilter(logs_slowly)
    assert server.connections == 1


def test_a_connection_is_closed_although_the_error_is_kept(
    transport: Transport, server: ScriptedServer
) -> None:
    """Its traceback refers to the response, which the server has announced to be the last one."""

    def too_large(handler: Handler) -> None:
        handler.close_connection = True
        with suppress(OSError):
            handler.wfile.write(b"HTTP/1.1 200 x\r\nConnection: close\r\n\r\n" + LARGE)

    server.answers["/page"] = too_large
    with pytest.raises(ServerError) as caught:
        transport.get(f"{server.url}/page")
    wait_until(lambda: server.open_connections == 0)
    assert caught.value.__traceback__ is not None


def test_what_a_url_may_not_contain_is_encoded(
    transport: Transport, server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A redirect may lead to any text."""
    caplog.set_level(logging.DEBUG, logger="flask_devkit_sso")
    sent = "/%7Ba%7D%7C%5Cb%1B[31m%20%C3%A9%2f".replace("[", "%5B")
    server.answers[sent] = redirects("/")
    address = f'{server.url}/{{a}}|\\b\x1b[31m é%2f?q="<{{x}}>^`&r=[]#canary'
    transport.get(address)
    assert server.paths == [f"{sent}?q=%22%3C%7Bx%7D%3E%5E%60&r=%5B%5D"]
    assert f"GET {server.url}{sent}: HTTP 302" in caplog.text
    assert "canary" not in caplog.text


@pytest.mark.parametrize(
    ("host", "looked_up", "certified", "hostname", "sent"),
    [
        ("auth.example.com.", "auth.example.com.", "auth.example.com", None, "auth.example.com"),
        ("auth.example.com.", "auth.example.com.", "other.example", "other.example", None),
        ("[fe80::1%25eth7]", "fe80::1%eth7", "fe80::1", None, "[fe80::1]"),
        ("[fe80::1%eth7]", "fe80::1%eth7", "fe80::1", None, "[fe80::1]"),
    ],
)
def test_names_that_are_written_otherwise_in_a_certificate(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    looked_up: str,
    certified: str,
    hostname: str | None,
    sent: str | None,
) -> None:
    """The dot at the end is for the resolver, and the zone of an IPv6 address for this machine."""
    real = socket.getaddrinfo

    def getaddrinfo(name: Any, *args: Any, **kwargs: Any) -> Any:
        return real("127.0.0.1" if name == looked_up else name, *args, **kwargs)

    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(certified).configure_cert(context)
    server = ScriptedServer(context)
    server.answers["/"] = says(b"{}")
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        trust = Trust(str(tmp_path / "ca.pem"), looked_up, hostname)
        transport = Transport(trust=trust, timeout=60)
        assert transport.get(f"https://{host}:{server.server_port}/").status == 200
        expected = sent or looked_up.removesuffix(".")
        assert server.seen[0].headers["host"] == f"{expected}:{server.server_port}"
    finally:
        server.stop()
