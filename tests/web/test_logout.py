"""Logout from the application, then at the server, and the outcome (docs/protocol.md section 6)."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_devkit_sso import DevKitSSO, logged_out
from flask_devkit_sso.testing import login_as

from ..clock import advance
from ..conftest import AppMaker, carry_cookies, cookies, reason, sign_in
from ..scripted import (
    GET_TOKEN,
    LOGOUT,
    REFRESH_TOKEN,
    TOKEN,
    ScriptedServer,
    closes,
    fails,
    says,
)

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


def signed_in(client: FlaskClient) -> bool:
    return bool(client.get("/who").json["is_authenticated"])


def test_get_asks_for_confirmation_and_ends_nothing(
    client: FlaskClient, server: ScriptedServer
) -> None:
    sign_in(client)
    response = client.get("/sso/logout")
    assert response.status_code == 200
    assert '<form method="post" action="/sso/logout"' in response.text
    assert "ada" in response.text
    assert response.headers["Referrer-Policy"] == "same-origin"
    assert signed_in(client)
    assert LOGOUT not in server.paths


def test_post_ends_both_sessions(app: Flask, client: FlaskClient, server: ScriptedServer) -> None:
    sign_in(client)
    copy = app.test_client()
    carry_cookies(client, copy)
    response = client.post("/sso/logout", headers=SAME_ORIGIN)
    assert response.status_code == 303
    assert server.seen[-1].path == "/sso/oauth2/logout"
    assert server.seen[-1].body == (
        b'{"client_id": "20221017000000001", "access_token": "canary-access-token-1f6a"}'
    )
    assert not signed_in(client)
    assert not signed_in(copy)
    assert client.get_cookie("x") is None
    page = client.get(response.location)
    assert 'data-outcome="told"' in page.text
    assert page.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("how", ["8205", "8500", "gone"])
def test_a_logout_that_the_server_does_not_accept(
    client: FlaskClient, server: ScriptedServer, how: str
) -> None:
    sign_in(client)
    server.answers[LOGOUT] = closes if how == "gone" else fails(how)
    response = client.post("/sso/logout", headers=SAME_ORIGIN)
    assert not signed_in(client)
    assert 'data-outcome="not_told"' in client.get(response.location).text


def test_an_expired_access_token_is_refreshed_first(
    client: FlaskClient, server: ScriptedServer
) -> None:
    server.answers[GET_TOKEN] = says(TOKEN | {"data": TOKEN["data"] | {"expires_in": 1}})  # type: ignore[operator]
    sign_in(client)
    advance(1.1)
    response = client.post("/sso/logout", headers=SAME_ORIGIN)
    assert server.paths[-2:] == [REFRESH_TOKEN, LOGOUT]
    assert server.seen[-2].body == (
        b'{"client_id": "20221017000000001", "refresh_token": "canary-refresh-token-9b2c"}'
    )
    assert server.seen[-1].json["access_token"] == "canary-second-7d"
    assert 'data-outcome="told"' in client.get(response.location).text


def test_json(client: FlaskClient, server: ScriptedServer) -> None:
    sign_in(client)
    headers = SAME_ORIGIN | {"Accept": "application/json"}
    response = client.post("/sso/logout", headers=headers)
    assert response.status_code == 200
    assert response.json["server_told"] is True
    assert response.json["next"].startswith("/sso/signed-out")
    response = client.post("/sso/logout", headers=headers)
    assert response.json["server_told"] is False
    assert server.paths.count(LOGOUT) == 1


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, True),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://localhost"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Sec-Fetch-Site": ""}, False),
        ({"Origin": "http://localhost"}, True),
        ({"Origin": "http://localhost:81"}, False),
        ({"Origin": "https://localhost"}, False),
        ({"Origin": "http://localhost.evil.example"}, False),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({}, False),
        ({"Referer": "http://localhost/"}, False),
    ],
    ids=str,
)
def test_only_the_applications_pages_may_post(
    client: FlaskClient, headers: dict[str, str], allowed: bool
) -> None:
    sign_in(client)
    response = client.post("/sso/logout", headers=headers)
    if allowed:
        assert response.status_code == 303
    else:
        assert (response.status_code, reason(response)) == (403, "cross_site")
    assert signed_in(client) is not allowed


def test_the_allowed_origin_comes_from_the_settings(make_app: AppMaker) -> None:
    client = make_app(redirect_uri="https://app.example:8443/sso/callback").test_client()
    for origin, status in [("https://app.example:8443", 303), ("http://evil.example", 403)]:
        response = client.post(
            "/sso/logout", headers={"Origin": origin}, base_url="http://evil.example"
        )
        assert response.status_code == status


@pytest.mark.parametrize(
    ("redirect_uri", "origin", "status"),
    [
        ("https://app.example:443/sso/callback", "https://app.example", 303),
        ("http://127.0.0.1:80/#/login", "http://127.0.0.1", 303),
        ("https://app.example:80/#/login", "https://app.example:80", 303),
        ("https://app.example:80/#/login", "https://app.example", 403),
    ],
)
def test_the_allowed_origin_omits_the_default_port(
    make_app: AppMaker, redirect_uri: str, origin: str, status: int
) -> None:
    client = make_app(redirect_uri=redirect_uri).test_client()
    assert client.post("/sso/logout", headers={"Origin": origin}).status_code == status


def outcome(client: FlaskClient, url: str = "/sso/signed-out") -> str:
    return client.get(url).text.split('data-outcome="')[1].split('"')[0]


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_the_signed_out_page_reports_the_outcome_only_to_the_browser_that_signed_out(
    app: Flask, client: FlaskClient, accept: str
) -> None:
    sign_in(client)
    response = client.post("/sso/logout", headers={**SAME_ORIGIN, "Accept": accept})
    url = response.json["next"] if response.is_json else response.location
    assert outcome(app.test_client(), url) == "unknown"
    assert [outcome(client, url) for _ in range(2)] == ["told", "told"]
    (cookie,) = [cookie for cookie in cookies(client) if "outcome" in cookie.key]
    assert (cookie.http_only, cookie.max_age) == (True, 300)
    # Another tab signs out as well, and knows no more than this one.
    client.post("/sso/logout", headers=SAME_ORIGIN)
    assert outcome(client, url) == "told"


@pytest.mark.parametrize(("ahead", "expected"), [(30, "told"), (-30, "told"), (61, "unknown")])
def test_the_outcome_is_shown_by_a_host_with_another_clock(
    client: FlaskClient, ahead: float, expected: str
) -> None:
    sign_in(client)
    url = client.post("/sso/logout", headers=SAME_ORIGIN).location
    advance(-ahead)
    assert outcome(client, url) == expected


def test_the_outcome_is_shown_for_five_minutes_and_until_the_next_login(
    app: Flask, client: FlaskClient
) -> None:
    sign_in(client)
    client.post("/sso/logout", headers=SAME_ORIGIN)
    copy = app.test_client()
    carry_cookies(client, copy)
    advance(299)
    assert outcome(client) == "told"
    sign_in(client)
    assert outcome(client) == "signed_in"
    with app.app_context():
        app.extensions["devkit_sso"].session_service.end_sessions("u-1")
    assert outcome(client) == "unknown"
    advance(2)
    assert outcome(copy) == "unknown"


def test_the_signed_out_page_reports_only_a_known_outcome(app: Flask, client: FlaskClient) -> None:
    assert outcome(client) == "unknown"
    for value in ("told", "true", "dHJ1ZQ.x.y"):
        client.set_cookie(f"{app.extensions['devkit_sso'].session_cookie}_outcome", value)
        assert outcome(client) == "unknown"
    login_as(client, "bob")
    page = client.get("/sso/signed-out").text
    assert 'data-outcome="signed_in"' in page
    assert "bob" in page


def test_logging_out_anonymously_does_nothing(client: FlaskClient, server: ScriptedServer) -> None:
    assert client.get("/sso/logout").location == "/sso/signed-out"
    response = client.post("/sso/logout", headers=SAME_ORIGIN)
    assert response.location == "/sso/signed-out"
    assert server.seen == []


@pytest.mark.parametrize("url", ["/bye", "https://intranet.example/bye"])
def test_the_page_after_a_logout_is_a_setting(make_app: AppMaker, url: str) -> None:
    client = make_app(after_logout_url=url).test_client()
    sign_in(client)
    assert client.post("/sso/logout", headers=SAME_ORIGIN).location == url


def test_the_signal(app: Flask, client: FlaskClient) -> None:
    received: list[Any] = []

    def listen(sender: Flask, user: Any, server_told: bool) -> None:
        received.append((sender, user.username, server_told))

    with logged_out.connected_to(listen, app):
        sign_in(client)
        client.post("/sso/logout", headers=SAME_ORIGIN)
        client.post("/sso/logout", headers=SAME_ORIGIN)
    assert received == [(app, "ada", True)]


def test_a_receiver_that_fails_keeps_nobody_signed_in(app: Flask, client: FlaskClient) -> None:
    def fail(sender: Flask, **_: object) -> None:
        raise ZeroDivisionError

    sign_in(client)
    app.testing = False
    with logged_out.connected_to(fail, app):
        response = client.post("/sso/logout", headers=SAME_ORIGIN)
    assert response.status_code == 500
    assert "Max-Age=0" in response.headers["Set-Cookie"]
    assert not signed_in(client)


def test_a_logout_needs_only_the_session_store(make_app: AppMaker, server: ScriptedServer) -> None:
    """While a setting for the server is missing, the session ends here all the same."""
    client = make_app().test_client()
    sign_in(client)
    incomplete = make_app(DevKitSSO(), client_secret=None).test_client()
    carry_cookies(client, incomplete)
    server.seen.clear()
    headers = SAME_ORIGIN | {"Accept": "application/json"}
    assert incomplete.post("/sso/logout", headers=headers).json["server_told"] is False
    assert not signed_in(client)
    assert server.seen == []


def test_the_signed_out_page_works_without_a_secret_key(make_app: AppMaker) -> None:
    app = make_app()
    other = Flask("tests")
    other.config.update(app.config, SECRET_KEY=None)
    DevKitSSO(other)
    page = other.test_client().get("/sso/signed-out", headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert 'data-outcome="unknown"' in page.text
