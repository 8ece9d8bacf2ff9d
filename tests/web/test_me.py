"""GET /sso/me: a front end asks who is signed in."""

from __future__ import annotations

import pytest
from flask import Flask, Response
from flask.testing import FlaskClient
from flask_cors import CORS

from flask_devkit_sso.testing import login_as

from ..clock import advance
from ..conftest import AppMaker, reason, sign_in

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin", "Accept": "*/*"}
PAGE = {"Accept": "text/html"}


@pytest.mark.parametrize("role", ["Admin", "User", None])
def test_the_current_user(client: FlaskClient, role: str | None) -> None:
    login_as(client, "ада", role=role, uid="1001")  # type: ignore[arg-type]
    response = client.get("/sso/me", headers=SAME_ORIGIN)
    assert response.json == {
        "uid": "1001",
        "username": "ада",
        "role": role,
        "is_admin": role == "Admin",
    }
    assert response.headers["Cache-Control"] == "no-store"
    assert "Cookie" in response.headers["Vary"]


@pytest.mark.parametrize("headers", [{}, PAGE, SAME_ORIGIN], ids=str)
def test_nobody_is_signed_in(app: Flask, headers: dict[str, str]) -> None:
    """It is JSON even if a page is loaded, and whatever the application does with a 401."""
    app.register_error_handler(401, lambda error: ("ours", 401))
    response = app.test_client().get("/sso/me", headers=headers)
    assert response.status_code == 401
    assert response.json["error"] == "login_required"
    assert response.json["login_url"].startswith("/sso/authorize")
    assert response.headers["Cache-Control"] == "no-store"


def test_the_login_leads_back_to_the_page_that_asks(client: FlaskClient) -> None:
    page = {"Referer": "http://localhost/files?x=1"}
    response = client.get("/sso/me", headers=SAME_ORIGIN | page)
    assert response.json["login_url"] == "/sso/authorize?next=/files?x%3D1"


def test_a_missing_setting(make_app: AppMaker) -> None:
    client = make_app(client_id=None).test_client()
    response = client.get("/sso/me", headers=SAME_ORIGIN)
    assert response.status_code == 503
    assert response.json["error"] == "not_configured"


@pytest.mark.parametrize(
    ("headers", "is_allowed"),
    [
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Origin": "http://localhost"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"}, False),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "null"}, False),
    ],
    ids=str,
)
def test_no_other_site_can_ask(
    client: FlaskClient, headers: dict[str, str], is_allowed: bool
) -> None:
    # A name that no reference contains: those are hexadecimal.
    login_as(client, "zoe")
    response = client.get("/sso/me", headers=headers)
    assert response.status_code == (200 if is_allowed else 403)
    assert ("zoe" in response.text) == is_allowed
    if not is_allowed:
        page = client.get("/sso/me", headers=headers | PAGE)
        assert reason(page) == "cross_site"


def test_no_header_of_the_application_lets_other_sites_or_caches_read_it(
    make_app: AppMaker,
) -> None:
    app = make_app()
    CORS(app, supports_credentials=True, origins="https://evil.example")

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers["Cache-Control"] = "public, max-age=600"
        response.headers.add("access-control-allow-origin", "*")
        return response

    client = app.test_client()
    login_as(client, "ada")
    origin = {"Origin": "https://evil.example"}
    preflight = origin | {"Access-Control-Request-Method": "GET"}
    responses = [
        client.get("/sso/me"),
        client.get("/sso/me", headers=SAME_ORIGIN),
        client.get("/sso/me", headers=origin),
        client.options("/sso/me", headers=preflight),
        app.test_client().get("/sso/me", headers=origin),
    ]
    for response in responses:
        assert not any(name.lower().startswith("access-control-") for name, _ in response.headers)
        assert response.headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" in client.get("/", headers=origin).headers


def test_it_never_extends_the_idle_timeout(app: Flask) -> None:
    """Not even if a function of the application uses current_user before that."""
    from flask_devkit_sso import current_user

    app.before_request(lambda: current_user.uid and None)
    active, idle = app.test_client(), app.test_client()
    for client in (active, idle):
        sign_in(client)
    for _ in range(3):
        assert idle.get("/sso/me").status_code == 200
        advance(599)
        active.get("/who")
    advance(4)
    assert idle.get("/sso/me").status_code == 401
    assert active.get("/sso/me").status_code == 200
