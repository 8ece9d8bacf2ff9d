"""Secrets do not leak into logs of any level, reprs, pages, tracebacks, or the store."""

from __future__ import annotations

import gc
import logging
import traceback
from pathlib import Path
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_devkit_sso import DevKitSSO, LoginFailed, login_failed

from . import audit
from .conftest import CLIENT_SECRET, CODE, AppMaker, come_back, cookies, start
from .scripted import GET_TOKEN, GET_USER_INFO, LOGOUT, Handler, ScriptedServer, fails, says

ACCESS_TOKEN = "canary-access-token-1f6a"
REFRESH_TOKEN = "canary-refresh-token-9b2c"


def echo(handler: Handler) -> None:
    """Repeat every secret that the request contains."""
    loud = " ".join((CLIENT_SECRET, CODE, ACCESS_TOKEN, REFRESH_TOKEN))
    says({"code": loud, "message": loud, "data": {loud: loud}}, headers={"X-Echo": loud})(handler)


def echo_error(handler: Handler) -> None:
    loud = " ".join((CLIENT_SECRET, CODE, ACCESS_TOKEN, REFRESH_TOKEN))
    says({"code": "8204", "message": loud, "messageArgs": [loud], "data": loud})(handler)


def sends_no_http(handler: Handler) -> None:
    handler.wfile.write(f"{CLIENT_SECRET} {CODE} {ACCESS_TOKEN}\r\n\r\n".encode())
    handler.close_connection = True


def bad_header(handler: Handler) -> None:
    handler.wfile.write(f"HTTP/1.1 200 OK\r\n{CODE} {ACCESS_TOKEN}\r\n".encode())
    handler.wfile.write(f"Transfer-Encoding: chunked\r\n\r\n{CLIENT_SECRET}\r\n".encode())
    handler.close_connection = True


def test_secrets_do_not_leak(
    make_app: AppMaker,
    server: ScriptedServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in (None, "authlib", "flask_devkit_sso"):
        # caplog restores the level after the test.
        caplog.set_level(logging.DEBUG, logger=name)
    app = make_app(pkce=True)
    app.debug = True
    tracebacks: list[str] = []

    def failed(sender: Flask, reason: str, error: LoginFailed) -> None:
        tracebacks.append("".join(traceback.format_exception(error)) + repr(error) + str(error))

    shown: list[str] = []
    secrets = {CLIENT_SECRET, CODE, ACCESS_TOKEN, REFRESH_TOKEN}

    def visit(client: FlaskClient) -> None:
        sent = start(client)
        response = come_back(client, sent["state"])
        shown.append(response.text)
        for cookie in cookies(client):
            assert not any(secret in cookie.value for secret in secrets)
        if response.status_code == 303:
            shown.append(client.get("/private").text)
            (cookie,) = cookies(client)
            secrets.add(cookie.value)
            # The id inside the signed value: the store contains only its hash.
            secrets.add(cookie.value.split(".")[0])
            shown.append(
                repr(app.extensions["devkit_sso"].session_service.sessions.load(cookie.value))
            )
        verifier = server.seen[0].json.get("code_verifier")
        if verifier:
            secrets.add(verifier)

    with audit.trail() as trail, login_failed.connected_to(failed, app):
        visit(app.test_client())
        for answer in (echo, echo_error, sends_no_http, bad_header, fails("8204")):
            for path in (GET_TOKEN, GET_USER_INFO):
                kept = server.answers[path]
                server.answers[path] = answer
                visit(app.test_client())
                server.answers[path] = kept
        server.answers[LOGOUT] = echo_error
        client = app.test_client()
        visit(client)
        response = client.post("/sso/logout", headers={"Origin": "http://localhost"})
        shown.append(client.get(response.location).text)
    assert len(tracebacks) == 10
    assert len(secrets) >= 8
    assert f"POST {server.url}{GET_TOKEN}: HTTP 200" in caplog.text, "debug messages are captured"

    state = app.extensions["devkit_sso"]
    reprs = [
        repr(item)
        for item in gc.get_objects()
        if str(type(item).__module__).startswith("flask_devkit_sso")
    ]
    assert any("Settings(" in text for text in reprs)
    shown += [
        repr(vars(state)),
        repr(vars(state.service.client)),
        repr(vars(state.session_service.keys)),
        *reprs,
    ]
    assert len(trail.events) == 13
    everything = "\n".join([caplog.text, *trail.lines, *tracebacks, *shown])
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"ada" in stored
    for secret in secrets:
        assert secret not in everything
        assert quote(secret) not in everything
        assert secret.encode() not in stored


def test_the_secret_key_does_not_leak(make_app: AppMaker) -> None:
    app = make_app(DevKitSSO())
    state = app.extensions["devkit_sso"]
    assert app.config["SECRET_KEY"] not in repr(vars(state)) + repr(state.session_service.keys)
