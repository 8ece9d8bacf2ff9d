"""``sso.access_token()``: refreshed by one of many, gone when the server says so (section 4)."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from flask import Flask

from flask_devkit_sso import DevKitSSO, token_refreshed
from flask_devkit_sso.testing import login_as

from .conftest import AppMaker, cookies, sign_in
from .scripted import GET_TOKEN, REFRESH_TOKEN, TOKEN, ScriptedServer, fails, says


@pytest.fixture
def token_app(make_app: AppMaker) -> Flask:
    sso = DevKitSSO()
    app = make_app(sso, timeout=2)
    app.add_url_rule("/token", view_func=sso.access_token, endpoint="token")
    return app


def short_lived(server: ScriptedServer) -> None:
    """Tokens within the half minute in which they are refreshed."""
    server.answers[GET_TOKEN] = says(TOKEN | {"data": TOKEN["data"] | {"expires_in": 20}})  # type: ignore[operator]


def test_a_valid_token_is_not_refreshed(token_app: Flask, server: ScriptedServer) -> None:
    client = token_app.test_client()
    sign_in(client)
    assert client.get("/token").text == "canary-access-token-1f6a"
    assert REFRESH_TOKEN not in server.paths


@pytest.mark.parametrize("new_one", [None, "canary-rotated-55"])
def test_a_refresh_keeps_the_refresh_token_unless_a_new_one_comes(
    token_app: Flask, server: ScriptedServer, new_one: str | None
) -> None:
    short_lived(server)
    data: dict[str, Any] = {"access_token": "second", "expires_in": 20}
    server.answers[REFRESH_TOKEN] = says(
        {"code": "2000", "data": data | ({"refresh_token": new_one} if new_one else {})}
    )
    client = token_app.test_client()
    heard: list[str] = []

    def listen(sender: Flask, user: Any) -> None:
        heard.append(user.username)

    with token_refreshed.connected_to(listen, token_app):
        sign_in(client)
        assert client.get("/token").text == "second"
        assert client.get("/token").text == "second"
    first, second = (seen for seen in server.seen if seen.path == REFRESH_TOKEN)
    assert first.body == (
        b'{"client_id": "20221017000000001", "refresh_token": "canary-refresh-token-9b2c"}'
    )
    assert second.json["refresh_token"] == (new_one or "canary-refresh-token-9b2c")
    assert heard == ["ada", "ada"]


def test_many_requests_refresh_once(token_app: Flask, server: ScriptedServer) -> None:
    short_lived(server)

    def slow(handler: Any) -> None:
        time.sleep(0.3)
        says({"code": "2000", "data": {"access_token": "second", "expires_in": 3600}})(handler)

    server.answers[REFRESH_TOKEN] = slow
    client = token_app.test_client()
    sign_in(client)
    (cookie,) = cookies(client)
    answers: list[str] = []

    def ask() -> None:
        copy = token_app.test_client()
        copy.set_cookie(cookie.key, cookie.value)
        answers.append(copy.get("/token").text)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.paths.count(REFRESH_TOKEN) == 1
    # Who does not refresh goes on with a token that is still valid.
    assert set(answers) <= {"second", "canary-access-token-1f6a"}
    assert len(answers) == 12


def test_a_refused_refresh_token_ends_the_session(token_app: Flask, server: ScriptedServer) -> None:
    short_lived(server)
    server.answers[REFRESH_TOKEN] = fails("8206")
    client = token_app.test_client()
    sign_in(client)
    assert client.get("/token").status_code == 401
    assert not client.get("/who").json["is_authenticated"]


@pytest.mark.parametrize(("code", "status"), [("8500", 502), ("8201", 502)])
def test_a_fault_of_the_server_ends_no_session(
    token_app: Flask, server: ScriptedServer, code: str, status: int
) -> None:
    short_lived(server)
    server.answers[REFRESH_TOKEN] = fails(code)
    client = token_app.test_client()
    sign_in(client)
    assert client.get("/token").status_code == status
    assert client.get("/who").json["is_authenticated"]


def test_nobody_signed_in(token_app: Flask) -> None:
    assert token_app.test_client().get("/token").status_code == 401


def test_outside_a_request(token_app: Flask) -> None:
    with token_app.app_context(), pytest.raises(RuntimeError, match="needs a request"):
        DevKitSSO().access_token()


def test_a_session_of_tests_has_none(token_app: Flask) -> None:
    client = token_app.test_client()
    login_as(client, "bob")
    assert client.get("/token").status_code == 503
