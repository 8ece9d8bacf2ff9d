"""Calls to the server: their number, connections and duration."""

from __future__ import annotations

import gc
import http.client
import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_devkit_sso import ServerUnavailable
from flask_devkit_sso.protocol.client import Client
from flask_devkit_sso.protocol.contract import INTERFACE_PATHS, Tokens
from flask_devkit_sso.protocol.server import Server
from flask_devkit_sso.protocol.transport import Transport
from flask_devkit_sso.protocol.trust import Trust

from ..clock import advance
from ..conftest import AppMaker, come_back, reason, sign_in, start, wait_until
from ..scripted import (
    ADA,
    GET_TOKEN,
    GET_USER_INFO,
    REFRESH_TOKEN,
    TOKEN,
    Handler,
    ScriptedServer,
    closes,
    says,
    tokens,
)
from ..threads import at_once

TIMEOUT = 1.5
"""Seconds; the tests allow three times as long."""


def fails_within_the_deadline(client: FlaskClient, timeout: float = TIMEOUT) -> str:
    state = start(client)["state"]
    began = time.monotonic()
    response = come_back(client, state)
    assert time.monotonic() - began < 3 * timeout
    return reason(response)


def test_a_login_is_two_posts_and_twenty_logins_use_one_connection(
    app: Flask, server: ScriptedServer
) -> None:
    for _ in range(20):
        sign_in(app.test_client())
    assert server.paths == [GET_TOKEN, GET_USER_INFO] * 20
    assert server.connections == 1


def drip(handler: Handler, data: bytes, every: float = 0.05) -> None:
    with suppress(OSError):
        for byte in data:
            handler.wfile.write(bytes([byte]))
            handler.server.stopping.wait(every)
    handler.close_connection = True


def no_answer(handler: Handler) -> None:
    handler.server.stopping.wait(30)


def slow_headers(handler: Handler) -> None:
    drip(handler, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + b"X: y\r\n" * 100)


def slow_body(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    drip(handler, b" " * 100)


def slow_chunks(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    drip(handler, b"1\r\n \r\n" * 100)


@pytest.mark.parametrize("is_connected", [False, True])
@pytest.mark.parametrize("behaviour", [no_answer, slow_headers, slow_body, slow_chunks])
def test_the_deadline_covers_the_whole_call(
    make_app: AppMaker,
    server: ScriptedServer,
    behaviour: Callable[[Handler], None],
    is_connected: bool,
) -> None:
    app = make_app(timeout=TIMEOUT)
    if is_connected:
        sign_in(app.test_client())
        server.seen.clear()
    server.answers[GET_TOKEN] = behaviour
    client = app.test_client()
    assert fails_within_the_deadline(client) == "server_unavailable"
    assert server.paths == [GET_TOKEN]
    # The interrupted connection is not used again.
    server.answers[GET_TOKEN] = says(TOKEN)
    sign_in(client)


def test_a_process_that_was_paused_before_it_sends_does_not_send(
    app: Flask, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then another worker may have refreshed the same tokens, or the login is over."""
    sign_in(app.test_client())  # so that there is a connection
    real = http.client.HTTPConnection.putrequest

    def paused(*args: Any, **kwargs: Any) -> None:
        advance(60)
        real(*args, **kwargs)

    monkeypatch.setattr(http.client.HTTPConnection, "putrequest", paused)
    client = app.test_client()
    assert reason(come_back(client, start(client)["state"])) == "server_unavailable"
    assert server.paths == [GET_TOKEN, GET_USER_INFO]


def client_of(server: ScriptedServer, timeout: float = 60) -> Client:
    urls = {name: server.url + path for name, path in INTERFACE_PATHS.items()}
    known = Server(client_id="id", client_secret="s", validity=None, **urls)
    return Client(known, Transport(trust=Trust(), timeout=timeout))


def test_a_dropped_client_closes_its_connections(server: ScriptedServer) -> None:
    """It does so before the garbage collector runs."""
    client = client_of(server)
    client.refresh(Tokens("a", "r", requested_at=time.time(), expires_in=60))
    assert (server.connections, server.open_connections) == (1, 1)
    gc.disable()
    try:
        del client
        wait_until(lambda: server.open_connections == 0)
    finally:
        gc.enable()


def test_a_refresh_is_not_sent_after_the_right_to_it_has_ended(server: ScriptedServer) -> None:
    client = client_of(server)
    tokens = Tokens("a", "r", requested_at=time.time(), expires_in=60)
    with pytest.raises(ServerUnavailable):
        client.refresh(tokens, deadline=time.monotonic() - 1)
    assert server.connections == 0
    server.answers[REFRESH_TOKEN] = no_answer
    began = time.monotonic()
    with pytest.raises(ServerUnavailable):
        client.refresh(tokens, deadline=time.monotonic() + 1)
    assert time.monotonic() - began < 30
    assert server.paths == [REFRESH_TOKEN]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("is_connected", [False, True])
def test_a_response_that_arrived_while_the_process_was_paused_is_used(
    server: ScriptedServer, is_connected: bool
) -> None:
    """Otherwise, the new tokens of a refresh would be lost."""
    paused: list[int] = []

    def answers_meanwhile(handler: Handler) -> None:
        if is_connected and len(server.seen) == 1:
            tokens("first", 60, "r-1")(handler)
            return
        os.kill(paused[0], signal.SIGSTOP)
        tokens("new", 60, "r-2")(handler)
        handler.server.stopping.wait(5)
        os.kill(paused[0], signal.SIGCONT)

    server.answers[REFRESH_TOKEN] = answers_meanwhile
    client = client_of(server, timeout=3)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            os.read(reading, 1)
            old = Tokens("a", "r", requested_at=time.time(), expires_in=60)
            if is_connected:
                old = client.refresh(old)
            os._exit(client.refresh(old).access_token != "new")
        os._exit(2)
    paused.append(child)
    os.write(writing, b"x")
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
@pytest.mark.parametrize("is_connected", [False, True])
@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no such signal")
def test_a_call_ends_when_its_caller_is_interrupted(
    server: ScriptedServer, is_connected: bool, connection: str
) -> None:
    """Otherwise its thread would read for as long as the server sends anything."""

    class Interrupt(BaseException):
        """Such as a timeout of gevent."""

    def interrupt(*_: object) -> None:
        raise Interrupt

    has_ended = threading.Event()

    def drips_for_ever(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.send_header("Connection", connection)
        handler.end_headers()
        with suppress(OSError):
            for number in itertools.count(1):
                handler.wfile.write(b" ")
                if handler.server.stopping.wait(0.05):
                    return
                if number == 4:
                    # By now, the client has probably read the headers.
                    os.kill(os.getpid(), signal.SIGUSR1)
        has_ended.set()

    client = client_of(server)
    if is_connected:
        client.user_info("a")
    server.answers[GET_USER_INFO] = drips_for_ever
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(Interrupt):
            client.user_info("a")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert has_ended.wait(30)
    # Nothing of that response is read as the next one.
    server.answers[GET_USER_INFO] = says(ADA)
    assert client.user_info("a") is not None


def test_hanging_calls_end_at_their_deadline_and_the_server_gets_a_pause(
    make_app: AppMaker, server: ScriptedServer
) -> None:
    server.answers[GET_TOKEN] = no_answer
    app = make_app(timeout=2.0)
    outcomes = at_once([lambda: fails_within_the_deadline(app.test_client(), 2.0)] * 24)
    assert outcomes == ["server_unavailable"] * 24
    server.answers[GET_TOKEN] = says(TOKEN)
    calls = len(server.seen)
    assert fails_within_the_deadline(app.test_client()) == "server_unavailable"
    assert len(server.seen) == calls
    advance(5)
    sign_in(app.test_client())
    sign_in(app.test_client())


def test_a_queue_for_a_slow_server_causes_no_pause(
    make_app: AppMaker, server: ScriptedServer
) -> None:
    """The server serves sixteen calls at a time, which take a second.

    Calls that time out in the queue say nothing about the server, which is called again.
    """

    def slowly(handler: Handler) -> None:
        time.sleep(1)
        says(TOKEN)(handler)

    server.answers[GET_TOKEN] = slowly
    app = make_app(timeout=2.5)

    def log_in() -> int:
        client = app.test_client()
        return come_back(client, start(client)["state"]).status_code

    assert set(at_once([log_in] * 80)) == {303, 503}
    server.answers[GET_TOKEN] = says(TOKEN)
    sign_in(app.test_client())


def tokens_for_the_code(first: Callable[[Handler], object]) -> Callable[[Handler], None]:
    """Issue a token named like the code; for ada, first call ``first`` and wait."""

    def answer(handler: Handler) -> None:
        who = handler.server.seen[-1].json["authorization_code"]
        if who == "ada":
            first(handler)
            handler.wfile.flush()
            time.sleep(0.3)
        tokens(who, 3600)(handler)

    return answer


def user_of_the_token(handler: Handler) -> None:
    who = handler.server.seen[-1].json["access_token"]
    says(ADA | {"data": {"uid": f"u-{who}", "username": who, "role": "User"}})(handler)


def sign_in_ada_then_bob(app: Flask, server: ScriptedServer) -> list[str | None]:
    """Let two people sign in with their names as codes; return the users of their sessions."""
    server.answers[GET_USER_INFO] = user_of_the_token
    found = []
    for who in ("ada", "bob"):
        client = app.test_client()
        come_back(client, start(client)["state"], who)
        found.append(client.get("/who").json["username"])
    return found


@pytest.mark.parametrize("status", ["100 Continue", "102 Processing", "103 Early Hints", "199 x"])
def test_an_interim_response_does_not_leak_the_final_one(
    app: Flask, server: ScriptedServer, status: str
) -> None:
    head = f"HTTP/1.1 {status}\r\nLink: </x>; rel=preload\r\n\r\n".encode()
    server.answers[GET_TOKEN] = tokens_for_the_code(lambda handler: handler.wfile.write(head * 3))
    assert sign_in_ada_then_bob(app, server) == ["ada", "bob"]
    assert server.connections == 1


@pytest.mark.parametrize("status", ["101 x", "204 x", "205 x\r\nContent-Length: 0", "304 x"])
def test_bytes_after_a_response_without_a_body_are_discarded(
    app: Flask, server: ScriptedServer, status: str
) -> None:
    head = f"HTTP/1.1 {status}\r\n\r\n".encode()
    server.answers[GET_TOKEN] = tokens_for_the_code(lambda handler: handler.wfile.write(head))
    assert sign_in_ada_then_bob(app, server) == [None, "bob"]
    assert server.connections == 2


def test_a_hanging_interface_gets_a_pause_although_another_works(
    make_app: AppMaker, server: ScriptedServer
) -> None:
    """Then logins fail before they are used up, so that the same address works later."""
    server.answers[GET_USER_INFO] = no_answer
    app = make_app(timeout=TIMEOUT)
    for _ in range(3):
        assert fails_within_the_deadline(app.test_client()) == "server_unavailable"
    assert server.paths == [GET_TOKEN, GET_USER_INFO] * 3
    client = app.test_client()
    state = start(client)["state"]
    assert reason(come_back(client, state)) == "server_unavailable"
    assert server.paths == [GET_TOKEN, GET_USER_INFO] * 3
    server.answers[GET_USER_INFO] = says(ADA)
    advance(5)
    assert come_back(client, state).status_code == 303


def truncates_the_body(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.wfile.write(b'{"code":"2000","data":{')
    closes(handler)


def sends_no_http(handler: Handler) -> None:
    handler.wfile.write(b"SSH-2.0-canary-echo\r\n")
    closes(handler)


@pytest.mark.parametrize("behaviour", [closes, truncates_the_body, sends_no_http])
def test_a_request_is_not_repeated_after_a_broken_connection(
    client: FlaskClient,
    server: ScriptedServer,
    behaviour: Callable[[Handler], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    sign_in(client)  # so that the connection is a reused one
    client.post("/sso/logout", headers={"Origin": "http://localhost"})
    server.seen.clear()
    server.answers[GET_TOKEN] = behaviour
    assert reason(come_back(client, start(client)["state"])) == "server_unavailable"
    assert server.paths == [GET_TOKEN]
    assert "The connection to the server broke" in caplog.text
    assert "canary-echo" not in caplog.text


def test_a_connection_closed_while_idle_fails_no_login(app: Flask, server: ScriptedServer) -> None:
    def answer_and_close(handler: Handler) -> None:
        says(TOKEN)(handler)
        handler.close_connection = True

    server.answers[GET_TOKEN] = answer_and_close
    for _ in range(3):
        sign_in(app.test_client())
    assert server.paths == [GET_TOKEN, GET_USER_INFO] * 3


def test_a_long_idle_connection_is_not_reused(app: Flask, server: ScriptedServer) -> None:
    """Servers often close idle connections after 5 s, and a code sent at that moment is lost."""
    sign_in(app.test_client())
    assert server.connections == 1
    advance(4.2)
    sign_in(app.test_client())
    assert server.connections == 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_never_followed(
    client: FlaskClient, server: ScriptedServer, status: int
) -> None:
    server.answers[GET_TOKEN] = says(b"", status, {"Location": f"{server.url}/elsewhere"})
    assert reason(come_back(client, start(client)["state"])) == "server_answer_invalid"
    assert server.paths == [GET_TOKEN]


def test_proxies_and_netrc_of_the_environment_are_not_used(
    client: FlaskClient,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    home = tmp_path_factory.mktemp("home")
    (home / ".netrc").write_text("machine 127.0.0.1 login me password canary-netrc\n")
    (home / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(home))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    sign_in(client)
    assert all("authorization" not in seen.headers for seen in server.seen)


def test_a_server_that_does_not_listen(
    make_app: AppMaker, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    client = make_app(server_url=f"http://127.0.0.1:{port}", timeout=2).test_client()
    assert reason(come_back(client, start(client)["state"])) == "server_unavailable"
    assert "check DEVKIT_SSO_SERVER_URL" in caplog.text


def test_an_unknown_host_name(make_app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
    client = make_app(server_url="https://auth.invalid").test_client()
    assert reason(come_back(client, start(client)["state"])) == "server_unavailable"
    assert "host name is unknown" in caplog.text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_worker_shares_no_connection(app: Flask, server: ScriptedServer) -> None:
    """With gunicorn --preload, the parent may call the server before its workers do."""
    sign_in(app.test_client())
    children = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            status = 1
            with suppress(BaseException):
                for _ in range(3):
                    sign_in(app.test_client())
                status = 0
            os._exit(status)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
    sign_in(app.test_client())
    assert server.connections == 3
    assert server.paths.count(GET_TOKEN) == 8
