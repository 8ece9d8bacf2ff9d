"""Claims: one worker does the work, until it is done or killed, whatever the clocks say."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from flask import Flask

from flask_devkit_sso import DevKitSSO, ServerUnavailable
from flask_devkit_sso.protocol.contract import Tokens
from flask_devkit_sso.store.base import SKEW, Store
from flask_devkit_sso.store.claim import Claim
from flask_devkit_sso.store.open import open_store

from .. import clock
from ..clock import advance
from ..conftest import AppMaker, carry_cookies, sign_in, wait_until
from ..redis_server import Proxy, RedisServer
from ..scripted import (
    ADA,
    GET_TOKEN,
    GET_USER_INFO,
    REFRESH_TOKEN,
    Handler,
    ScriptedServer,
    fails,
    says,
    tokens,
)
from ..threads import Background


@pytest.fixture
def store(any_store: str, tmp_path: Path) -> Store:
    return open_store(any_store, str(tmp_path))


def claim_on(store: Store) -> Claim:
    return Claim(store, "k", life=10, expires_in=20 + SKEW)


@pytest.mark.parametrize("ahead", [-SKEW, 0, SKEW])
def test_a_claim_lasts_as_long_on_a_host_with_another_clock(store: Store, ahead: float) -> None:
    clock.stop()
    mine, other = claim_on(store), claim_on(store)
    assert mine.take()
    clock.differ(ahead)
    for _ in range(4):
        assert not other.take()
        advance(3.3)
    assert other.take()
    clock.differ(0)
    assert mine.seconds_left() < 0
    mine.release()
    assert not claim_on(store).take(), "its former holder released it"
    other.release()
    assert claim_on(store).take()


def test_a_renewed_claim_is_not_taken_over(store: Store) -> None:
    mine = Claim(store, "k", life=0.4, expires_in=100)
    other = Claim(store, "k", life=10, expires_in=100)
    assert mine.take()
    clock.stop()
    with mine.renewed():
        for _ in range(5):
            before = store.read("k")
            wait_until(lambda before=before: store.read("k") != before)  # type: ignore[misc]
            assert not other.take()
            advance(9)
    mine.release()
    assert other.take()


def test_a_failure_in_the_background_keeps_nobody_from_asking(store: Store) -> None:
    """The server may be healthy: calls that people wait for come before those in the background."""
    mine, other = claim_on(store), claim_on(store)
    assert mine.take(background=True)
    mine.fail(background=True)
    with pytest.raises(ServerUnavailable):
        other.take(background=True)
    assert other.take()
    other.fail()
    with pytest.raises(ServerUnavailable):
        mine.take()


def worker_pair(make_app: AppMaker, **settings: object) -> tuple[Flask, Flask]:
    """Return two workers on one store, each with the page /token."""
    apps = []
    for _ in range(2):
        sso = DevKitSSO()
        app = make_app(sso, **settings)
        app.add_url_rule("/token", view_func=sso.access_token, endpoint="token")
        apps.append(app)
    return apps[0], apps[1]


def test_a_person_does_not_wait_long_for_a_killed_worker(
    make_app: AppMaker, server: ScriptedServer, any_store: str
) -> None:
    """The claim of the killed worker is left in the store."""
    app = make_app(timeout=60, store_url=any_store)
    client = app.test_client()
    sign_in(client)
    state = app.extensions["devkit_sso"]
    store, installation = state.service.store, state.settings.installation
    found: list[str] = []

    def look(handler: Handler) -> None:
        found.extend(key for key in store.below(installation) if key.endswith(":ask"))
        says(ADA)(handler)

    server.answers[GET_USER_INFO] = look
    clock.stop()
    advance(901)
    assert client.get("/private").status_code == 200
    (key,) = found
    advance(901)
    assert store.add(key, "the killed worker", expires=time.time() + 3600)
    server.seen.clear()
    waiting = Background(lambda: client.get("/private").status_code)

    def has_asked() -> bool:
        advance(10)
        return bool(server.seen)

    # The person's own deadline runs in real time.
    wait_until(has_asked)
    assert waiting.result() == 200


def test_a_late_response_does_not_replace_newer_tokens(
    make_app: AppMaker, server: ScriptedServer, any_store: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Another worker considers the claim to have expired, and refreshes the tokens too."""
    server.answers[GET_TOKEN] = tokens("first", 1, "r-1")
    stopped, other = worker_pair(make_app, timeout=60, store_url=any_store)
    clients = stopped.test_client(), other.test_client()
    sign_in(clients[0])
    carry_cookies(*clients)
    clock.stop()
    advance(2)

    def late(handler: Handler) -> None:
        server.answers[REFRESH_TOKEN] = tokens("newer", 3600, "r-3")
        clock.differ(600)
        assert clients[1].get("/token").text == "newer"
        tokens("older", 3600, "r-2")(handler)

    server.answers[REFRESH_TOKEN] = late
    assert [client.get("/token").text for client in clients] == ["newer", "newer"]
    assert server.paths.count(REFRESH_TOKEN) == 2
    assert "new tokens dropped" in caplog.text


def test_a_late_answer_about_a_user_does_not_replace_a_newer_one(
    make_app: AppMaker, server: ScriptedServer, any_store: str
) -> None:
    settings = {"store_url": any_store, "revalidate_after": 1000, "outage_grace": 7200}
    stopped, other = worker_pair(make_app, timeout=60, **settings)
    first, second, third = stopped.test_client(), other.test_client(), other.test_client()
    for client in (first, second, third):
        sign_in(client)
    clock.stop()
    advance(1001)

    def late(handler: Handler) -> None:
        server.answers[GET_USER_INFO] = says(ADA | {"data": ADA["data"] | {"role": "User"}})  # type: ignore[operator]
        clock.differ(600)
        assert second.get("/admin").status_code == 403
        says(ADA)(handler)

    server.answers[GET_USER_INFO] = late
    server.seen.clear()
    first.get("/admin")
    assert third.get("/admin").status_code == 403
    assert server.paths == [GET_USER_INFO] * 2


def test_a_late_refusal_does_not_end_a_session_with_newer_tokens(
    make_app: AppMaker, server: ScriptedServer, redis_server: RedisServer, proxy: Proxy
) -> None:
    """Another worker writes them at the last moment."""
    server.answers[GET_TOKEN] = tokens("first", 1)
    server.answers[REFRESH_TOKEN] = fails("8206")
    app, _ = worker_pair(make_app, store_url=proxy.url)
    client = app.test_client()
    sign_in(client)
    clock.stop()
    advance(2)
    newer = Tokens("newer", "r-2", time.time(), 3600)
    written: list[bytes] = []

    def write_before_the_removal(request: bytes) -> None:
        keys = re.findall(rb"devkit_sso:\S+:session:\S+", request)
        if keys and b"'DEL'" in request and not written:
            written.extend(keys)
            with redis_server.admin() as admin:
                record = json.loads(admin.hget(keys[0].decode(), "data") or "")
                record["tokens"] = app.extensions["devkit_sso"].service.keys.seal_tokens(newer)
                record["refresh_at"] = newer.refresh_at
                admin.hset(keys[0].decode(), "data", json.dumps(record))

    proxy.on_request = write_before_the_removal
    assert client.get("/token").text == "newer"
    assert written


def test_a_worker_that_was_stopped_before_its_refresh_does_not_send_it(
    make_app: AppMaker, server: ScriptedServer, redis_server: RedisServer, proxy: Proxy
) -> None:
    """It is stopped after it took the claim, and another worker takes the claim over."""
    server.answers[GET_TOKEN] = tokens("first", 1)
    app, _ = worker_pair(make_app, timeout=2, store_url=proxy.url)
    client = app.test_client()
    sign_in(client)
    clock.stop()
    advance(2)
    taken: list[bytes] = []

    def stop_after_the_claim(request: bytes) -> None:
        claims = re.findall(rb"devkit_sso:\S+:refresh:\S+", request)
        if claims and b"HSET" in request and not taken:
            taken.extend(claims[:1])
        elif len(taken) == 1 and b":session:" in request:
            taken.append(b"stopped")
            with redis_server.admin() as admin:
                admin.hset(taken[0].decode(), "data", "another worker")
            advance(9)

    proxy.on_request = stop_after_the_claim
    assert client.get("/token").status_code == 503
    assert taken[1:] == [b"stopped"]
    assert REFRESH_TOKEN not in server.paths
