"""Token refresh and user revalidation in the background (docs/protocol.md sections 3 to 5)."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_devkit_sso import DevKitSSO, session_ended, token_refreshed
from flask_devkit_sso.testing import login_as

from .. import clock
from ..clock import advance
from ..conftest import AppMaker, cookies, reason, sign_in, wait_until
from ..redis_server import RedisServer
from ..scripted import (
    ADA,
    GET_TOKEN,
    GET_USER_INFO,
    LOGOUT,
    REFRESH_TOKEN,
    TOKEN,
    Handler,
    ScriptedServer,
    closes,
    fails,
    says,
)
from ..threads import Background, at_once

VALIDITY = "/validity/of-users"

SECOND = says({"code": "2000", "data": {"access_token": "second", "expires_in": 3600}})


@pytest.fixture
def make_token_app(make_app: AppMaker) -> Callable[..., Flask]:
    """Make an application that shows its access token and revalidates users every second."""

    def make(**settings: Any) -> Flask:
        sso = DevKitSSO()
        app = make_app(sso, **{"timeout": 2, "revalidate_after": 1} | settings)
        app.add_url_rule("/token", view_func=sso.access_token, endpoint="token")
        app.add_url_rule("/ping", view_func=lambda: "pong", endpoint="ping")
        return app

    return make


@pytest.fixture
def token_app(make_token_app: Callable[..., Flask]) -> Flask:
    return make_token_app(revalidate_after=300)


def issue_short_lived_tokens(server: ScriptedServer) -> None:
    """Let the server issue access tokens with a lifetime of one second."""
    server.answers[GET_TOKEN] = says(TOKEN | {"data": TOKEN["data"] | {"expires_in": 1}})  # type: ignore[operator]


def let_it_expire() -> None:
    advance(1.1)


def username(client: FlaskClient) -> str | None:
    found: str | None = client.get("/who").json["username"]
    return found


# The access token


def test_a_valid_token_is_not_refreshed(token_app: Flask, server: ScriptedServer) -> None:
    client = token_app.test_client()
    sign_in(client)
    assert client.get("/token").text == "canary-access-token-1f6a"
    assert REFRESH_TOKEN not in server.paths


@pytest.mark.parametrize("new_one", [None, "canary-rotated-55"])
def test_a_refresh_keeps_the_refresh_token_unless_it_is_replaced(
    token_app: Flask, server: ScriptedServer, new_one: str | None
) -> None:
    issue_short_lived_tokens(server)
    data: dict[str, Any] = {"access_token": "second", "expires_in": 1}
    server.answers[REFRESH_TOKEN] = says(
        {"code": "2000", "data": data | ({"refresh_token": new_one} if new_one else {})}
    )
    client = token_app.test_client()
    received: list[str] = []

    def listen(sender: Flask, user: Any) -> None:
        received.append(user.username)

    with token_refreshed.connected_to(listen, token_app):
        sign_in(client)
        for _ in range(2):
            let_it_expire()
            assert client.get("/token").text == "second"
    first, second = (seen for seen in server.seen if seen.path == REFRESH_TOKEN)
    assert first.body == (
        b'{"client_id": "20221017000000001", "refresh_token": "canary-refresh-token-9b2c"}'
    )
    assert second.json["refresh_token"] == (new_one or "canary-refresh-token-9b2c")
    assert received == ["ada", "ada"]


@pytest.mark.parametrize("path", ["/token", "/private"])
def test_many_requests_refresh_once(token_app: Flask, server: ScriptedServer, path: str) -> None:
    issue_short_lived_tokens(server)

    def slow(handler: Handler) -> None:
        time.sleep(0.5)
        SECOND(handler)

    server.answers[REFRESH_TOKEN] = slow
    client = token_app.test_client()
    sign_in(client)
    let_it_expire()
    (cookie,) = cookies(client)
    answers: list[tuple[int, str]] = []

    def ask() -> None:
        copy = token_app.test_client()
        copy.set_cookie(cookie.key, cookie.value)
        response = copy.get(path)
        answers.append((response.status_code, response.text))

    at_once([ask] * 20)
    assert answers == [(200, "second" if path == "/token" else "private ada")] * 20
    assert client.get("/token").text == "second"
    assert server.paths.count(REFRESH_TOKEN) == 1


def test_pages_do_not_wait_for_a_refresh(token_app: Flask, server: ScriptedServer) -> None:
    """The server responds only after the pages have been served."""
    issue_short_lived_tokens(server)
    answered = threading.Event()

    def after_the_pages(handler: Handler) -> None:
        assert answered.wait(60)
        SECOND(handler)

    server.answers[REFRESH_TOKEN] = after_the_pages
    client = token_app.test_client()
    sign_in(client)
    let_it_expire()
    for _ in range(5):
        assert client.get("/private").text == "private ada"
    answered.set()
    assert client.get("/token").text == "second"
    assert server.paths.count(REFRESH_TOKEN) == 1


def test_a_refused_refresh_token_ends_the_session(token_app: Flask, server: ScriptedServer) -> None:
    issue_short_lived_tokens(server)
    server.answers[REFRESH_TOKEN] = fails("8206")
    client = token_app.test_client()
    sign_in(client)
    let_it_expire()
    assert client.get("/token").status_code == 401
    assert username(client) is None


@pytest.mark.parametrize("code", ["8500", "8201", "8101"])
def test_a_server_error_ends_no_session(
    token_app: Flask, server: ScriptedServer, code: str
) -> None:
    issue_short_lived_tokens(server)
    server.answers[REFRESH_TOKEN] = fails(code)
    client = token_app.test_client()
    sign_in(client)
    let_it_expire()
    # The job that the request starts in the background may fail before the view waits for it.
    assert client.get("/token").status_code in (502, 503)
    assert username(client) == "ada"
    # The next requests do not call the server again at once.
    for _ in range(5):
        assert client.get("/token").status_code == 503
    assert server.paths.count(REFRESH_TOKEN) == 1


def test_an_error_that_the_server_returns_in_the_background_counts_for_those_who_wait(
    token_app: Flask, server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    issue_short_lived_tokens(server)
    server.answers[REFRESH_TOKEN] = fails("8500")
    client = token_app.test_client()
    sign_in(client)
    let_it_expire()
    client.get("/private")
    wait_until(lambda: "could not be kept up to date" in caplog.text)
    assert client.get("/token").status_code == 503
    assert server.paths.count(REFRESH_TOKEN) == 1


def test_a_logout_during_a_refresh_is_final(token_app: Flask, server: ScriptedServer) -> None:
    issue_short_lived_tokens(server)
    begun, signed_out = threading.Event(), threading.Event()

    def slow(handler: Handler) -> None:
        begun.set()
        assert signed_out.wait(60)
        SECOND(handler)

    server.answers[REFRESH_TOKEN] = slow
    client = token_app.test_client()
    sign_in(client)
    let_it_expire()
    (cookie,) = cookies(client)
    asking = Background(lambda: client.get("/private"))
    assert begun.wait(60)
    server.answers[REFRESH_TOKEN] = fails("8206")
    leaving = token_app.test_client()
    leaving.set_cookie(cookie.key, cookie.value)
    leaving.post("/sso/logout", headers={"Origin": "http://localhost"})
    signed_out.set()
    asking.result()
    time.sleep(0.3)
    client.set_cookie(cookie.key, cookie.value)
    assert username(client) is None


def test_a_logout_waits_for_a_refresh_and_sends_the_new_token(
    token_app: Flask, server: ScriptedServer
) -> None:
    """The refresh uses up the old tokens, which could not end the sign-in at the server."""
    issue_short_lived_tokens(server)
    begun, go_on = threading.Event(), threading.Event()

    def slow(handler: Handler) -> None:
        begun.set()
        assert go_on.wait(60)
        SECOND(handler)

    server.answers[REFRESH_TOKEN] = slow
    client = token_app.test_client()
    sign_in(client)
    let_it_expire()
    (cookie,) = cookies(client)
    assert client.get("/private").status_code == 200
    assert begun.wait(60)
    server.answers[REFRESH_TOKEN] = fails("8206")

    def sign_out() -> bool:
        headers = {"Origin": "http://localhost", "Accept": "application/json"}
        return bool(client.post("/sso/logout", headers=headers).json["server_told"])

    leaving = Background(sign_out)
    copy = token_app.test_client()
    copy.set_cookie(cookie.key, cookie.value)
    wait_until(lambda: username(copy) is None)
    assert LOGOUT not in server.paths
    go_on.set()
    assert leaving.result() is True
    assert [(seen.path, seen.json) for seen in server.seen[-2:]] == [
        (
            REFRESH_TOKEN,
            {"client_id": "20221017000000001", "refresh_token": "canary-refresh-token-9b2c"},
        ),
        (LOGOUT, {"client_id": "20221017000000001", "access_token": "second"}),
    ]


def test_a_short_store_failure_loses_no_new_token(
    make_token_app: Callable[..., Flask], server: ScriptedServer, tmp_path: Path
) -> None:
    issue_short_lived_tokens(server)
    app = make_token_app(revalidate_after=300, store_url=f"sqlite:///{tmp_path}/sessions.db")
    with closing(sqlite3.connect(tmp_path / "sessions.db", check_same_thread=False)) as other:

        def locks(handler: Handler) -> None:
            other.execute("BEGIN EXCLUSIVE")
            SECOND(handler)

        server.answers[REFRESH_TOKEN] = locks
        client = app.test_client()
        sign_in(client)
        let_it_expire()
        assert client.get("/private").status_code == 200
        # Longer than one attempt of the store.
        time.sleep(3)
        other.rollback()
    assert client.get("/token").text == "second"
    assert server.paths.count(REFRESH_TOKEN) == 1


def test_an_error_in_the_background_is_logged(
    token_app: Flask, server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    issue_short_lived_tokens(server)
    server.answers[REFRESH_TOKEN] = SECOND
    client = token_app.test_client()

    def receiver(sender: Flask, user: Any) -> None:
        raise ZeroDivisionError

    with token_refreshed.connected_to(receiver, token_app):
        sign_in(client)
        let_it_expire()
        assert client.get("/private").status_code == 200
        wait_until(lambda: any(r.levelno >= logging.ERROR for r in caplog.records))
    (record,) = (r for r in caplog.records if r.levelno >= logging.ERROR)
    assert record.exc_info
    assert record.exc_info[0] is ZeroDivisionError
    assert "canary" not in caplog.text
    assert client.get("/token").text == "second"


def test_the_token_of_an_anonymous_user(token_app: Flask) -> None:
    assert token_app.test_client().get("/token").status_code == 401


def test_the_token_outside_a_request(token_app: Flask) -> None:
    with token_app.app_context(), pytest.raises(RuntimeError, match="needs a request"):
        DevKitSSO().access_token()


def test_a_login_as_session_has_no_token_and_is_not_revalidated(
    make_token_app: Callable[..., Flask], server: ScriptedServer
) -> None:
    client = make_token_app().test_client()
    login_as(client, "bob")
    assert client.get("/token").status_code == 503
    let_it_expire()
    assert username(client) == "bob"
    assert server.seen == []


def test_a_login_as_session_has_no_token_without_a_configured_server(
    make_token_app: Callable[..., Flask],
) -> None:
    client = make_token_app(client_id=None).test_client()
    login_as(client, "bob")
    assert client.get("/token").status_code == 401
    assert username(client) == "bob"


# The user


def person(**changes: Any) -> Callable[[Handler], None]:
    return says(ADA | {"data": ADA["data"] | changes})  # type: ignore[operator]


def two_browsers(app: Flask, server: ScriptedServer) -> tuple[FlaskClient, FlaskClient]:
    """Return two browsers of one user, whose verification has expired."""
    first, second = app.test_client(), app.test_client()
    sign_in(first)
    sign_in(second)
    server.seen.clear()
    let_it_expire()
    return first, second


@pytest.mark.parametrize(
    ("answer", "role"),
    [(person(role="User"), "User"), (person(role="x"), None), (person(username="eve"), "Admin")],
    ids=["lowered", "unknown", "renamed"],
)
def test_a_changed_user_takes_effect_in_every_session(
    make_token_app: Callable[..., Flask],
    server: ScriptedServer,
    answer: Callable[[Handler], None],
    role: str | None,
) -> None:
    clients = two_browsers(make_token_app(), server)
    server.answers[GET_USER_INFO] = answer
    for client in clients:
        assert client.get("/who").json["role"] == role
        assert client.get("/admin").status_code == (200 if role == "Admin" else 403)
    # One request serves both sessions.
    assert server.paths == [GET_USER_INFO]
    let_it_expire()
    server.answers[GET_USER_INFO] = person()
    assert [client.get("/admin").status_code for client in clients] == [200, 200]
    assert server.paths == [GET_USER_INFO] * 2


def test_ending_a_users_sessions_deletes_the_verified_user(
    make_token_app: Callable[..., Flask], server: ScriptedServer, tmp_path: Path
) -> None:
    app = make_token_app()
    two_browsers(app, server)[0].get("/who")
    with closing(sqlite3.connect(tmp_path / "devkit_sso.db")) as other:
        ada = "SELECT count(*) FROM record WHERE data LIKE '%ada%'"
        assert other.execute(ada).fetchone() == (3,)
        with app.app_context():
            assert DevKitSSO().end_sessions("u-1") == 2
        assert other.execute(ada).fetchone() == (0,)


@pytest.mark.parametrize("data", ["{", "{}", '{"info": {"uid": 1}, "verified_at": 0}', "[]"])
def test_an_unreadable_verified_user_is_requested_again(
    make_token_app: Callable[..., Flask], server: ScriptedServer, tmp_path: Path, data: str
) -> None:
    clients = two_browsers(make_token_app(), server)
    assert username(clients[0]) == "ada"
    with closing(sqlite3.connect(tmp_path / "devkit_sso.db")) as other:
        changed = other.execute("UPDATE record SET data = ? WHERE key LIKE '%:verified:%'", (data,))
        assert changed.rowcount == 1
        other.commit()
    assert username(clients[1]) == "ada"
    assert server.paths == [GET_USER_INFO] * 2


def test_many_requests_revalidate_once_per_interval(
    make_token_app: Callable[..., Flask], server: ScriptedServer
) -> None:
    app = make_token_app()
    (cookie,) = cookies(two_browsers(app, server)[0])
    statuses: list[int] = []

    def slow(handler: Handler) -> None:
        time.sleep(0.3)
        person()(handler)

    def ask() -> None:
        client = app.test_client()
        client.set_cookie(cookie.key, cookie.value)
        statuses.append(client.get("/admin").status_code)

    server.answers[GET_USER_INFO] = slow
    at_once([ask] * 20)
    assert statuses == [200] * 20
    assert server.paths == [GET_USER_INFO]


def test_pages_do_not_wait_for_an_early_revalidation(
    make_token_app: Callable[..., Flask], server: ScriptedServer
) -> None:
    """An early request to the server completes before anybody has to wait."""
    clock.stop()
    client = make_token_app(revalidate_after=10).test_client()
    sign_in(client)
    answered = threading.Event()

    def after_the_page(handler: Handler) -> None:
        assert answered.wait(60)
        person(role="User")(handler)

    server.answers[GET_USER_INFO] = after_the_page
    advance(8.3)
    assert client.get("/admin").status_code == 200
    answered.set()
    wait_until(lambda: client.get("/admin").status_code != 200)
    assert server.paths.count(GET_USER_INFO) == 2


ENDED = [
    # Responses of getUserInfo before and after a refresh, the response of refreshToken, and the
    # reason for which the session ends.
    pytest.param([fails("8205")] * 2, SECOND, "token_refused", id="8205 stands"),
    pytest.param([fails("8205")], fails("8206"), "refresh_refused", id="8205, then 8206"),
    pytest.param([person(uid="u-2")], SECOND, "another_user", id="another user"),
]


@pytest.mark.parametrize(("answers", "refresh", "why"), ENDED)
def test_a_refusal_for_one_session_ends_only_that_session(
    make_token_app: Callable[..., Flask],
    server: ScriptedServer,
    answers: list[Callable[[Handler], None]],
    refresh: Callable[[Handler], None],
    why: str,
) -> None:
    app = make_token_app()
    first, second = two_browsers(app, server)
    waiting = list(answers)

    def next_answer(handler: Handler) -> None:
        (waiting.pop(0) if waiting else person())(handler)

    server.answers[GET_USER_INFO] = next_answer
    server.answers[REFRESH_TOKEN] = refresh
    received: list[tuple[str, str]] = []

    def listen(sender: Flask, uid: str, why: str) -> None:
        received.append((uid, why))

    with session_ended.connected_to(listen, app):
        assert first.get("/private").status_code == 302
    assert received == [("u-1", why)]
    assert not waiting
    assert username(second) == "ada"
    assert username(first) is None


def test_a_failing_receiver_leaves_nobody_signed_in(
    make_token_app: Callable[..., Flask], server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_token_app()

    def fail(sender: Flask, uid: str, why: str) -> None:
        raise RuntimeError

    client = app.test_client()
    sign_in(client)
    server.answers[GET_USER_INFO] = fails("8205")
    server.answers[REFRESH_TOKEN] = fails("8206")
    let_it_expire()
    with session_ended.connected_to(fail, app):
        assert client.get("/private").status_code == 302
    (record,) = (r for r in caplog.records if r.levelno >= logging.ERROR)
    assert record.exc_info
    assert record.exc_info[0] is RuntimeError


def test_a_token_ended_by_a_newer_login_is_refreshed_once(
    make_token_app: Callable[..., Flask], server: ScriptedServer
) -> None:
    first, _ = two_browsers(make_token_app(), server)

    def by_token(handler: Handler) -> None:
        fresh = handler.server.seen[-1].json["access_token"] == "second"
        (person(role="User") if fresh else fails("8205"))(handler)

    server.answers[GET_USER_INFO] = by_token
    server.answers[REFRESH_TOKEN] = SECOND
    assert first.get("/who").json["role"] == "User"
    assert server.paths == [GET_USER_INFO, REFRESH_TOKEN, GET_USER_INFO]


FAULTS = {
    **{code: fails(code) for code in ("8101", "8105", "8107", "8201", "8204", "8500", "9999")},
    "http 500": says(ADA, 500),
    "rubbish": says(b"<html>"),
    "no data": says({"code": "2000"}),
    "no uid": person(uid=""),
    "closes": closes,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_error_is_an_outage_and_neither_confirms_nor_ends_a_session(
    make_token_app: Callable[..., Flask],
    server: ScriptedServer,
    fault: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock.stop()
    first, second = two_browsers(make_token_app(outage_grace=3), server)
    server.answers[GET_USER_INFO] = FAULTS[fault]
    assert first.get("/admin").status_code == second.get("/admin").status_code == 200
    level = logging.WARNING if fault == "closes" else logging.ERROR
    (message,) = [r.getMessage() for r in caplog.records if "kept up to date" in r.getMessage()]
    assert [r.levelno for r in caplog.records if r.getMessage() == message] == [level]
    if fault == "8201":
        assert "check DEVKIT_SSO_CLIENT_ID" in message
    section = "server_rejected" if fault.isdecimal() else "server_answer_invalid"
    section = "server_unavailable" if fault == "closes" else section
    assert message.endswith(f" See docs/failures.md#{section}")
    advance(2.1)
    for client in (first, second):
        response = client.get("/admin")
        assert (response.status_code, reason(response)) == (503, "server_unavailable")
        assert response.headers["Retry-After"] == "5"
        assert "Set-Cookie" not in response.headers
        assert client.get("/ping").text == "pong"
    # People who are signed in do not have to sign in again.
    assert '<a class="button primary" href="/admin">Try again</a>' in response.text
    assert "If you were signed in, you still are." in response.text
    assert client.get("/admin", headers={"Accept": "application/json"}).json["login_url"] is None
    assert "request failed: server_unavailable (reference " in caplog.text
    assert "login failed" not in caplog.text
    # One attempt every five seconds, regardless of the number of requests.
    assert len(server.paths) == (2 if fault == "closes" else 1)
    # Pages work again within five seconds of the server's return, without another login.
    server.answers[GET_USER_INFO] = person()
    advance(5)
    assert first.get("/admin").status_code == second.get("/admin").status_code == 200


def test_a_hanging_server_delays_only_the_first_page(
    make_token_app: Callable[..., Flask], server: ScriptedServer
) -> None:
    app = make_token_app(outage_grace=60)
    first, second = two_browsers(app, server)
    hanging = threading.Event()
    server.answers[GET_USER_INFO] = lambda handler: (hanging.wait(60), None)[-1]
    assert first.get("/admin").status_code == 200
    assert not hanging.is_set(), "it did not wait for the server"
    for client in (first, second):
        assert client.get("/ping").text == "pong"
    # Signing out works during the outage.
    second.post("/sso/logout", headers={"Origin": "http://localhost"})
    assert username(second) is None
    hanging.set()


# The user validity interface, with its three settings (section 5)


def with_validity(
    make_token_app: Callable[..., Flask], server: ScriptedServer, key: str, **settings: Any
) -> Flask:
    # A login asks as well.
    server.answers[VALIDITY] = says({"code": "2000", "data": {"validation_list": [True]}})
    return make_token_app(
        validity_url=server.url + VALIDITY,
        validity_field="accounts",
        validity_key=key,
        **settings,
    )


@pytest.mark.parametrize(("key", "value"), [("uid", "u-1"), ("username", "ada")])
def test_the_validity_interface_on_the_wire(
    make_token_app: Callable[..., Flask], server: ScriptedServer, key: str, value: str
) -> None:
    first, second = two_browsers(with_validity(make_token_app, server, key), server)
    server.answers[GET_USER_INFO] = person(role="User")
    assert [client.get("/who").json["role"] for client in (first, second)] == ["User"] * 2
    request, _ = server.seen
    assert (request.method, request.path) == ("POST", "/validity/of-users")
    assert request.headers["content-type"] == "application/json"
    assert request.body == (
        b'{"client_id": "20221017000000001", "access_token": "canary-access-token-1f6a",'
        b' "accounts": ["%s"]}' % value.encode()
    )
    assert server.paths == [VALIDITY, GET_USER_INFO]


def test_an_invalid_user_loses_every_session(
    make_token_app: Callable[..., Flask], server: ScriptedServer
) -> None:
    app = with_validity(make_token_app, server, "uid")
    first, second = two_browsers(app, server)
    server.answers[VALIDITY] = says({"code": "2000", "data": {"validation_list": [False]}})
    received: list[tuple[str, str]] = []

    def listen(sender: Flask, uid: str, why: str) -> None:
        received.append((uid, why))

    with session_ended.connected_to(listen, app):
        assert first.get("/private").status_code == 302
        server.seen.clear()
        assert username(second) is None
    assert received == [("u-1", "user_invalid")]
    assert server.seen == []


def test_an_invalid_user_loses_every_session_without_the_index_too(
    make_token_app: Callable[..., Flask], server: ScriptedServer, redis_server: RedisServer
) -> None:
    """Redis may evict the index if an eviction policy is configured."""
    app = with_validity(make_token_app, server, "uid", store_url=redis_server.url)
    first, second = two_browsers(app, server)
    server.answers[VALIDITY] = says({"code": "2000", "data": {"validation_list": [False]}})
    with redis_server.admin() as admin:
        (index,) = admin.keys("devkit_sso:owner:*:user:*")
        admin.delete(index)
    for client in (first, second):
        assert client.get("/private").status_code == 302


@pytest.mark.parametrize(
    "answer",
    [[], [True, True], [False, False], ["true"], [1], [None], True, None, {"0": True}],
    ids=str,
)
def test_a_malformed_validity_list_is_an_outage(
    make_token_app: Callable[..., Flask], server: ScriptedServer, answer: Any
) -> None:
    first, second = two_browsers(with_validity(make_token_app, server, "uid"), server)
    server.answers[VALIDITY] = says({"code": "2000", "data": {"validation_list": answer}})
    assert username(first) == username(second) == "ada"
    assert server.paths == [VALIDITY]
