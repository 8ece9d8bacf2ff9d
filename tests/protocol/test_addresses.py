"""A server whose host name has several addresses (RFC 8305)."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import trustme

from ..conftest import AppMaker, come_back, reason, sign_in, start
from ..scripted import GET_TOKEN, GET_USER_INFO, ScriptedServer

HOST = "auth.example.com"

Resolver = Callable[..., None]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    """Return a function that sets the addresses of the server's host."""
    real = socket.getaddrinfo

    def set_addresses(*addresses: str) -> None:
        def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
            if host != HOST:
                return real(host, port, *args, **kwargs)
            return [found for ip in addresses for found in real(ip, port, *args, **kwargs)]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return set_addresses


@pytest.fixture
def swallow() -> Iterator[Callable[[str, int], None]]:
    """Return a function that lets an address ignore further connections: its queue is full."""
    with ExitStack() as opened:

        def fill(ip: str, port: int) -> None:
            listening = opened.enter_context(socket.socket())
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((ip, port))
            listening.listen(0)
            for _ in range(4):
                client = opened.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex((ip, port))
            with pytest.raises(TimeoutError):
                opened.enter_context(socket.create_connection((ip, port), 0.2))

        yield fill


def test_an_address_that_swallows_packets_delays_a_login_and_does_not_fail_it(
    make_app: AppMaker, server: ScriptedServer, resolver: Resolver, swallow: Any
) -> None:
    swallow("127.0.0.2", server.server_port)
    resolver("127.0.0.2", "127.0.0.3", "127.0.0.1")
    app = make_app(server_url=f"http://{HOST}:{server.server_port}", insecure_http=True, timeout=30)
    for _ in range(2):
        sign_in(app.test_client())
    assert server.paths == [GET_TOKEN, GET_USER_INFO] * 2
    assert server.connections == 1, "the connection is used again"


def test_at_most_six_addresses_are_tried(
    make_app: AppMaker, server: ScriptedServer, resolver: Resolver
) -> None:
    refusing = [f"127.0.0.{n}" for n in range(2, 8)]
    app = make_app(server_url=f"http://{HOST}:{server.server_port}", insecure_http=True)
    client = app.test_client()
    resolver(*refusing, "127.0.0.1")
    response = come_back(client, start(client)["state"])
    assert (response.status_code, reason(response)) == (503, "server_unavailable")
    assert server.connections == 0
    resolver(*refusing[:5], "127.0.0.1")
    sign_in(client)


class IPv6Server(ScriptedServer):
    address_family = socket.AF_INET6


def test_ipv6_and_ipv4_are_tried_in_turn(make_app: AppMaker, resolver: Resolver) -> None:
    """If one of them does not work here, it does not use up all attempts."""
    try:
        server = IPv6Server(host="::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    app = make_app(server_url=f"http://{HOST}:{server.server_port}", insecure_http=True)
    resolver(*(f"127.0.0.{n}" for n in range(2, 9)), "::1")
    sign_in(app.test_client())
    server.stop()


def test_a_certificate_error_ends_the_call(
    make_app: AppMaker, resolver: Resolver, tmp_path: Any
) -> None:
    """Another address is no second chance: the code stays here."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    servers: list[ScriptedServer] = []
    for ip, name in (("127.0.0.2", "other.example.com"), ("127.0.0.1", HOST)):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert(name).configure_cert(context)
        port = servers[0].server_port if servers else 0
        servers.append(ScriptedServer(context, host=ip, port=port))
    try:
        resolver("127.0.0.2", "127.0.0.1")
        client = make_app(
            server_url=f"https://{HOST}:{servers[0].server_port}",
            ca_bundle=str(tmp_path / "ca.pem"),
            timeout=30,
        ).test_client()
        response = come_back(client, start(client)["state"])
        assert (response.status_code, reason(response)) == (503, "server_unavailable")
        assert [server.seen for server in servers] == [[], []]
        assert servers[1].connections == 0
    finally:
        for server in servers:
            server.stop()
