"""Sessions and the SQLite store: what is kept, how long, and what a request costs."""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_devkit_sso import DevKitSSO, LoginFailed, session_ended
from flask_devkit_sso.errors import StoreUnavailable
from flask_devkit_sso.testing import login_as, logout

from .. import clock
from ..clock import advance
from ..conftest import SECRET_KEY, AppMaker, come_back, cookies, reason, sign_in, start
from ..scripted import GET_USER_INFO, ScriptedServer, says
from ..threads import at_once

connections: list[sqlite3.Connection] = []


def _record_connection(event: str, args: tuple[Any, ...]) -> None:
    if event == "sqlite3.connect/handle":
        connections.append(args[0])


sys.addaudithook(_record_connection)


@pytest.fixture
def listen() -> Iterator[Callable[[], list[str]]]:
    """Return a function that starts recording the SQL statements of this test's connections."""
    connections.clear()

    def start_recording() -> list[str]:
        statements: list[str] = []
        for connection in connections:
            with suppress(sqlite3.ProgrammingError):  # already closed
                connection.set_trace_callback(statements.append)
        return statements

    yield start_recording
    connections.clear()


def signed_in(client: FlaskClient) -> bool:
    return bool(client.get("/who").json["is_authenticated"])


def session_cookie(client: FlaskClient) -> Any:
    (found,) = [c for c in cookies(client) if "_login_" not in c.key]
    return found


def test_a_guarded_request_is_one_indexed_read(
    client: FlaskClient, listen: Callable[[], list[str]], tmp_path: Path
) -> None:
    login_as(client, "bob")
    client.get("/private")
    sql, opened = listen(), len(connections)
    assert client.get("/private").status_code == 200
    assert len(connections) == opened
    assert len(sql) == 1
    assert sql[0].startswith("SELECT ")
    with sqlite3.connect(tmp_path / "devkit_sso.db") as connection:
        ((*_, plan),) = connection.execute(f"EXPLAIN QUERY PLAN {sql[0]}").fetchall()
    assert "SEARCH record USING PRIMARY KEY" in plan


def test_a_missing_or_forged_cookie_costs_no_read(
    app: Flask, client: FlaskClient, listen: Callable[[], list[str]]
) -> None:
    login_as(client, "bob")
    cookie = session_cookie(client)
    sql = listen()
    stranger = app.test_client()
    assert not signed_in(stranger)
    for forged in (cookie.value[:-2] + "AA", "x", "", "a.b.c", cookie.value.swapcase()):
        stranger.set_cookie(cookie.key, forged)
        assert not signed_in(stranger)
    assert sql == []


def test_the_cookie_is_opaque(client: FlaskClient) -> None:
    login_as(client, "somebody")
    value = session_cookie(client).value
    assert "somebody" not in value
    assert len(value) < 200


def test_the_last_use_is_not_written_on_each_request(
    client: FlaskClient, listen: Callable[[], list[str]]
) -> None:
    login_as(client, "bob")
    client.get("/private")
    sql = listen()
    for _ in range(5):
        client.get("/private")
    assert len(sql) == 5
    assert [statement for statement in sql if not statement.startswith("SELECT ")] == []


def test_a_shorter_lifetime_applies_to_existing_sessions(
    make_app: AppMaker,
) -> None:
    clock.stop()
    before = make_app().test_client()
    login_as(before, "bob")
    after = make_app(DevKitSSO(), session_lifetime=1).test_client()
    cookie = session_cookie(before)
    after.set_cookie(cookie.key, cookie.value)
    assert signed_in(after)
    advance(1.1)
    assert not signed_in(after)
    assert signed_in(before)


def test_a_new_secret_key_with_the_old_one_as_fallback_signs_nobody_out(
    make_app: AppMaker, server: ScriptedServer, tmp_path: Path
) -> None:
    def with_keys(key: str, *fallbacks: str) -> FlaskClient:
        app = Flask("tests", instance_path=str(tmp_path))
        app.config.update(make_app(DevKitSSO()).config)
        app.config.update(SECRET_KEY=key, SECRET_KEY_FALLBACKS=list(fallbacks))
        DevKitSSO(app)
        app.add_url_rule(
            "/who",
            view_func=lambda: {"is_authenticated": bool(_user().is_authenticated)},
            endpoint="who",
        )
        return app.test_client()

    new_key = "another-key-that-nobody-knows"
    old = with_keys(SECRET_KEY)
    pending = start(old)["state"]
    sign_in(old)
    carried = cookies(old)
    rotated, removed = with_keys(new_key, SECRET_KEY), with_keys(new_key)
    for client in (rotated, removed):
        for cookie in carried:
            client.set_cookie(cookie.key, cookie.value)
    assert signed_in(rotated)
    assert come_back(rotated, pending).status_code == 303
    assert not signed_in(removed)
    # The fallback key opens sealed tokens as well.
    server.seen.clear()
    for cookie in carried:
        rotated.set_cookie(cookie.key, cookie.value)
    sign_in(old)
    cookie = session_cookie(old)
    rotated.set_cookie(cookie.key, cookie.value)
    rotated.post("/sso/logout", headers={"Origin": "http://localhost"})
    assert server.seen[-1].json["access_token"] == "canary-access-token-1f6a"


def _user() -> Any:
    from flask_devkit_sso import current_user

    return current_user


def test_end_sessions(make_app: AppMaker) -> None:
    sso = DevKitSSO()
    app = make_app(sso)
    clients = [app.test_client() for _ in range(3)]
    for client in clients[:2]:
        login_as(client, "bob", uid="u-7")
    login_as(clients[2], "ada", uid="u-8")
    received: list[tuple[str, str]] = []

    def listen(sender: Flask, uid: str, why: str) -> None:
        received.append((uid, why))

    with app.app_context(), session_ended.connected_to(listen, app):
        assert sso.end_sessions("u-7") == 2
        assert sso.end_sessions("u-7") == 0
    assert received == [("u-7", "ended")]
    assert [signed_in(client) for client in clients] == [False, False, True]


def test_end_sessions_ends_a_login_that_waits_for_confirmation(
    make_app: AppMaker, server: ScriptedServer, any_store: str
) -> None:
    sso = DevKitSSO()
    app = make_app(sso, store_url=any_store, binding="confirm")
    asked = {}
    for uid in ("u-7", "u-8"):
        server.answers[GET_USER_INFO] = says(
            {"code": "2000", "data": {"uid": uid, "username": "b"}}
        )
        client = app.test_client()
        start(client)
        asked[uid] = client, client.get("/sso/callback?code=C").location
    with app.app_context():
        assert sso.end_sessions("u-7") == 0
    for uid, (client, question) in asked.items():
        answer = client.post(
            question, data={"answer": "yes"}, headers={"Origin": "http://localhost"}
        )
        assert (answer.status_code == 400) is (uid == "u-7")
        assert signed_in(client) is (uid == "u-8")


def test_end_sessions_without_a_secret_key_reports_the_missing_key(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Flask("tests")
    sso = DevKitSSO(app)
    app.add_url_rule("/end", view_func=lambda: str(sso.end_sessions("u-7")), endpoint="end")
    response = app.test_client().get("/end")
    assert (response.status_code, reason(response)) == (503, "not_configured")
    assert "SECRET_KEY is missing" in caplog.records[-1].getMessage()
    with app.app_context(), pytest.raises(LoginFailed) as failed:
        sso.end_sessions("u-7")
    assert "SECRET_KEY is missing" in failed.value.hint


def test_only_the_owner_can_access_the_file(make_app: AppMaker, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        client = make_app(store_url="sqlite:///sub/sessions.db").test_client()
        login_as(client, "bob")
    finally:
        os.umask(old)
    files = list((tmp_path / "sub").iterdir())
    assert {file.name for file in files} >= {"sessions.db", "sessions.db-wal"}
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert (tmp_path / "sub").stat().st_mode & 0o777 == 0o700


def test_only_the_owner_can_access_a_linked_file(make_app: AppMaker, tmp_path: Path) -> None:
    real = tmp_path / "volume" / "sessions.db"
    real.parent.mkdir()
    (tmp_path / "devkit_sso.db").symlink_to(real)
    old = os.umask(0)
    try:
        login_as(make_app().test_client(), "bob")
    finally:
        os.umask(old)
    assert {file.stat().st_mode & 0o777 for file in real.parent.iterdir()} == {0o600}


def test_an_absolute_path(make_app: AppMaker, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("elsewhere") / "sessions.db"
    login_as(make_app(store_url=f"sqlite:///{path}").test_client(), "bob")
    assert path.exists()


def test_an_ended_session_is_erased_from_the_file(make_app: AppMaker, tmp_path: Path) -> None:
    app = make_app()
    leaving, staying = app.test_client(), app.test_client()

    def left() -> bool:
        with closing(sqlite3.connect(tmp_path / "devkit_sso.db")) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return b"name-of-who-leaves" in (tmp_path / "devkit_sso.db").read_bytes()

    login_as(staying, "bob")
    login_as(leaving, "name-of-who-leaves")
    assert left()
    logout(leaving)
    assert not left()
    for number in range(50):  # enough to free whole pages
        login_as(leaving, "name-of-who-leaves" + "x" * 500, uid=f"u-{number % 2}")
    assert left()
    with app.app_context():
        assert [
            app.extensions["devkit_sso"].session_service.end_sessions(f"u-{n}") for n in (0, 1)
        ] == [25, 25]
    assert not left()
    assert signed_in(staying)


def test_a_session_survives_a_restart(make_app: AppMaker) -> None:
    before = make_app().test_client()
    login_as(before, "bob")
    cookie = session_cookie(before)
    after = make_app(DevKitSSO()).test_client()
    after.set_cookie(cookie.key, cookie.value)
    assert signed_in(after)


def test_threads_and_forks(app: Flask) -> None:
    clients = [app.test_client() for _ in range(4)]
    for number, client in enumerate(clients):
        login_as(client, f"user-{number}")

    def another_login() -> None:
        while True:
            try:
                login_as(app.test_client(), "other")
            except StoreUnavailable as error:
                # On a busy machine, others may lock the file for longer than the store waits.
                if "is locked" not in str(error):
                    raise
            else:
                return

    def read(number: int, failures: list[int]) -> None:
        for turn in range(50):
            name = clients[number].get("/who").json["username"]
            if name != f"user-{number}":
                failures.append(number)
            if turn % 5 == number:
                another_login()

    def in_threads() -> list[int]:
        failures: list[int] = []
        at_once([partial(read, number, failures) for number in range(4)])
        return failures

    assert in_threads() == []
    children = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            status = 1
            with suppress(BaseException):
                status = len(in_threads())
            os._exit(status)
        children.append(pid)
    assert in_threads() == []
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]


@pytest.mark.parametrize("fault", ["locked", "damaged", "other version"])
def test_a_store_failure_is_not_signed_out(
    app: Flask, client: FlaskClient, tmp_path: Path, fault: str
) -> None:
    path = tmp_path / "devkit_sso.db"
    sign_in(client)
    fresh = app.test_client()
    if fault == "locked":
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute("BEGIN EXCLUSIVE")
        # A writer does not block readers.
        assert signed_in(client)
        state = start(fresh)["state"]
        began = time.monotonic()
        response = come_back(fresh, state)
        assert time.monotonic() - began < 3 * 2
    else:
        for file in tmp_path.iterdir():
            file.unlink()
        if fault == "damaged":
            path.write_bytes(b"no database at all, but long enough to look like one" * 100)
        else:
            with sqlite3.connect(path) as connection:
                connection.execute("PRAGMA user_version = 99")
        advance(1)  # A read notices within a second that the file was replaced.
        response = client.get("/private")
    assert (response.status_code, reason(response)) == (503, "store_unavailable")
    assert response.headers["Retry-After"]
    assert "Set-Cookie" not in response.headers or "_login_" in response.headers["Set-Cookie"]
    if fault == "locked":
        blocker.rollback()
        sign_in(fresh)
        assert signed_in(client)


def test_a_record_of_another_version_is_ignored_and_kept(
    client: FlaskClient, tmp_path: Path
) -> None:
    login_as(client, "bob")
    path = tmp_path / "devkit_sso.db"
    with sqlite3.connect(path) as connection:
        connection.execute(
            "UPDATE record SET data = replace(data, '\"version\": 1', '\"version\": 2')"
        )
    assert not signed_in(client)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM record").fetchone() == (1,)


RECORD = (
    '{"version": 1, "uid": "u", "username": "u", "role": null, "tokens": null, "refresh_at": 1, '
)


@pytest.mark.parametrize(
    "data",
    [
        "[" * 100_000,
        '{"version": 1}',
        RECORD + f'"verified_at": 1, "created_at": {"9" * 400}}}',
        RECORD + '"verified_at": 1, "created_at": "x"}',
        RECORD + '"verified_at": null, "created_at": 1}',
        RECORD + '"verified_at": 1, "created_at": 4000000000, "tokens": 0}',
        RECORD + '"verified_at": 1, "created_at": 4000000000, "role": []}',
    ],
    ids=lambda data: str(data)[-20:],
)
def test_an_invalid_record_is_ignored(
    app: Flask, client: FlaskClient, tmp_path: Path, data: str
) -> None:
    login_as(client, "bob")
    with sqlite3.connect(tmp_path / "devkit_sso.db") as connection:
        connection.execute("UPDATE record SET data = ?", (data,))
    assert not signed_in(client)
    login_as(client, "eve")
    listed = app.extensions["devkit_sso"].session_service.sessions.list()
    assert [session.user.username for session in listed] == ["eve"]


def test_login_as_and_logout(app: Flask, client: FlaskClient) -> None:
    cookie = login_as(client, "ada", role="Admin")
    assert client.get("/admin").text == "admin"
    assert client.get_cookie(cookie.key).value == cookie.value
    first = client.get("/who").json["uid"]
    other = app.test_client()
    login_as(other, "ada")
    assert other.get("/who").json["uid"] == first
    logout(client)
    assert not signed_in(client)
    client.set_cookie(cookie.key, cookie.value)
    assert not signed_in(client)
    assert signed_in(other)
    logout(client)


def test_login_as_needs_only_a_secret_key() -> None:
    app = Flask("tests")
    app.config.update(SECRET_KEY="test", TESTING=True, DEVKIT_SSO_STORE_URL="memory://")
    sso = DevKitSSO(app)
    sso.protect(app)
    app.add_url_rule("/x", view_func=lambda: "x", endpoint="x")
    client = app.test_client()
    assert client.get("/x").status_code == 503
    login_as(client, "bob")
    assert client.get("/x").text == "x"


@pytest.mark.parametrize("role", ["admin", "", "Auditor"])
def test_login_as_rejects_unknown_roles(client: FlaskClient, role: Any) -> None:
    with pytest.raises(ValueError, match='"Admin", "User" or None, not \'' + role):
        login_as(client, "ada", role=role)
    assert not signed_in(client)


def test_login_as_without_a_secret_key() -> None:
    from flask_devkit_sso import ConfigError

    with pytest.raises(ConfigError, match="SECRET_KEY"):
        login_as(Flask("tests").test_client(), "bob")
