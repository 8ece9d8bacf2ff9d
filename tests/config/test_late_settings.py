"""Settings that the application assigns after ``init_app``."""

from __future__ import annotations

from typing import Any

import pytest

from flask_devkit_sso.testing import login_as

from ..clock import advance
from ..conftest import REDIRECT_URI, SECRET_KEY, AppMaker, reason, sign_in, start

LATE: list[dict[str, Any]] = [
    {"SECRET_KEY": SECRET_KEY},
    {"DEVKIT_SSO_CLIENT_ID": "late", "DEVKIT_SSO_CLIENT_SECRET": "late-secret"},
    {"DEVKIT_SSO_REDIRECT_URI": "http://localhost/sso/callback?late=1"},
]


@pytest.mark.parametrize("late", LATE, ids=lambda late: " ".join(late))
@pytest.mark.parametrize("after_a_request", [False, True])
def test_a_late_setting_works(
    make_app: AppMaker, late: dict[str, Any], after_a_request: bool
) -> None:
    app = make_app(client_id=None, redirect_uri=None)
    app.config.update(SECRET_KEY=None)
    complete = {
        "SECRET_KEY": SECRET_KEY,
        "DEVKIT_SSO_CLIENT_ID": "early",
        "DEVKIT_SSO_REDIRECT_URI": REDIRECT_URI,
    }
    app.config.update({key: value for key, value in complete.items() if key not in late})
    client = app.test_client()
    if after_a_request:
        client.get("/")
        client.get("/")
    app.config.update(late)
    if after_a_request:
        advance(1)  # It is noticed within a second.
    sign_in(client)
    assert client.get("/who").json["username"] == "ada"
    query = start(app.test_client())
    assert query["client_id"] == app.config["DEVKIT_SSO_CLIENT_ID"]
    assert query["redirect_uri"] == app.config["DEVKIT_SSO_REDIRECT_URI"]


def test_login_as_with_a_late_key(make_app: AppMaker) -> None:
    app = make_app()
    app.config["SECRET_KEY"] = "another-key-2f7c90ab41"
    client = app.test_client()
    login_as(client, "bob")
    assert client.get("/private").text == "private bob"
    app.config["SECRET_KEY_FALLBACKS"] = [app.config["SECRET_KEY"]]
    app.config["SECRET_KEY"] = "a-third-key-77d0b6c1e5"
    assert client.get("/private").text == "private bob"


@pytest.mark.parametrize(
    ("late", "shown"),
    [
        ({"DEVKIT_SSO_TIMEOUT": "5"}, "DEVKIT_SSO_TIMEOUT must be a number"),
        (
            {"DEVKIT_SSO_TIME_OUT": 5},
            "DEVKIT_SSO_TIME_OUT is not a setting: did you mean DEVKIT_SSO_TIMEOUT? Assigned after",
        ),
        ({"DEVKIT_SSO_URL_PREFIX": "/auth"}, "The routes have been below /sso since init_app"),
        ({"DEVKIT_SSO_CLIENT_ID": 1.5}, "DEVKIT_SSO_CLIENT_ID must be a string"),
    ],
    ids=str,
)
def test_a_late_setting_that_cannot_work_is_reported(
    make_app: AppMaker,
    caplog: pytest.LogCaptureFixture,
    late: dict[str, Any],
    shown: str,
) -> None:
    app = make_app()
    app.config.update(late)
    client = app.test_client()
    assert reason(client.get("/private")) == "not_configured"
    assert reason(client.get("/sso/authorize")) == "not_configured"
    assert shown in caplog.text
    assert f"ssigned after init_app: {next(iter(late))}" in caplog.text
    assert client.get("/").text == "home"
