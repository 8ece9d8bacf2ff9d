"""The audit trail: what is recorded when, and what never is."""

from __future__ import annotations

import json
import logging
import logging.config
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.middleware.proxy_fix import ProxyFix

import flask_devkit_sso
from flask_devkit_sso import DevKitSSO
from flask_devkit_sso.audit import EVENTS, LIMIT, PERIOD
from flask_devkit_sso.errors import REASONS
from flask_devkit_sso.protocol.contract import Tokens

from . import audit
from .audit import FIELDS, Trail
from .clock import advance
from .conftest import CLIENT_SECRET, CODE, AppMaker, come_back, cookies, sign_in, start
from .login_failures import FAILURES
from .scripted import (
    ADA,
    GET_USER_INFO,
    LOGOUT,
    REFRESH_TOKEN,
    ScriptedServer,
    closes,
    fails,
    says,
)

SAME = {"Origin": "http://localhost"}
VALIDITY = "/validity/of-users"


@pytest.fixture
def trail() -> Iterator[Trail]:
    with audit.trail() as attached:
        yield attached


def person(**changes: Any) -> Callable[..., None]:
    return says(ADA | {"data": ADA["data"] | changes})  # type: ignore[operator]


def session_names(app: Flask) -> list[str]:
    return [s.name for s in app.extensions["devkit_sso"].session_service.sessions.list()]


def test_signing_in_and_out(
    app: Flask, server: ScriptedServer, trail: Trail, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "flask_devkit_sso")
    client = app.test_client()
    states = [start(client)["state"] for _ in range(2)]
    come_back(client, states[0])
    (name,) = session_names(app)
    come_back(client, states[1])
    (second,) = session_names(app)
    client.post("/sso/logout", headers=SAME)
    about = {"uid": "u-1", "remote_addr": "127.0.0.1"}
    events = trail.events
    for event in events:
        del event["time"]
    assert events == [
        {"event": "login", **about, "session": name},
        {"event": "session_ended", "reason": "replaced", **about, "session": name},
        {"event": "login", **about, "session": second},
        {"event": "logout", "reason": "server_told", **about, "session": second},
    ]
    # The ordinary log has them as well.
    assert [record.getMessage() for record in caplog.records] == [
        "login succeeded: uid 'u-1'",
        "session ended: uid 'u-1', replaced",
        "login succeeded: uid 'u-1'",
        "logout succeeded: uid 'u-1', confirmed by the server",
    ]
    trail.take()
    server.answers[LOGOUT] = closes
    sign_in(client)
    client.post("/sso/logout", headers=SAME)
    assert trail.take()[1:] == [("logout", "server_not_told", "u-1")]
    assert "not confirmed by the server" in caplog.text


@pytest.mark.parametrize("reason", FAILURES)
def test_a_failed_login(
    make_app: AppMaker,
    server: ScriptedServer,
    tmp_path: Path,
    trail: Trail,
    caplog: pytest.LogCaptureFixture,
    reason: str,
) -> None:
    status, set_up = FAILURES[reason]
    fail = set_up(make_app, server, tmp_path)
    trail.take()
    if reason == "cross_site":
        client = make_app(DevKitSSO()).test_client()
        response = client.post("/sso/callback", headers={"Origin": "https://evil.example"})
    else:
        response = fail({"Accept": "text/html"})
    assert response.status_code == status
    (event,) = trail.events
    assert (event["event"], event["reason"]) == ("login_failed", reason)
    assert event["reference"] in response.text
    assert event["reference"] in caplog.text
    # The application refuses the account that the server has named.
    assert event.get("uid") == ("u-1" if reason == "refused" else None)
    assert "session" not in event


def test_an_account_that_is_refused_is_named(
    make_app: AppMaker, server: ScriptedServer, trail: Trail
) -> None:
    app = make_app(
        validity_url=server.url + VALIDITY, validity_field="accounts", validity_key="uid"
    )
    client = app.test_client()
    server.answers[VALIDITY] = says({"code": "2000", "data": {"validation_list": [False]}})
    come_back(client, start(client)["state"])
    server.answers[VALIDITY] = closes
    come_back(client, start(client)["state"])
    assert trail.take() == [
        ("login_failed", "denied", "u-1"),
        ("login_failed", "server_unavailable", "u-1"),
    ]


def test_a_person_who_declines(make_app: AppMaker, trail: Trail) -> None:
    client = make_app(binding="confirm").test_client()
    start(client)
    question = client.get("/sso/callback?code=C").location
    assert trail.take() == [], "nobody has signed in yet"
    client.post(question, data={"answer": "no"}, headers=SAME)
    assert trail.take() == [("login_failed", "declined", "u-1")]


def test_other_failures_are_no_failed_logins(
    make_app: AppMaker, server: ScriptedServer, trail: Trail
) -> None:
    client = make_app(revalidate_after=1, outage_grace=1).test_client()
    sign_in(client)
    trail.take()
    server.answers[GET_USER_INFO] = closes
    advance(2)
    assert client.get("/private").status_code == 503
    assert client.get("/sso/me").status_code == 503
    assert client.post("/sso/logout").status_code == 403
    assert trail.take() == []


def test_ignored_responses(app: Flask, trail: Trail) -> None:
    client = app.test_client()
    state = start(client)["state"]
    come_back(client, state)
    (name,) = session_names(app)
    trail.take()
    come_back(client, state)
    come_back(client, "made-up", "EVIL")
    assert [(e["event"], e["reason"], e["uid"], e["session"]) for e in trail.events] == [
        ("response_ignored", "same_login", "u-1", name),
        ("response_ignored", "login_unknown", "u-1", name),
    ]


REFUSALS = [
    ("token_refused", {GET_USER_INFO: fails("8205")}),
    ("refresh_refused", {GET_USER_INFO: fails("8205"), REFRESH_TOKEN: fails("8206")}),
    ("another_user", {GET_USER_INFO: person(uid="u-2")}),
]


@pytest.mark.parametrize(("why", "answers"), REFUSALS)
def test_a_session_that_the_server_ends(
    make_app: AppMaker,
    server: ScriptedServer,
    trail: Trail,
    why: str,
    answers: dict[str, Any],
) -> None:
    app = make_app(revalidate_after=1)
    client = app.test_client()
    sign_in(client)
    (name,) = session_names(app)
    trail.take()
    server.answers |= answers
    advance(2)
    assert client.get("/private").status_code == 302
    events = trail.events
    assert [(e["event"], e["reason"], e["uid"], e["session"]) for e in events] == [
        ("revalidation_refused", why, "u-1", name),
        ("session_ended", why, "u-1", name),
    ]
    # A job did it, for whatever request comes next.
    assert not any("remote_addr" in event for event in events)


def test_a_session_that_cannot_be_refreshed(
    app: Flask, server: ScriptedServer, trail: Trail
) -> None:
    """Servers must return a refresh token, so only another version could write such a record."""
    client = app.test_client()
    sign_in(client)
    (name,) = session_names(app)
    sessions = app.extensions["devkit_sso"].service.sessions
    tokens = Tokens("t-1", None, time.time(), 60)
    sessions.change(sessions.find(name), sessions.with_tokens(tokens))
    trail.take()
    advance(301)
    assert client.get("/private").status_code == 302
    assert REFRESH_TOKEN not in server.paths
    (event,) = trail.events
    assert (event["event"], event["reason"]) == ("session_ended", "no_refresh_token")
    assert (event["uid"], event["session"]) == ("u-1", name)


def test_an_invalid_user_and_every_session_of_theirs(
    make_app: AppMaker, server: ScriptedServer, trail: Trail
) -> None:
    answer: dict[str, Any] = {"code": "2000", "data": {"validation_list": [True]}}
    server.answers[VALIDITY] = says(answer)
    app = make_app(
        revalidate_after=1,
        validity_url=server.url + VALIDITY,
        validity_field="accounts",
        validity_key="uid",
    )
    clients = [app.test_client() for _ in range(2)]
    for client in clients:
        sign_in(client)
    names = session_names(app)
    trail.take()
    server.answers[VALIDITY] = says(answer | {"data": {"validation_list": [False]}})
    advance(2)
    assert clients[0].get("/private").status_code == 302
    refused, *ended = trail.events
    assert (refused["event"], refused["reason"]) == ("revalidation_refused", "user_invalid")
    assert {e["session"] for e in ended} == set(names)
    assert {(e["event"], e["reason"], e["uid"]) for e in ended} == {
        ("session_ended", "user_invalid", "u-1")
    }


def test_an_outage_records_nothing(
    make_app: AppMaker, server: ScriptedServer, trail: Trail
) -> None:
    client = make_app(revalidate_after=1).test_client()
    sign_in(client)
    trail.take()
    for answer in (fails("8204"), fails("8500"), closes):
        server.answers[GET_USER_INFO] = answer
        advance(10)
        assert client.get("/private").status_code == 200
    assert trail.take() == []


def test_a_changed_role_is_recorded_once_for_each_session(
    make_app: AppMaker, server: ScriptedServer, trail: Trail
) -> None:
    app = make_app(revalidate_after=1)
    clients = [app.test_client() for _ in range(2)]
    for client in clients:
        sign_in(client)
    names = session_names(app)
    trail.take()
    for changes in ({"role": "User"}, {"username": "eve", "role": "User"}, {"role": "Guest"}):
        server.answers[GET_USER_INFO] = person(**changes)
        advance(2)
        for _ in range(2):
            for client in clients:
                client.get("/private")
    recorded = [(e["event"], e["reason"], e["uid"], e["session"]) for e in trail.events]
    assert sorted(recorded) == sorted(
        ("role_changed", reason, "u-1", name)
        for name in names
        for reason in ("admin_to_user", "user_to_none")
    )


def test_sessions_ended_by_an_operator(make_app: AppMaker, trail: Trail) -> None:
    sso = DevKitSSO()
    app = make_app(sso)
    for _ in range(2):
        sign_in(app.test_client())
    names = session_names(app)
    trail.take()
    with app.app_context():
        assert sso.end_sessions("u-1") == 2
        assert sso.end_sessions("u-1") == 0
    first, one, two, again = trail.events
    assert (first["event"], first["reason"], first["count"]) == ("sessions_ended", "application", 2)
    assert {one["session"], two["session"]} == set(names)
    assert (one["event"], one["reason"], one["uid"]) == ("session_ended", "ended", "u-1")
    assert again["count"] == 0


# Whoever is not signed in cannot fill the disk.


def fail(client: FlaskClient, times: int) -> None:
    for _ in range(times):
        assert client.get("/sso/callback?code=C&state=x").status_code == 400


def test_failures_of_unknown_people_are_limited_and_counted(app: Flask, trail: Trail) -> None:
    client = app.test_client()
    fail(client, LIMIT + 7)
    assert trail.take() == [("login_failed", "login_unknown", None)] * LIMIT
    # The limit applies neither to other reasons nor to failures whose account is known.
    client.get("/sso/callback?error=access_denied&state=" + start(client)["state"])
    sign_in(client)
    assert trail.take() == [("login_failed", "denied", None), ("login", None, "u-1")]
    advance(PERIOD)
    client.post("/sso/logout", headers=SAME)
    left_out, logout = trail.events
    assert left_out["event"] == "login_failures_left_out"
    assert (left_out["reason"], left_out["count"]) == ("login_unknown", 7)
    assert logout["event"] == "logout"
    trail.take()
    fail(client, LIMIT + 1)
    assert len(trail.records) == LIMIT


AT_EXIT = """
import logging, sys
from flask import Flask
from flask_devkit_sso import DevKitSSO
logging.getLogger("flask_devkit_sso.audit").addHandler(logging.StreamHandler(sys.stdout))
app = Flask("tests", instance_path=sys.argv[1])
app.config.update(
    SECRET_KEY="0d9f6b1ac54e2378-no-one-knows-this",
    DEVKIT_SSO_CLIENT_ID="x",
    DEVKIT_SSO_CLIENT_SECRET="x",
    DEVKIT_SSO_SERVER_URL="http://127.0.0.1:9",
)
DevKitSSO(app)
client = app.test_client()
for _ in range(int(sys.argv[2])):
    client.get("/sso/callback?code=C&state=x")
"""


def test_what_was_left_out_is_counted_at_the_end_of_the_process(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", AT_EXIT, str(tmp_path), str(LIMIT + 3)],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    *_, last = lines = run.stdout.splitlines()
    assert len(lines) == LIMIT + 1
    assert json.loads(last)["event"] == "login_failures_left_out"
    assert json.loads(last)["count"] == 3


# The lines


def test_the_client_address_is_that_of_the_request_and_harmless(app: Flask, trail: Trail) -> None:
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]
    client = app.test_client()
    addresses = ["203.0.113.7", "a\u2028b", "\x7f\x1b[31m", "x" * 500, "2001:db8::1"]
    for address in addresses:
        client.get("/sso/callback?code=C&state=x", headers={"X-Forwarded-For": address})
    found = [event.get("remote_addr") for event in trail.events]
    assert (found[0], found[4]) == ("203.0.113.7", "2001:db8::1")
    assert found[1:3] == [None, None]
    assert found[3] == "x" * 64


def test_no_line_contains_a_secret_or_anything_else_from_a_request(
    app: Flask, server: ScriptedServer, trail: Trail
) -> None:
    server.answers[GET_USER_INFO] = person(uid="账号-1", username="canary-name")
    client = app.test_client()
    agent = {"User-Agent": "canary-agent"}
    state = start(client, "/canary-page")["state"]
    come_back(client, state, headers=agent)
    secrets = [CODE, CLIENT_SECRET, state, "canary", *(cookie.value for cookie in cookies(client))]
    secrets += [cookie.value.split(".")[0] for cookie in cookies(client)]
    client.get("/sso/callback?code=canary-code&state=canary-state", headers=agent)
    client.post("/sso/logout", headers=SAME | agent)
    client.get("/sso/callback?code=canary-code&state=canary-state", headers=agent)
    assert len(trail.events) == 4
    for line in trail.lines:
        assert not any(secret in line for secret in secrets)
    # Nor does a session's name sign anybody in.
    name = trail.events[0]["session"]
    other = app.test_client()
    other.set_cookie(app.extensions["devkit_sso"].session_cookie, name)
    assert other.get("/who").json["uid"] is None


def test_no_other_logger_receives_a_line(app: Flask, trail: Trail) -> None:
    """Not even after the application has configured the package's ordinary log."""
    others = [Trail(), Trail()]
    loggers = [logging.getLogger("flask_devkit_sso"), logging.getLogger()]
    trail_logger = logging.getLogger("flask_devkit_sso.audit")
    level = loggers[0].level
    try:
        config = {"level": "INFO"}
        logging.config.dictConfig(
            {
                "version": 1,
                "incremental": False,
                "disable_existing_loggers": False,
                "loggers": {"flask_devkit_sso": config},
            }
        )
        # dictConfig has removed it, as the handlers of every child of a logger that it names.
        trail_logger.addHandler(trail)
        for logger, other in zip(loggers, others, strict=True):
            logger.addHandler(other)
        sign_in(app.test_client())
    finally:
        for logger, other in zip(loggers, others, strict=True):
            logger.removeHandler(other)
        loggers[0].setLevel(level)
        trail_logger.setLevel(logging.INFO)
    assert trail.take() == [("login", None, "u-1")]
    for other in others:
        assert [record.name for record in other.records] == ["flask_devkit_sso"]


def test_it_needs_no_level() -> None:
    """Neither the root logger's level, WARNING, nor another of the package's log silences it."""
    logger = logging.getLogger("flask_devkit_sso.audit")
    parent = logging.getLogger("flask_devkit_sso")
    level = parent.level
    parent.setLevel(logging.CRITICAL)
    try:
        assert logger.isEnabledFor(logging.INFO)
    finally:
        parent.setLevel(level)


@pytest.mark.checkout
def test_the_documented_events_are_those_in_the_code() -> None:
    text = (Path(flask_devkit_sso.__file__).parent.parent / "docs/audit.md").read_text("utf-8")
    documented = {}
    for event, reasons in re.findall(r"^\| `(\w+)` \| .*? \| (.*?) \|$", text, re.MULTILINE):
        found = re.findall(r"`(\w+)`", reasons)
        if "failure reason" in reasons:
            found = [*REASONS, *found]
        documented[event] = sorted(found)
    fields = documented.keys() & set(FIELDS)
    assert fields == set(FIELDS)
    events = {event: reasons for event, reasons in documented.items() if event not in fields}
    assert events == {event: sorted(reasons) for event, reasons in EVENTS.items()}
