"""An error that nobody foresaw in a call to the server is an outage of the server."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from ..clock import advance
from ..conftest import (
    CODE,
    AppMaker,
    carry_cookies,
    come_back,
    cookies,
    reason,
    sign_in,
    start,
)
from ..scripted import GET_TOKEN, GET_USER_INFO, LOGOUT, Handler, ScriptedServer

Fault = Callable[[pytest.MonkeyPatch, Path, ScriptedServer], object]


def library_fails(monkeypatch: pytest.MonkeyPatch, ca_bundle: Path, server: ScriptedServer) -> None:
    def begin(self: object) -> None:
        raise ValueError(f"quotes {CODE}")

    monkeypatch.setattr(http.client.HTTPResponse, "begin", begin)


def server_sends_no_http(
    monkeypatch: pytest.MonkeyPatch, ca_bundle: Path, server: ScriptedServer
) -> None:
    def bad_chunk(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n")

    monkeypatch.setattr(server, "answers", dict.fromkeys(server.answers, bad_chunk))


def no_thread_starts(
    monkeypatch: pytest.MonkeyPatch, ca_bundle: Path, server: ScriptedServer
) -> None:
    real = threading.Thread.start

    def start(self: threading.Thread) -> None:
        if self.name.startswith("devkit-sso_"):
            raise RuntimeError("can't start new thread")
        real(self)

    monkeypatch.setattr(threading.Thread, "start", start)


def ca_bundle_disappears(
    monkeypatch: pytest.MonkeyPatch, ca_bundle: Path, server: ScriptedServer
) -> None:
    ca_bundle.unlink()


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (library_fails, "failed unexpectedly: ValueError in test_unforeseen.py, line "),
        (server_sends_no_http, "The server's response has an invalid chunk size"),
        (no_thread_starts, "No thread can be started"),
        (ca_bundle_disappears, "DEVKIT_SSO_CA_BUNDLE cannot be read (FileNotFoundError)"),
    ],
)
def test_an_unforeseen_error_is_an_outage(
    make_app: AppMaker,
    server: ScriptedServer,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
    text: str,
) -> None:
    """It begins before the first call of a second worker."""
    ca_bundle = tmp_path_factory.mktemp("ca") / "ca.pem"
    certificates = trustme.CA().cert_pem.bytes()
    ca_bundle.write_bytes(certificates)
    first = make_app(ca_bundle=str(ca_bundle)).test_client()
    app = make_app(ca_bundle=str(ca_bundle))
    client = app.test_client()
    sign_in(first)
    carry_cookies(first, client)
    calls = len(server.seen)
    fault(monkeypatch, ca_bundle, server)

    advance(400)
    assert client.get("/private").text == "private ada", "the grace period has begun"
    advance(600)
    response = client.get("/private")
    assert (response.status_code, reason(response)) == (503, "server_unavailable")
    visitor = app.test_client()
    response = come_back(visitor, start(visitor)["state"])
    assert (response.status_code, reason(response)) == (503, "server_unavailable")
    headers = {"Origin": "http://localhost", "Accept": "application/json"}
    signed_out: Any = client.post("/sso/logout", headers=headers)
    assert (signed_out.status_code, signed_out.json["server_told"]) == (200, False)
    assert app.extensions["devkit_sso"].session_cookie not in [c.key for c in cookies(client)]
    assert text in caplog.text
    assert CODE not in caplog.text
    assert not any(record.exc_info for record in caplog.records)

    monkeypatch.undo()
    ca_bundle.write_bytes(certificates)
    if fault in (no_thread_starts, ca_bundle_disappears):
        assert len(server.seen) == calls
    calls = len(server.seen)
    sign_in(app.test_client())
    # A call that was given up is not sent later.
    # Any request may also report the logout in the background.
    paths = [path for path in server.paths[calls:] if path != LOGOUT]
    assert paths == [GET_TOKEN, GET_USER_INFO]


def test_an_exit_is_no_outage(make_app: AppMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither an interrupt nor a timeout of gevent, which is no Exception, becomes a 503."""

    def begin(self: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(http.client.HTTPResponse, "begin", begin)
    client = make_app().test_client()
    state = start(client)["state"]
    with pytest.raises(KeyboardInterrupt):
        come_back(client, state)
