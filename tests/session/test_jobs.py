"""Many people whose users have to be revalidated at the same time."""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import Any

import pytest
from flask import Flask, request
from flask.testing import FlaskClient

from flask_devkit_sso import DevKitSSO, token_refreshed
from flask_devkit_sso.session.jobs import MAX_JOBS

from .. import clock
from ..clock import advance
from ..conftest import AppMaker, reason, sign_in, wait_until
from ..scripted import (
    GET_TOKEN,
    GET_USER_INFO,
    REFRESH_TOKEN,
    Handler,
    ScriptedServer,
    distinguish_people,
    invalid_chunk,
    same_person,
    tokens,
)
from ..threads import Background, at_once

PAST_GRACE = 901
MANY = MAX_JOBS + 8


@pytest.fixture
def begun() -> list[str]:
    """The paths of the requests that the application has begun to serve."""
    return []


@pytest.fixture
def app(make_app: AppMaker, server: ScriptedServer, begun: list[str]) -> Flask:
    """An application whose server distinguishes people, and whose calls have a minute."""
    distinguish_people(server)
    sso = DevKitSSO()
    app = make_app(sso, timeout=60, store_url="memory://")
    app.testing = True
    app.add_url_rule("/token", view_func=sso.access_token, endpoint="token")
    app.before_request(lambda: begun.append(request.path))
    # A busy machine must not use up any deadline.
    clock.stop()
    return app


def signed_in(app: Flask, number: int) -> list[FlaskClient]:
    clients = [app.test_client() for _ in range(number)]
    for client in clients:
        sign_in(client)
    return clients


def statuses(clients: list[FlaskClient], path: str = "/private") -> list[int]:
    """Let everybody open a page at the same moment."""

    def status(client: FlaskClient) -> int:
        return client.get(path).status_code

    return at_once([partial(status, client) for client in clients])


def test_nobody_is_refused_because_many_come_back_at_once(
    app: Flask, server: ScriptedServer, begun: list[str]
) -> None:
    clients = signed_in(app, MANY)
    advance(PAST_GRACE)
    all_are_there = threading.Event()

    def slow(handler: Handler) -> None:
        assert all_are_there.wait(60)
        same_person(handler)

    server.answers[GET_USER_INFO] = slow
    server.seen.clear()
    begun.clear()
    opening = Background(lambda: statuses(clients))
    wait_until(lambda: len(begun) == MANY and server.seen)
    all_are_there.set()
    assert opening.result() == [200] * MANY
    assert server.paths.count(GET_USER_INFO) == MANY


def test_nobody_who_needs_a_token_is_refused_because_many_do(
    app: Flask, server: ScriptedServer, begun: list[str]
) -> None:
    distinguish_people(server, expires_in=100)
    clients = signed_in(app, MANY)
    advance(101)
    all_are_there = threading.Event()

    def slow(handler: Handler) -> None:
        assert all_are_there.wait(60)
        tokens("next", 3600)(handler)

    server.answers[REFRESH_TOKEN] = slow
    begun.clear()
    opening = Background(lambda: statuses(clients, "/token"))
    wait_until(lambda: len(begun) == MANY and REFRESH_TOKEN in server.paths)
    all_are_there.set()
    assert opening.result() == [200] * MANY
    assert server.paths.count(REFRESH_TOKEN) == MANY


def test_background_work_displaces_nobody_who_is_waiting(
    app: Flask, server: ScriptedServer
) -> None:
    """Ten busy users are revalidated in the background when four others come back."""
    returning = signed_in(app, 4)
    advance(PAST_GRACE - 250)
    busy = signed_in(app, 10)
    advance(250)
    four_are_back = threading.Event()

    def slow_for_busy_users(handler: Handler) -> None:
        if int(handler.seen.json["access_token"].rpartition("-")[2]) > len(returning):
            assert four_are_back.wait(60)
        same_person(handler)

    server.answers[GET_USER_INFO] = slow_for_busy_users
    server.seen.clear()
    assert statuses(busy) == [200] * 10
    wait_until(lambda: server.seen)
    assert statuses(returning) == [200] * 4
    four_are_back.set()


def test_a_check_that_nobody_waits_for_any_more_is_dropped(
    app: Flask, server: ScriptedServer
) -> None:
    clients = signed_in(app, MAX_JOBS + 5)
    advance(301)
    everybody_has_a_page = threading.Event()

    def slow(handler: Handler) -> None:
        assert everybody_has_a_page.wait(60)
        same_person(handler)

    server.answers[GET_USER_INFO] = slow
    server.seen.clear()
    assert statuses(clients) == [200] * len(clients)
    everybody_has_a_page.set()
    # The latest job: all others have started before it ends.
    assert statuses(clients[-1:]) == [200]
    assert len(server.paths) <= MAX_JOBS + 1


@pytest.mark.parametrize("fault", ["server", "receiver"])
def test_an_unexpected_error_counts_as_no_verdict(
    make_app: AppMaker, server: ScriptedServer, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Within the grace period people continue on what is known, and after it they get a 503."""
    server.answers[GET_TOKEN] = tokens("first", 1)
    server.answers[REFRESH_TOKEN] = tokens("next", 1)
    app = make_app(revalidate_after=1, outage_grace=60)
    client = app.test_client()
    clock.stop()
    sign_in(client)

    def receiver(sender: Flask, user: Any) -> None:
        if fault == "receiver":
            raise ZeroDivisionError

    if fault == "server":
        server.answers[GET_USER_INFO] = invalid_chunk
    with token_refreshed.connected_to(receiver, app):
        for _ in range(3):
            advance(6)
            assert client.get("/private").text == "private ada"
        advance(60)
        response = client.get("/private")
        assert (response.status_code, reason(response)) == (503, "server_unavailable")
        assert response.headers["Retry-After"] == "5"
    # A job of an earlier test may still be running, and log that its server has gone.
    text = "invalid chunk" if fault == "server" else "ZeroDivisionError"
    logged = [r for r in caplog.records if text in logging.Formatter().format(r)]
    assert len(logged) == 4
    assert all("kept up to date" in r.getMessage() for r in logged)
