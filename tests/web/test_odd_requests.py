"""Requests that no browser sends: `make fuzz` found some of them, an attacker may send others."""

from __future__ import annotations

import pytest
from flask import Flask
from flask.testing import FlaskClient


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/sso/authorize", 303),
        ("/sso/callback", 400),
        ("/sso/confirm", 400),
        ("/sso/logout", 303),
        ("/sso/onward", 200),
        ("/sso/signed-out", 200),
    ],
)
def test_a_query_that_is_not_utf_8(client: FlaskClient, path: str, status: int) -> None:
    assert client.get(path, environ_overrides={"QUERY_STRING": "\x80"}).status_code == status


@pytest.mark.parametrize(
    "mount",
    [
        "//evil.example",
        "/\\evil.example",
        "/\t/evil.example",
        "https://evil.example",
        ".evil.example",
        "@evil.example",
        "/.//evil.example",
    ],
)
@pytest.mark.parametrize("path", ["/sso/onward", "/sso/logout", "/private", "/open"])
def test_a_mount_point_that_browsers_take_for_another_site(
    client: FlaskClient, mount: str, path: str
) -> None:
    response = client.get(path, environ_overrides={"SCRIPT_NAME": mount})
    assert response.status_code == 400
    assert "Location" not in response.headers


def test_our_addresses_below_a_mount_point_with_two_slashes(
    app: Flask, client: FlaskClient
) -> None:
    app.add_url_rule("/<path:anything>", view_func=lambda anything: "the application's")
    for path in ("/sso//logout", "/sso/./logout", "/sso/logout/"):
        response = client.get(path, environ_overrides={"SCRIPT_NAME": "/a//b"})
        assert "the application's" not in response.text
