"""Requests that no browser sends, which `make fuzz` found."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/sso/authorize", 303),
        ("/sso/callback", 400),
        ("/sso/confirm", 400),
        ("/sso/logout", 303),
        ("/sso/signed-out", 200),
    ],
)
def test_a_query_that_is_not_utf_8(client: FlaskClient, path: str, status: int) -> None:
    assert client.get(path, environ_overrides={"QUERY_STRING": "\x80"}).status_code == status
