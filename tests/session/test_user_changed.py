"""The signal user_changed: another name or role at the server reaches the application."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from flask import Flask, has_request_context
from flask.testing import FlaskClient

from flask_devkit_sso import DevKitSSO, user_changed
from flask_devkit_sso.users import User

from ..clock import advance
from ..conftest import AppMaker, sign_in
from ..scripted import ADA, GET_USER_INFO, ScriptedServer, says

Change = tuple[str, str | None, str | None, str | None]


class Receiver:
    """Records the changes that it receives, and fails as often as it should."""

    def __init__(self, failures: int = 0, error: type[BaseException] = RuntimeError) -> None:
        self.received: list[Change] = []
        self.failures = failures
        self.error = error

    def __call__(self, app: Flask, user: User, before: User) -> None:
        assert not has_request_context()
        assert app.config["DEVKIT_SSO_CLIENT_ID"]
        assert user.uid == before.uid == "u-1"
        assert user.account == "account of u-1"
        self.received.append((before.username, before.role, user.username, user.role))
        if self.failures:
            self.failures -= 1
            raise self.error


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    sso = DevKitSSO()
    sso.account_loader(lambda user: f"account of {user.uid}")
    return make_app(sso, revalidate_after=1)


def become(server: ScriptedServer, **changes: Any) -> None:
    """Change the user at the server, and let the last answer about them become too old."""
    server.answers[GET_USER_INFO] = says(ADA | {"data": ADA["data"] | changes})  # type: ignore[operator]
    advance(1.1)


def role(client: FlaskClient) -> str | None:
    found: str | None = client.get("/who").json["role"]
    return found


def test_each_change_is_sent_once(app: Flask, server: ScriptedServer) -> None:
    client, receive = app.test_client(), Receiver()
    with user_changed.connected_to(receive, app):
        sign_in(client)
        become(server)
        assert role(client) == "Admin"
        assert receive.received == []
        become(server, role="User")
        assert role(client) == "User"
        assert receive.received == [("ada", "Admin", "ada", "User")]
        become(server, role="x", username="eve")
        assert role(client) is None
        for _ in range(2):
            become(server, role="x", username="eve")
            role(client)
    assert receive.received[1:] == [("ada", "User", "eve", None)]


@pytest.mark.parametrize("error", [RuntimeError, SystemExit], ids=["fails", "is interrupted"])
def test_a_change_is_sent_again_until_the_receiver_succeeds(
    app: Flask,
    server: ScriptedServer,
    caplog: pytest.LogCaptureFixture,
    error: type[BaseException],
) -> None:
    client, receive, other = app.test_client(), Receiver(2, error), Receiver()
    with user_changed.connected_to(receive, app):
        sign_in(client)
        for count in (1, 2, 3, 3):
            become(server, role="User")
            assert role(client) == "User", "the role counts regardless"
            assert client.get("/admin").status_code == 403
            assert receive.received == [("ada", "Admin", "ada", "User")] * count
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.exc_info[0] for record in errors] == [error] * 2
    assert other.received == []


def test_a_failing_receiver_does_not_keep_the_change_from_others(
    app: Flask, server: ScriptedServer
) -> None:
    client, received = app.test_client(), []

    async def listen(sender: Flask, user: User, before: User) -> None:
        received.append(user.role)

    with user_changed.connected_to(Receiver(9), app), user_changed.connected_to(listen, app):
        sign_in(client)
        become(server, role="User")
        role(client)
    assert received == ["User"]


def test_a_receiver_has_an_application_context_of_its_own(
    app: Flask, server: ScriptedServer
) -> None:
    """What it opened there, such as a database connection, is closed when it returns."""
    client, events = app.test_client(), []
    app.teardown_appcontext(lambda error: events.append("closed"))

    def listen(sender: Flask, user: User, before: User) -> None:
        events.append("called")

    with user_changed.connected_to(listen, app):
        sign_in(client)
        become(server, role="User")
        role(client)
    called = events.index("called")
    assert events[called + 1 :][:1] == ["closed"]
