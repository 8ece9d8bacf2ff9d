"""login_as signs a test client in wherever it calls the application."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, request, url_for

from flask_devkit_sso import DevKitSSO, current_user, login_required
from flask_devkit_sso.testing import login_as, logout
from flask_devkit_sso.users import User

from .conftest import SECRET_KEY

TRUSTED = {"TRUSTED_HOSTS": ["app.example.com", ".example.org"]}
MATCHING = {"host_matching": True, "static_host": "app.example.com"}


def make(options: dict[str, Any], settings: dict[str, Any]) -> tuple[Flask, list[str]]:
    """Return an application, and the hosts that its on_login function has seen."""
    app, sso, seen = Flask("tests", **options), DevKitSSO(), list[str]()
    app.testing = True
    app.config.update(
        {
            "SECRET_KEY": SECRET_KEY,
            "DEVKIT_SSO_STORE_URL": "memory://",
            "DEVKIT_SSO_CLIENT_ID": "1",
            "DEVKIT_SSO_CLIENT_SECRET": "s",
            "DEVKIT_SSO_SERVER_URL": "https://auth.invalid",
        }
        | settings
    )
    sso.init_app(app)
    where = {"host": "app.example.com"} if app.url_map.host_matching else {}

    @app.get("/", **where)
    @app.get("/", subdomain="<tenant>", endpoint="tenant", **where)
    @login_required
    def home(tenant: str = "") -> str:
        return f"{current_user.username}{tenant}"

    @sso.on_login
    def note(user: User) -> None:
        assert url_for("home").endswith("/")
        seen.append(request.host)

    return app, seen


@pytest.mark.parametrize(
    ("options", "settings", "call"),
    [
        ({}, {}, {}),
        ({}, {"SERVER_NAME": "app.example.com:5000"}, {}),
        ({}, {"SERVER_NAME": "[::1]:5000"}, {}),
        ({}, TRUSTED, {"base_url": "https://app.example.com/"}),
        ({}, TRUSTED, {"base_url": "https://a.example.org/"}),
        ({}, TRUSTED | {"SERVER_NAME": "app.example.com"}, {}),
        (
            {},
            TRUSTED | {"DEVKIT_SSO_REDIRECT_URI": "https://app.example.com/sso/callback"},
            {"base_url": "https://app.example.com/"},
        ),
        (
            {},
            {"DEVKIT_SSO_REDIRECT_URI": "https://app.example.com/sso/callback"},
            {"base_url": "https://app.example.com/"},
        ),
        ({"subdomain_matching": True}, {"SERVER_NAME": "example.com"}, {}),
        ({"subdomain_matching": True}, {"SERVER_NAME": "example.com"}, {"subdomain": "acme"}),
        (MATCHING, {}, {"base_url": "http://app.example.com/"}),
    ],
    ids=str,
)
def test_it_signs_in_at_every_host_of_the_application(
    options: dict[str, Any], settings: dict[str, Any], call: dict[str, Any]
) -> None:
    app, seen = make(options, settings)
    client = app.test_client()

    def get() -> tuple[int, str]:
        response = client.get("/", **call)
        return response.status_code, response.text

    assert get()[0] != 200
    cookie = login_as(client, "ada")
    assert cookie.value
    assert get() == (200, "ada" + call.get("subdomain", ""))
    assert len(seen) == 1
    login_as(client, "bob")
    assert get() == (200, "bob" + call.get("subdomain", ""))
    logout(client)
    assert get()[0] != 200
    assert not client._cookies


@pytest.mark.parametrize("when", ["before", "after"])
def test_no_weak_key_warning_under_testing(caplog: pytest.LogCaptureFixture, when: str) -> None:
    app, _ = make({}, {"SECRET_KEY": "test", "TESTING": when == "before"})
    app.testing = True
    client = app.test_client()
    login_as(client, "ada")
    assert client.get("/").text == "ada"
    assert caplog.records == []


@pytest.mark.parametrize(
    ("prepare", "level"),
    [
        (lambda app: None, logging.ERROR),
        (lambda app: setattr(app, "debug", True), logging.WARNING),
    ],
    ids=["production", "debug"],
)
def test_a_weak_key_is_logged_once_outside_tests(
    caplog: pytest.LogCaptureFixture, prepare: Callable[[Flask], None], level: int
) -> None:
    app, _ = make({}, {"SECRET_KEY": "test", "TESTING": False})
    app.add_url_rule("/open", view_func=lambda: "open")
    app.testing = False
    prepare(app)
    for _ in range(2):
        assert app.test_client().get("/open").text == "open"
    (record,) = caplog.records
    assert record.levelno == level
    assert "SECRET_KEY is weak" in record.message
