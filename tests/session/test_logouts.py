"""Pending logouts: any worker reports them to the server later."""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_devkit_sso import DevKitSSO, logged_out
from flask_devkit_sso.protocol.contract import Tokens

from ..clock import advance
from ..conftest import AppMaker, sign_in, start, wait_until
from ..scripted import (
    GET_TOKEN,
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

# These tests examine the whole store.
pytestmark = pytest.mark.own_redis

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


def sign_out(client: FlaskClient) -> bool:
    headers = SAME_ORIGIN | {"Accept": "application/json"}
    return bool(client.post("/sso/logout", headers=headers).json["server_told"])


def logouts(app: Flask) -> Any:
    return app.extensions["devkit_sso"].service.logouts


def rewrite(app: Flask, key: str, **change: Any) -> None:
    """Change values of a record."""
    store = app.extensions["devkit_sso"].session_service.store
    assert store.update(key, json.dumps(json.loads(store.read(key).data) | change))


def is_store_empty(app: Flask) -> bool:
    """Tell whether the store has no records, except those of used logins."""
    store = app.extensions["devkit_sso"].session_service.store
    installation = app.extensions["devkit_sso"].settings.installation
    return [key for key in store.below(installation) if ":login:" not in key] == []


@pytest.fixture
def make_worker(any_store: str, make_app: AppMaker) -> AppMaker:
    """Make an application for another worker, on the same store."""
    return lambda **settings: make_app(DevKitSSO(), store_url=any_store, **settings)


@pytest.mark.parametrize("how", [closes, fails("8500"), says(b"<html>", 200), says(b"", 503)])
def test_a_failed_report_is_retried_at_intervals(
    make_worker: AppMaker, server: ScriptedServer, how: Any
) -> None:
    app = make_worker()
    client = app.test_client()
    sign_in(client)
    received: list[bool] = []

    def listen(sender: Flask, user: Any, server_told: bool) -> None:
        received.append(server_told)

    server.answers[LOGOUT] = how
    with logged_out.connected_to(listen, app):
        assert not sign_out(client)
    assert received == [False]
    assert client.get("/private").status_code == 302
    assert logouts(make_worker()).report_pending() == 0, "the server still fails"
    server.answers[LOGOUT] = says({"code": "2000"})
    server.seen.clear()
    assert logouts(make_worker()).report_pending() == 0, "it was tried a moment ago"
    assert server.seen == []
    assert not is_store_empty(app)


def test_answering_no_logs_out_at_the_server_or_records_a_pending_logout(
    make_worker: AppMaker, server: ScriptedServer
) -> None:
    app = make_worker(binding="confirm")
    client = app.test_client()
    outcomes = []
    for how in (fails("8500"), says({"code": "2000"})):
        server.answers[LOGOUT] = how
        start(client, headers=SAME_ORIGIN)
        question = client.get("/sso/callback?code=C").location
        # A HEAD request does not answer the question.
        assert client.head(question, headers=SAME_ORIGIN).status_code == 200
        response = client.post(question, data={"answer": "no"}, headers=SAME_ORIGIN)
        outcomes.append(client.get(response.location).text.split('data-outcome="')[1].split('"')[0])
    assert outcomes == ["not_told", "told"]
    server.seen.clear()
    assert logouts(app).report_pending() == 1
    assert server.paths == [LOGOUT]
    assert is_store_empty(app)


def test_a_pending_logout_is_reported_once(make_worker: AppMaker, server: ScriptedServer) -> None:
    client = make_worker().test_client()
    server.answers[LOGOUT] = fails("8500")
    sign_in(client)
    assert not sign_out(client)
    server.answers[LOGOUT] = says({"code": "2000"})
    server.seen.clear()
    workers = [logouts(make_worker()) for _ in range(4)]
    assert sorted(at_once([worker.report_pending for worker in workers])) == [0, 0, 0, 1]
    (report,) = server.seen
    assert (report.path, report.body) == (
        LOGOUT,
        b'{"client_id": "20221017000000001", "access_token": "canary-access-token-1f6a"}',
    )
    assert is_store_empty(make_worker())


@pytest.mark.parametrize("how", ["told", "8205", "8206"])
def test_no_pending_logout_is_left(make_worker: AppMaker, server: ScriptedServer, how: str) -> None:
    """A successful logout leaves none, and neither do tokens that the server calls invalid."""
    app = make_worker()
    client = app.test_client()
    if how != "told":
        server.answers[LOGOUT] = fails(how)
    sign_in(client)
    assert sign_out(client) is (how == "told")
    assert is_store_empty(app)


def test_a_logout_in_progress_is_not_reported_twice(
    make_worker: AppMaker, server: ScriptedServer
) -> None:
    arrived, go_on = threading.Event(), threading.Event()

    def waits(handler: Handler) -> None:
        arrived.set()
        go_on.wait(60)
        says({"code": "2000"})(handler)

    server.answers[LOGOUT] = waits
    client = make_worker(timeout=60).test_client()
    sign_in(client)
    leaving = Background(lambda: sign_out(client))
    assert arrived.wait(60)
    assert logouts(make_worker()).report_pending() == 0
    go_on.set()
    leaving.result()
    assert server.paths.count(LOGOUT) == 1
    assert is_store_empty(make_worker())


def test_an_expired_access_token_is_refreshed_first_and_a_rotated_refresh_token_kept(
    make_worker: AppMaker, server: ScriptedServer
) -> None:
    data = {"access_token": "first", "expires_in": 1, "refresh_token": "canary-refresh-1"}
    server.answers[GET_TOKEN] = says(TOKEN | {"data": data})
    server.answers[REFRESH_TOKEN] = says(
        {"code": "2000", "data": data | {"access_token": "2nd", "refresh_token": "canary-rotated"}}
    )
    server.answers[LOGOUT] = fails("8500")
    client = make_worker().test_client()
    sign_in(client)
    assert not sign_out(client)
    refreshed = [seen.json for seen in server.seen if seen.path == REFRESH_TOKEN]
    assert refreshed == [{"client_id": "20221017000000001", "refresh_token": "canary-refresh-1"}]
    server.seen.clear()
    server.answers[LOGOUT] = says({"code": "2000"})
    assert logouts(make_worker()).report_pending() == 1
    assert [(seen.path, seen.body) for seen in server.seen] == [
        (
            REFRESH_TOKEN,
            b'{"client_id": "20221017000000001", "refresh_token": "canary-rotated"}',
        ),
        (LOGOUT, b'{"client_id": "20221017000000001", "access_token": "2nd"}'),
    ]


@pytest.mark.parametrize(
    ("refresh_token", "age", "is_dropped"),
    [(None, 1, True), ("canary-refresh", 86_000, False), ("canary-refresh", 86_401, True)],
)
def test_a_pending_logout_with_expired_tokens_is_dropped_and_logged(
    make_worker: AppMaker,
    server: ScriptedServer,
    caplog: pytest.LogCaptureFixture,
    refresh_token: str | None,
    age: int,
    is_dropped: bool,
) -> None:
    app = make_worker()
    tokens = Tokens("canary-access", refresh_token, time.time() - age - 60, 60)
    logout = logouts(app).record("name", "u-1", tokens)
    rewrite(app, logout.key, retry_at=0)
    caplog.set_level(logging.DEBUG, "flask_devkit_sso")
    assert logouts(app).report_pending() == 1
    assert server.paths == ([] if is_dropped else [REFRESH_TOKEN, LOGOUT])
    records = [(record.levelname, record.getMessage()) for record in caplog.records]
    if is_dropped:
        assert records == [("WARNING", "logout of uid 'u-1': given up, not reported to the server")]
    assert "canary" not in caplog.text
    assert is_store_empty(app)


@pytest.mark.parametrize(
    "change", [{"retry_at": "soon"}, {"retry_at": None}, {"uid": 5}, {"tokens": []}]
)
def test_an_invalid_record_does_not_block_the_others(
    make_worker: AppMaker, server: ScriptedServer, change: dict[str, Any]
) -> None:
    app = make_worker()
    for name, odd in (("one", change), ("two", {})):
        logout = logouts(app).record(name, "u-1", Tokens("canary-access", None, time.time(), 3600))
        rewrite(app, logout.key, **({"retry_at": 0} | odd))
    assert logouts(app).report_pending() == 1
    assert server.paths == [LOGOUT]


def test_an_unreachable_server_is_called_once_per_round(
    make_worker: AppMaker, server: ScriptedServer
) -> None:
    app = make_worker()
    server.answers[LOGOUT] = closes
    for _ in range(2):
        client = app.test_client()
        sign_in(client)
        assert not sign_out(client)
    server.seen.clear()
    assert logouts(app).report_pending() == 0
    assert server.paths == [LOGOUT]


def test_a_request_starts_the_reports_and_does_not_wait(
    make_worker: AppMaker, server: ScriptedServer
) -> None:
    client = make_worker().test_client()
    server.answers[LOGOUT] = fails("8500")
    sign_in(client)
    assert not sign_out(client)
    server.seen.clear()

    pages_are_there = threading.Event()

    def after_the_pages(handler: Handler) -> None:
        assert pages_are_there.wait(60)
        says({"code": "2000"})(handler)

    server.answers[LOGOUT] = after_the_pages
    worker = make_worker(timeout=60)
    advance(30.5)
    stranger = worker.test_client()
    for _ in range(5):
        assert stranger.get("/").text == "home"
    pages_are_there.set()
    wait_until(lambda: is_store_empty(worker))
    assert server.paths == [LOGOUT]
