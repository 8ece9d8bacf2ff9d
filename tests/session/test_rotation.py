"""Hosts that are not up to date: with other SECRET_KEYs, or with another version of the package.

They share a store, and none of them may end or damage what another one wrote.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_devkit_sso import DevKitSSO, session_ended

from ..clock import advance
from ..conftest import (
    SECRET_KEY,
    AppMaker,
    carry_cookies,
    come_back,
    reason,
    sign_in,
    start,
    wait_until,
)
from ..scripted import (
    DONE,
    GET_TOKEN,
    GET_USER_INFO,
    LOGOUT,
    REFRESH_TOKEN,
    Handler,
    ScriptedServer,
    fails,
    says,
    tokens,
)
from ..threads import Background

# These tests examine the whole store.
pytestmark = pytest.mark.own_redis

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
NEW_KEY = "5f21c7-a-new-key-that-no-one-knows"

HostMaker = Callable[..., Flask]


@pytest.fixture
def make_host(make_app: AppMaker, any_store: str) -> HostMaker:
    """Make the application of another host, with keys of its own and the same store."""

    def make(*keys: str, **settings: Any) -> Flask:
        sso = DevKitSSO()
        app = make_app(sso, store_url=any_store, **settings)
        app.config.update(SECRET_KEY=keys[0], SECRET_KEY_FALLBACKS=list(keys[1:]))
        app.add_url_rule("/token", view_func=sso.access_token, endpoint="token")
        return app

    return make


@pytest.fixture
def old(make_host: HostMaker) -> Flask:
    """A host that does not know the new key yet."""
    return make_host(SECRET_KEY)


@pytest.fixture
def new(make_host: HostMaker) -> Flask:
    """A host on which the new key signs and encrypts already."""
    return make_host(NEW_KEY, SECRET_KEY)


@pytest.fixture
def encrypted_by_new(
    old: Flask, new: Flask, server: ScriptedServer
) -> tuple[FlaskClient, FlaskClient]:
    """A person at both hosts, whose tokens the new one has refreshed and encrypted."""
    at_old, at_new = old.test_client(), new.test_client()
    server.answers |= {GET_TOKEN: tokens("first", 60), REFRESH_TOKEN: tokens("second", 3600, "r2")}
    sign_in(at_old)
    carry_cookies(at_old, at_new)
    advance(61)
    assert at_new.get("/token").text == "second"
    server.seen.clear()
    return at_old, at_new


def report_pending(app: Flask) -> int:
    reported: int = app.extensions["devkit_sso"].service.logouts.report_pending()
    return reported


def records(app: Flask, kind: str) -> dict[str, Any]:
    """Return the records of a kind, such as session."""
    state = app.extensions["devkit_sso"]
    found = state.service.store.below(state.settings.installation)
    return {key: json.loads(row.data) for key, row in found.items() if f":{kind}:" in key}


def test_a_host_that_cannot_decrypt_the_tokens_ends_no_session(
    encrypted_by_new: tuple[FlaskClient, FlaskClient],
    old: Flask,
    server: ScriptedServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    at_old, at_new = encrypted_by_new
    ended: list[str] = []

    def listen(sender: Flask, uid: str, why: str) -> None:
        ended.append(why)

    with session_ended.connected_to(listen):
        advance(301)
        assert at_old.get("/private").text == "private ada", "the grace period has begun"
        assert at_old.get("/token").status_code == 503
        advance(601)
        refused = at_old.get("/private")
        assert (refused.status_code, reason(refused)) == (503, "server_unavailable")
        assert server.seen == [], "a host that cannot decrypt the tokens has nothing to send"
        assert at_new.get("/private").text == "private ada"
        assert at_old.get("/private").text == "private ada", "the other host has asked the server"
    assert ended == []
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert errors
    assert len(errors) <= 3, "once a minute"
    assert "add it to SECRET_KEY_FALLBACKS here" in errors[0].getMessage()


def test_a_logout_is_reported_by_a_host_that_can_decrypt_the_tokens(
    encrypted_by_new: tuple[FlaskClient, FlaskClient],
    old: Flask,
    new: Flask,
    server: ScriptedServer,
) -> None:
    at_old, at_new = encrypted_by_new
    headers = SAME_ORIGIN | {"Accept": "application/json"}
    answer = at_old.post("/sso/logout", headers=headers)
    assert answer.get_json()["server_told"] is False
    assert at_new.get("/private").status_code == 302
    assert report_pending(old) == 0
    assert server.seen == []
    assert report_pending(new) == 1
    assert [seen.json["access_token"] for seen in server.seen] == ["second"]
    assert not records(new, "logouts")


def test_a_refresh_during_a_logout_that_another_key_has_encrypted(
    old: Flask, new: Flask, server: ScriptedServer
) -> None:
    """The server has replaced the tokens that the logout was recorded with."""
    at_old, at_new = old.test_client(), new.test_client()
    server.answers[GET_TOKEN] = tokens("first", 60)
    sign_in(at_old)
    carry_cookies(at_old, at_new)
    advance(61)
    signing_out: list[Background[Any]] = []
    is_recorded = threading.Event()

    def refresh(handler: Handler) -> None:
        signing_out.append(Background(lambda: at_new.post("/sso/logout", headers=SAME_ORIGIN)))
        wait_until(lambda: records(new, "logouts") and not records(new, "session"))
        is_recorded.set()
        tokens("second", 3600, "r2")(handler)

    server.answers |= {REFRESH_TOKEN: refresh, LOGOUT: fails("8205")}
    at_old.get("/token")
    assert is_recorded.is_set()
    signing_out[0].result()
    server.answers |= {LOGOUT: says(DONE), REFRESH_TOKEN: fails("8206")}
    server.seen.clear()
    assert report_pending(new) == 1
    assert [(seen.path, seen.json["access_token"]) for seen in server.seen] == [(LOGOUT, "second")]


def test_a_login_result_that_another_key_has_encrypted(
    make_host: HostMaker, server: ScriptedServer
) -> None:
    old, new = (
        make_host(*keys, binding="confirm") for keys in ([SECRET_KEY], [NEW_KEY, SECRET_KEY])
    )
    at_old, at_new = old.test_client(), new.test_client()
    start(at_old, headers=SAME_ORIGIN)
    carry_cookies(at_old, at_new)
    question = at_new.get("/sso/callback?code=C").location
    answer = {"data": {"answer": "yes"}, "headers": SAME_ORIGIN}
    assert at_old.post(question, **answer).status_code == 400
    assert at_new.post(question, **answer).status_code == 200
    assert at_new.get("/private").text == "private ada"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([SECRET_KEY], [SECRET_KEY, NEW_KEY]),
        ([SECRET_KEY, NEW_KEY], [NEW_KEY, SECRET_KEY]),
        ([NEW_KEY, SECRET_KEY], [NEW_KEY]),
    ],
    ids=["add the new key", "swap", "remove the old key"],
)
def test_no_step_of_a_rotation_affects_anybody(
    make_host: HostMaker, server: ScriptedServer, before: list[str], after: list[str]
) -> None:
    """While a step is under way, some hosts have made it and others have not."""
    hosts = make_host(*before), make_host(*after)
    server.answers |= {GET_TOKEN: tokens("first", 60), REFRESH_TOKEN: tokens("next", 60)}
    for first, second in (hosts, hosts[::-1]):
        here, there = first.test_client(), second.test_client()
        state = start(here)["state"]
        carry_cookies(here, there)
        assert come_back(there, state).status_code == 303
        for client, other in ((there, here), (here, there)):
            carry_cookies(client, other)
            advance(301)
            assert other.get("/token").text == "next"
            assert other.get("/private").text == "private ada"
        server.seen.clear()
        headers = SAME_ORIGIN | {"Accept": "application/json"}
        assert here.post("/sso/logout", headers=headers).get_json()["server_told"] is True


def test_fields_of_a_newer_version_survive(make_host: HostMaker, server: ScriptedServer) -> None:
    """An older host reads the records of a newer one and writes them again."""
    host = make_host(SECRET_KEY)
    client = host.test_client()
    server.answers |= {GET_TOKEN: tokens("first", 60), REFRESH_TOKEN: tokens("second", 60)}
    sign_in(client)
    service = host.extensions["devkit_sso"].service
    keys = service.keys

    def opened(sealed: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(keys.unseal(sealed))
        return found

    ((key, record),) = records(host, "session").items()
    sealed = keys.seal(json.dumps(opened(record["tokens"]) | {"id_token": "x"}))
    assert service.store.update(key, json.dumps(record | {"device": "d", "tokens": sealed}))
    advance(301)
    renamed = {"uid": "u-1", "username": "ada-2", "role": "Admin"}
    server.answers[GET_USER_INFO] = says({"code": "2000", "data": renamed})
    assert client.get("/token").text == "second"
    assert client.get("/private").text == "private ada-2"
    (record,) = records(host, "session").values()
    assert (record["device"], record["username"]) == ("d", "ada-2")
    found = opened(record["tokens"])
    assert (found["id_token"], found["access_token"]) == ("x", "second")

    server.answers[LOGOUT] = fails("8500")
    client.post("/sso/logout", headers=SAME_ORIGIN)
    ((key, record),) = records(host, "logouts").items()
    sealed = keys.seal(json.dumps(opened(record["tokens"]) | {"id_token": "x"}))
    assert service.store.update(key, json.dumps(record | {"more": 1, "tokens": sealed}))
    advance(61)
    report_pending(host)
    (record,) = records(host, "logouts").values()
    assert (record["more"], opened(record["tokens"])["id_token"]) == (1, "x")


def test_a_login_cookie_of_a_newer_version(make_host: HostMaker, server: ScriptedServer) -> None:
    host = make_host(SECRET_KEY)
    client = host.test_client()
    state = start(client)["state"]
    (cookie,) = [found for found in client._cookies.values() if "_login_" in found.key]
    signer = host.extensions["devkit_sso"].service.keys.signer("login-cookie")
    signed = signer.read(cookie.value)
    client.set_cookie(cookie.key, signer.sign([*signed.value, "more"], at=signed.at))
    assert come_back(client, state).status_code == 303
