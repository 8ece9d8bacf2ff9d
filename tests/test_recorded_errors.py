"""Error trackers record the local variables of every frame: no secret is in them.

A frame of Flask contains the whole request, so its cookies do not count there.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.exceptions import HTTPException

from flask_devkit_sso import (
    DevKitSSO,
    LoginFailed,
    LoginRefused,
    ServerError,
    ServerUnavailable,
    StoreUnavailable,
    login_succeeded,
    token_refreshed,
)

from .clock import advance
from .conftest import CLIENT_SECRET, CODE, AppMaker, cookies, wait_until
from .recorded import recorded
from .redis_server import RedisServer
from .scripted import (
    GET_TOKEN,
    GET_USER_INFO,
    REFRESH_TOKEN,
    Answer,
    Handler,
    ScriptedServer,
    closes,
    fails,
    says,
)

ORIGIN = {"Origin": "http://localhost"}


@dataclass
class Scene:
    """An application, a browser, and every exception that an error handler has received."""

    app: Flask
    sso: DevKitSSO
    client: FlaskClient
    server: ScriptedServer
    database: Path
    in_fragment: bool
    errors: list[BaseException] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)

    def log_in(self, **changes: Any) -> int:
        """Start and complete a login, with changes to its response."""
        location = self.client.get("/sso/authorize").location
        (state,) = parse_qs(urlsplit(location).query)["state"]
        self.secrets.add(state)
        sent = {"code": CODE, "state": state} | changes
        if self.in_fragment:
            lists = {name: [value] for name, value in sent.items()}
            response = self.client.post("/sso/callback", json=lists, headers=ORIGIN)
        else:
            response = self.client.get("/sso/callback", query_string=sent)
        for cookie in cookies(self.client):
            # A compressed value begins with a dot.
            self.secrets |= {cookie.value, cookie.value.strip(".").split(".")[0]}
        for seen in self.server.seen:
            self.secrets.add(seen.json.get("code_verifier", CODE))
        # The values of a deleted cookie, and of the mark that this browser signs in here.
        self.secrets -= {"", "1"}
        return response.status_code

    def lock_the_store(self) -> None:
        """Keep everybody from writing to the store."""
        self.blocker = sqlite3.connect(self.database, isolation_level=None)
        self.blocker.execute("BEGIN EXCLUSIVE")


@pytest.fixture(params=["query", "fragment"])
def scene(
    request: pytest.FixtureRequest, make_app: AppMaker, server: ScriptedServer, tmp_path: Path
) -> Scene:
    sso, in_fragment = DevKitSSO(), request.param == "fragment"
    uri = "http://localhost/#/login" if in_fragment else "http://localhost/sso/callback"
    app = make_app(
        sso,
        pkce=True,
        redirect_uri=uri,
        idle_timeout=9000,
        # Longer than an access token lasts.
        revalidate_after=7000,
        outage_grace=7000,
    )
    app.add_url_rule("/token", view_func=sso.access_token, endpoint="token")
    client = app.test_client()
    made = Scene(app, sso, client, server, tmp_path / "devkit_sso.db", in_fragment)
    made.secrets |= {CLIENT_SECRET, CODE, "canary-access-token-1f6a", "canary-refresh-token-9b2c"}

    # A handler for all errors does not receive the failures of our own routes.
    @app.errorhandler(LoginFailed)
    @app.errorhandler(Exception)
    def collect(error: Exception) -> Any:
        made.errors.append(error)
        return error.get_response() if isinstance(error, HTTPException) else ("failed", 500)

    return made


def bad_chunk(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n")


def answers(path: str, answer: Answer) -> Callable[[Scene], None]:
    def run(scene: Scene) -> None:
        scene.server.answers[path] = answer
        assert scene.log_in() in (502, 503)

    return run


def refused_by_the_application(scene: Scene) -> None:
    @scene.sso.on_login
    def refuse(user: object) -> None:
        raise LoginRefused("no")

    assert scene.log_in() == 403


def failing_on_login(scene: Scene) -> None:
    @scene.sso.on_login
    def fail(user: object) -> None:
        raise KeyError("the application's own mistake")

    assert scene.log_in() == 500


def failing_receiver(scene: Scene) -> None:
    def fail(sender: Flask, user: object) -> None:
        raise KeyError("the application's own mistake")

    with login_succeeded.connected_to(fail, scene.app):
        assert scene.log_in() == 500


def store_that_fails_at_the_end(scene: Scene) -> None:
    scene.sso.on_login(lambda user: scene.lock_the_store())
    assert scene.log_in() == 503


def store_that_fails_at_the_start(scene: Scene) -> None:
    assert scene.client.get("/sso/authorize").status_code == 303
    scene.lock_the_store()
    assert scene.log_in() == 503


def unreadable_store(scene: Scene) -> None:
    assert scene.log_in() in (200, 303)
    for file in scene.database.parent.glob("devkit_sso.db*"):
        file.write_bytes(b"this is not a database" * 1000)
    assert scene.client.get("/private").status_code == 503


def another_state(scene: Scene) -> None:
    assert scene.log_in(state="canary-state.x.y") == 400
    scene.secrets.add("canary-state")


def invalid_code(scene: Scene) -> None:
    assert scene.log_in(code=f"{CODE}\x00") == 400


def failing_refresh(answer: Answer) -> Callable[[Scene], None]:
    def run(scene: Scene) -> None:
        assert scene.log_in() in (200, 303)
        scene.server.answers[REFRESH_TOKEN] = answer
        advance(3601)
        assert scene.client.get("/token").status_code in (502, 503)
        # They reach the application as they are.
        assert isinstance(scene.errors[-1], ServerError | ServerUnavailable)

    return run


def outage(scene: Scene) -> None:
    assert scene.log_in() in (200, 303)
    scene.server.answers[GET_USER_INFO] = closes
    advance(8000)
    assert scene.client.get("/private").status_code == 503


FAILURES = {
    "exchange refused": answers(GET_TOKEN, fails("8204")),
    "exchange broken": answers(GET_TOKEN, closes),
    "exchange not HTTP": answers(GET_TOKEN, bad_chunk),
    "exchange not an envelope": answers(GET_TOKEN, says(b"{}")),
    "user refused": answers(GET_USER_INFO, fails("8205")),
    "user broken": answers(GET_USER_INFO, bad_chunk),
    "refresh refused": failing_refresh(fails("8500")),
    "refresh broken": failing_refresh(closes),
    "another state": another_state,
    "invalid code": invalid_code,
    "outage": outage,
    "refused by the application": refused_by_the_application,
    "failing on_login": failing_on_login,
    "failing receiver": failing_receiver,
    "store fails at the end": store_that_fails_at_the_end,
    "store fails at the start": store_that_fails_at_the_start,
    "unreadable store": unreadable_store,
}


def check(errors: list[BaseException], secrets: set[str]) -> None:
    cookies = {secret for secret in secrets if "." in secret}
    for error in errors:
        for is_foreign, text in recorded(error):
            for secret in secrets - cookies if is_foreign else secrets:
                assert secret not in text, (secret, text)
                assert quote(secret) not in text, (secret, text)


@pytest.mark.parametrize("failure", FAILURES)
def test_an_exception_leads_to_no_secret(scene: Scene, failure: str) -> None:
    FAILURES[failure](scene)
    assert scene.errors
    assert len(scene.secrets) >= 5
    check(scene.errors, scene.secrets)


def test_an_exception_in_the_log_leads_to_no_secret(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    """A background job fails in a receiver of the application."""

    def fail(sender: Flask, user: object) -> None:
        raise KeyError("the application's own mistake")

    caplog.set_level(logging.DEBUG)
    assert scene.log_in() in (200, 303)
    with token_refreshed.connected_to(fail, scene.app):
        advance(3601)
        scene.client.get("/private")
        wait_until(lambda: any(record.exc_info for record in caplog.records))
    logged = [record.exc_info[1] for record in caplog.records if record.exc_info]
    check([error for error in logged if error], scene.secrets | {"canary-second-7d"})


@pytest.mark.parametrize("raw", ["RAW_URI", "REQUEST_URI"])
def test_the_query_is_forgotten(scene: Scene, raw: str) -> None:
    """What the application, or the WSGI server, logs after the response."""
    seen: list[str] = []

    @scene.app.after_request
    def log(response: Any) -> Any:
        from flask import request

        names = ("url", "full_path", "query_string", "args", "values", "data")
        seen.append(" ".join(repr(getattr(request, name)) for name in names))
        seen.append(repr({k: v for k, v in request.environ.items() if k != "HTTP_COOKIE"}))
        return response

    @scene.app.before_request
    def read() -> None:
        from flask import request

        request.environ[raw] = f"{request.path}?{request.query_string.decode()}"
        repr((request.url, request.full_path, request.args, request.values))

    assert scene.log_in() in (200, 303)
    del seen[:2]
    if scene.in_fragment:
        # A standard server puts the response before the fragment of the redirect URI.
        visitor = scene.app.test_client()
        visitor.get("/sso/authorize")
        del seen[2:]
        headers = {"Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "cross-site"}
        visitor.get("/", query_string={"code": CODE}, headers=headers)
    assert len(seen) == (4 if scene.in_fragment else 2)
    assert "/sso/callback" in seen[0]
    for secret in scene.secrets:
        assert secret not in "".join(seen)


def test_a_failing_store_does_not_show_its_password(
    make_app: AppMaker, redis_server: RedisServer
) -> None:
    sso = DevKitSSO()
    app = make_app(
        sso, store_url=redis_server.url.replace(redis_server.password, "canary-password")
    )
    app.add_url_rule("/end", view_func=lambda: str(sso.end_sessions("u-1")), endpoint="end")
    errors: list[BaseException] = []

    @app.errorhandler(StoreUnavailable)
    def collect(error: StoreUnavailable) -> str:
        errors.append(error)
        return "unavailable"

    app.test_client().get("/end")
    assert "refuses the user or password" in str(errors[0])
    check(errors, {"canary-password"})
