"""A record that is not understood counts as none, whatever it contains."""

from __future__ import annotations

import json
import math
import sqlite3
from pathlib import Path

import pytest
from flask import Flask

from flask_devkit_sso import DevKitSSO

from ..clock import advance
from ..conftest import AppMaker, cookies, sign_in, start
from ..scripted import GET_USER_INFO, LOGOUT, ScriptedServer, fails

# These tests change whatever they find in the store.
pytestmark = pytest.mark.own_redis

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}

DEEP = "[" * 100_000
BAD = {
    "not JSON": "{",
    "a list": "[]",
    "too deep": DEEP,
    "too large": json.dumps({"version": 1, "verified_at": 10**400, "retry_at": 10**400}),
    "not ASCII": json.dumps({"version": 1, "tokens": "ä"}, ensure_ascii=False),
}


def replace_records(app: Flask, kind: str, data: str, *, is_sealed: bool = False) -> None:
    """Replace all records of a kind, such as session."""
    state = app.extensions["devkit_sso"]
    store = state.service.store
    keys = [key for key in store.below(state.settings.installation) if f":{kind}:" in key]
    assert keys
    for key in keys:
        assert store.update(key, state.service.keys.seal(data) if is_sealed else data)


@pytest.fixture(params=BAD)
def bad(request: pytest.FixtureRequest) -> str:
    return BAD[request.param]


def test_a_session(app: Flask, bad: str) -> None:
    client = app.test_client()
    sign_in(client)
    replace_records(app, "session", bad)
    assert client.get("/private").status_code == 302


@pytest.mark.parametrize("name", ["created_at", "verified_at", "refresh_at"])
@pytest.mark.parametrize("time", [math.nan, math.inf, "inf"])
def test_a_time_that_never_comes(app: Flask, name: str, time: object) -> None:
    """The session would not expire."""
    client = app.test_client()
    sign_in(client)
    record = {"version": 1, "uid": "u-1", "username": "ada", "role": "Admin", "tokens": None}
    times = dict.fromkeys(("created_at", "verified_at", "refresh_at"), 9e9) | {name: time}
    replace_records(app, "session", json.dumps(record | times))
    assert client.get("/private").status_code == 302


@pytest.mark.parametrize(("column", "status"), [("used", 302), ("expires", 200)])
def test_a_record_with_a_column_of_another_type(
    app: Flask, tmp_path: Path, column: str, status: int
) -> None:
    """SQLite accepts any type in any column."""
    client = app.test_client()
    sign_in(client)
    with sqlite3.connect(tmp_path / "devkit_sso.db") as connection:
        connection.execute(f"UPDATE record SET {column} = 'x' WHERE owner IS NOT NULL")
    connection.close()
    assert client.get("/private").status_code == status
    with app.app_context():
        assert app.extensions["devkit_sso"].service.end_sessions("u-1") == (status == 200)
    assert client.get("/private").status_code == 302


@pytest.mark.parametrize("bad", ["ä", DEEP, "5"])
def test_the_tokens_of_a_session(app: Flask, server: ScriptedServer, bad: str) -> None:
    """The session stays, because another host may have the key. The server is not asked."""
    client = app.test_client()
    sign_in(client)
    state = app.extensions["devkit_sso"]
    (key,) = [k for k in state.service.store.below(state.settings.installation) if "session" in k]
    sealed = bad if bad == "ä" else state.service.keys.seal(bad)
    good = state.service.store.read(key).data
    record = json.loads(good) | {"tokens": sealed}
    assert state.service.store.update(key, json.dumps(record, ensure_ascii=False))
    advance(901)
    server.seen.clear()
    assert client.get("/private").status_code == 503
    assert server.seen == []
    assert state.service.store.update(key, good)
    assert client.get("/private").status_code == 200


@pytest.mark.parametrize(
    "changes", [{"uid": 5}, {"username": None}, {"role": 5}, {"uid": ["u-1"]}], ids=str
)
def test_a_verified_user_of_another_type(
    app: Flask, server: ScriptedServer, changes: dict[str, object]
) -> None:
    info = {"uid": "u-1", "username": "ada", "role": "Admin"} | changes
    check_verified_user(app, server, json.dumps({"info": info, "verified_at": 9e12}))


def test_a_verified_user(app: Flask, server: ScriptedServer, bad: str) -> None:
    check_verified_user(app, server, bad)


def check_verified_user(app: Flask, server: ScriptedServer, data: str) -> None:
    first, second = app.test_client(), app.test_client()
    for client in (first, second):
        sign_in(client)
    advance(901)
    assert first.get("/private").status_code == 200
    replace_records(app, "verified", data)
    server.seen.clear()
    assert second.get("/private").text == "private ada"
    assert server.paths == [GET_USER_INFO]


def test_a_pending_logout(app: Flask, server: ScriptedServer, bad: str) -> None:
    client = app.test_client()
    server.answers[LOGOUT] = fails("8500")
    sign_in(client)
    client.post("/sso/logout", headers=SAME_ORIGIN)
    replace_records(app, "logouts", bad)
    assert app.extensions["devkit_sso"].service.logouts.report_pending() == 0


@pytest.mark.parametrize("is_sealed", [True, False])
def test_the_result_of_a_login(make_app: AppMaker, bad: str, is_sealed: bool) -> None:
    app = make_app(DevKitSSO(), binding="confirm")
    client = app.test_client()
    start(client, headers=SAME_ORIGIN)
    question = client.get("/sso/callback?code=C").location
    replace_records(app, "result", bad, is_sealed=is_sealed)
    response = client.post(question, data={"answer": "yes"}, headers=SAME_ORIGIN)
    assert response.status_code == 400
    assert not any("session" in cookie.key for cookie in cookies(client))
