"""GET /sso/verify: a proxy asks whether a request to another program may pass."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import unquote

import pytest
from flask import Flask, Response, abort, session
from flask.sessions import SecureCookieSessionInterface
from flask.testing import FlaskClient
from flask_cors import CORS
from werkzeug.test import TestResponse

from flask_devkit_sso import DevKitSSO, login_required
from flask_devkit_sso.testing import login_as

from ..clock import advance
from ..conftest import AppMaker, cookies, reason, sign_in
from ..scripted import ScriptedServer

PAGE = {"Accept": "text/html", "Sec-Fetch-Dest": "document"}
IDENTITY = ("X-DevKit-SSO-Uid", "X-DevKit-SSO-Username", "X-DevKit-SSO-Role")
LOGIN_URL = "X-DevKit-SSO-Login-URL"


def verify(client: FlaskClient, query: str = "", **options: Any) -> TestResponse:
    options.setdefault("headers", {}).setdefault("Accept", "*/*")
    response = client.get(f"/sso/verify{query}", **options)
    check(response)
    return response


def check(response: TestResponse) -> None:
    """Check what holds for every response."""
    assert response.status_code in (204, 400, 401, 403, 405, 503)
    assert response.headers["Cache-Control"] == "no-store"
    assert "Cookie" in response.headers["Vary"]
    names = {name.lower() for name, _ in response.headers}
    assert not names & {"set-cookie", "location", "etag", "x-devkit-sso-mark"}
    assert not any(name.startswith("access-control-") for name in names)
    passes = response.status_code == 204
    assert [name in response.headers for name in IDENTITY] == [passes] * 3
    assert (response.status_code == 503) == ("Retry-After" in response.headers)
    assert (response.status_code == 401) == (LOGIN_URL in response.headers)


@pytest.mark.parametrize("role", ["Admin", "User", None])
def test_who_passes(client: FlaskClient, role: str | None) -> None:
    login_as(client, "ада 1%\r\nX-DevKit-SSO-Role: Admin", role=role, uid="a,b=ä~")  # type: ignore[arg-type]
    for method in (client.get, client.head):
        response = method("/sso/verify")
        check(response)
        assert (response.status_code, response.data) == (204, b"")
        assert [response.headers[name] for name in IDENTITY] == [
            "a%2Cb%3D%C3%A4~",
            "%D0%B0%D0%B4%D0%B0%201%25%0D%0AX-DevKit-SSO-Role%3A%20Admin",
            role or "-",
        ]


@pytest.mark.parametrize(
    ("query", "roles"),
    [("", ["Admin", "User", None]), ("?role=Admin", ["Admin"]), ("?role=User", ["User"])],
)
def test_roles(app: Flask, query: str, roles: list[Any]) -> None:
    for role in ("Admin", "User", None):
        client = app.test_client()
        login_as(client, "zoe", role=role)
        response = verify(client, query)
        assert response.status_code == (204 if role in roles else 403)
        if response.status_code == 403:
            assert response.json["roles"] == [query.partition("=")[2]]
            page = verify(client, query, headers=PAGE)
            assert (page.status_code, page.mimetype) == (403, "text/html")
    assert verify(app.test_client(), query).status_code == 401


@pytest.mark.parametrize(
    "query",
    [
        *("?role=", "?role", "?role=admin", "?role=Root", "?role=Admin&role=User", "?role=Admin&"),
        *("?role=Admin,User", "?Role=Admin", "?role=Admin&x=1", "?x=1", "?role=%ff", "?%ff"),
        "?role=Admin%0d%0aX",
    ],
)
def test_nobody_passes_with_an_unknown_query(
    client: FlaskClient, query: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert verify(client, query).status_code == 403
    login_as(client, "ada", role="Admin")
    caplog.clear()
    assert verify(client, query).status_code == 403
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "?role=Admin, ?role=User or nothing" in record.message
    assert "\n" not in record.message


def test_nobody_is_signed_in(client: FlaskClient) -> None:
    response = verify(client, headers={"X-Original-URI": "/files/a%20b?x=1&y"})
    assert response.status_code == 401
    address = "/sso/authorize?next=/files/a%2520b?x%3D1%26y"
    assert response.headers[LOGIN_URL] == address
    assert response.json == {"error": "login_required", "login_url": address}
    page = verify(client, headers=PAGE | {"X-Forwarded-Uri": "/files/"})
    assert page.headers[LOGIN_URL] == "/sso/authorize?next=/files/"
    assert 'href="/sso/authorize?next=/files/"' in page.text
    chinese = verify(client, headers=PAGE | {"Accept-Language": "zh"})
    assert "请登录" in chinese.text
    framed = verify(client, headers={"Sec-Fetch-Dest": "iframe"})
    assert 'target="_top"' in framed.text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Original-URI": "/a", "X-Forwarded-Uri": "/b"},
        {"X-Original-URI": "/a", "X-Forwarded-Uri": ""},
        {"X-Original-URI": "//evil.example"},
        {"X-Forwarded-Uri": "https://evil.example/"},
        {"X-Original-URI": "/sso/logout"},
        {"X-Original-URI": "/Ã¤"},
        {"Referer": "http://localhost/a"},
        {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"},
        {"Host": "evil.example"},
    ],
    ids=str,
)
def test_addresses_that_a_login_does_not_return_to(
    client: FlaskClient, headers: dict[str, str]
) -> None:
    assert verify(client, headers=headers).headers[LOGIN_URL] == "/sso/authorize"
    # What the headers say decides nothing else.
    login_as(client, "ada")
    assert client.get("/sso/verify", headers=headers).status_code == (
        # The test client sends its cookies to one host only.
        401 if "Host" in headers else 204
    )


def test_both_headers_may_say_the_same(client: FlaskClient) -> None:
    headers = {"X-Original-URI": "/a", "X-Forwarded-Uri": "/a"}
    assert verify(client, headers=headers).headers[LOGIN_URL] == "/sso/authorize?next=/a"


def test_below_a_mount_point(make_app: AppMaker) -> None:
    client = make_app(redirect_uri="https://example.com/app/sso/callback").test_client()
    response = verify(client, headers={"X-Original-URI": "/files/"})
    assert response.headers[LOGIN_URL] == "/app/sso/authorize?next=/files/"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"])
def test_other_methods_never_pass(app: Flask, method: str) -> None:
    """A proxy may keep the method, and applications often answer OPTIONS themselves."""
    app.before_request(lambda: "ours")
    app.add_url_rule("/<path:any>", view_func=lambda any: "any", methods=[method])
    client = app.test_client()
    login_as(client, "ada")
    response = client.open("/sso/verify", method=method)
    check(response)
    assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD")


class FailingInterface(SecureCookieSessionInterface):
    def open_session(self, app: Flask, request: Any) -> Any:
        raise RuntimeError


def catch_everything(app: Flask) -> None:
    """Do what applications do: each of these would let every request pass."""
    app.register_error_handler(Exception, lambda error: "index.html")
    for code in (400, 401, 403, 404, 405, 500, 503):
        app.register_error_handler(code, lambda error: "index.html")
    app.add_url_rule("/<path:any>", "any", lambda any: "index.html")
    app.before_request(lambda: "index.html")

    @app.after_request
    def change(response: Response) -> Response:
        session["x"] = 1
        response.set_cookie("mine", "1")
        response.status_code = 200
        response.headers["Cache-Control"] = "public"
        response.headers.add("Access-Control-Allow-Origin", "*")
        return response


def test_no_function_of_the_application_changes_a_response(make_app: AppMaker) -> None:
    app = make_app()
    app.config["SESSION_REFRESH_EACH_REQUEST"] = True
    catch_everything(app)
    CORS(app, supports_credentials=True, origins="https://evil.example")
    origin = {"Origin": "https://evil.example", "If-None-Match": "*"}
    client = app.test_client()
    assert verify(client, headers=origin).status_code == 401
    login_as(client, "bob", role="User")
    with client.session_transaction() as data:
        data.permanent = True
        data["cart"] = "apples"
    assert verify(client, headers=origin).status_code == 204
    assert verify(client, "?role=Admin", headers=origin).status_code == 403
    assert client.get("/other").text == "index.html"


def broken_store(app: Flask) -> None:
    app.config["DEVKIT_SSO_STORE_URL"] = "sqlite:////dev/null/x.db"


def no_settings(app: Flask) -> None:
    app.config["DEVKIT_SSO_CLIENT_ID"] = None


def broken_view(app: Flask) -> None:
    app.add_url_rule("/broken", view_func=login_required(lambda: ""), endpoint="broken")
    app.view_functions["broken"] = app.view_functions["broken"].__wrapped__


def broken_session(app: Flask) -> None:
    app.session_interface = FailingInterface()


@pytest.mark.parametrize("testing", [True, False])
@pytest.mark.parametrize("fault", [broken_store, no_settings, broken_view, broken_session])
def test_nobody_passes_while_anything_fails(make_app: AppMaker, fault: Any, testing: bool) -> None:
    app = make_app()
    catch_everything(app)
    # It adds its headers to what Flask.handle_exception returns, too.
    CORS(app, supports_credentials=True, origins="https://evil.example")
    client = app.test_client()
    login_as(client, "ada")
    app.config["TESTING"] = testing
    fault(app)
    # Settings that are assigned late are noticed within a second.
    advance(2)
    response = verify(client, headers=PAGE | {"Origin": "https://evil.example"})
    assert response.status_code == 503


def test_trusted_hosts_do_not_matter(make_app: AppMaker) -> None:
    """Some proxies ask with the name of their own connection."""
    app = make_app(redirect_uri="https://example.com/app/sso/callback")
    catch_everything(app)
    app.config["TRUSTED_HOSTS"] = ["example.com"]
    client = app.test_client()
    response = verify(client, headers=PAGE | {"X-Original-URI": "/files/"})
    assert response.status_code == 401
    assert response.headers[LOGIN_URL] == "/app/sso/authorize?next=/files/"
    assert 'href="/app/sso/static/devkit_sso.css"' in response.text
    login_as(client, "ada")
    assert verify(client, "?role=Admin", headers=PAGE).status_code == 403
    assert verify(client).status_code == 204
    for path in ("/sso/authorize", "/sso/verify%3Frole=Admin"):
        assert client.get(path).status_code == 400, path


def test_an_outage_of_the_server(app: Flask, server: ScriptedServer) -> None:
    client = app.test_client()
    sign_in(client)
    assert verify(client).status_code == 204
    server.stop()
    advance(301)
    # The last answer is still valid.
    assert verify(client).status_code == 204
    advance(700)
    page = verify(client, headers=PAGE | {"X-Original-URI": "/files/"})
    assert page.status_code == 503
    assert reason(page) == "server_unavailable"
    assert 'href="/files/"' in page.text
    assert "/sso/verify" not in page.text


def test_it_extends_the_idle_timeout(app: Flask) -> None:
    client = app.test_client()
    sign_in(client)
    for _ in range(4):
        advance(1000)
        assert verify(client).status_code == 204
    advance(1801)
    assert verify(client).status_code == 401


def test_it_leaves_flasks_session_alone(app: Flask) -> None:
    """Even if the application keeps the data on its server, where no cookie is needed to clear
    it."""
    kept: dict[str, Any] = {}

    class OnServer(SecureCookieSessionInterface):
        def open_session(self, app: Flask, request: Any) -> Any:
            return self.session_class(kept)

        def save_session(self, app: Flask, session: Any, response: Response) -> None:
            if session.modified:
                kept.clear()
                kept.update(session)
                response.set_cookie("session", "1")

    app.session_interface = OnServer()

    @app.get("/cart")
    @login_required
    def cart() -> str:
        session["cart"] = "apples"
        return ""

    client = app.test_client()
    login_as(client, "ada")
    client.get("/cart")
    client.delete_cookie(next(c.key for c in cookies(client) if "devkit" in c.key))
    before = dict(kept)
    assert before["cart"] == "apples"
    assert verify(client, headers=PAGE).status_code == 401
    assert kept == before
    client.get("/who", headers=PAGE)
    assert "cart" not in kept


# Everything below the prefix

UNKNOWN = [
    *("/sso/verify%3Frole=Admin", "/sso/verify/", "/sso/Verify", "/sso//verify", "/sso/verify%00"),
    *("//sso/own", "/x/../sso/verify", "/sso/./verify", "/sso/verify;x", "/sso/own", "/sso/"),
    *("/sso/../own", "/app/sso/verify", "/sso/verify%20"),
]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
def test_no_view_of_the_application_is_below_the_prefix(
    make_app: AppMaker, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A proxy asks for ``/sso/verify%3Frole=Admin`` if the query is part of its setting."""
    sso = DevKitSSO()
    app = make_app(sso, redirect_uri="http://localhost/app/sso/callback")
    everything = ["GET", "POST", "OPTIONS"]
    app.add_url_rule("/<path:any>", "any", lambda any: "any view", methods=everything)
    app.add_url_rule("/sso/own", "own", lambda: "own", methods=everything)
    app.register_error_handler(404, lambda error: ("index.html", 200))
    app.register_error_handler(405, lambda error: ("index.html", 200))
    app.after_request(lambda response: Response("any view", 200))
    client = app.test_client()
    login_as(client, "ada", role="Admin")
    for path in UNKNOWN:
        environ = {"PATH_INFO": unquote(path)}
        response = client.open(method=method, environ_overrides=environ)
        assert response.status_code == 404, path
        assert "any view" not in response.text
    assert "no request reaches /sso/own" in caplog.text
    for path in ("/sso", "/ssoverify", "/other/sso/verify", "/verify"):
        assert client.open(path, method=method).status_code == 200, path
    assert client.post("/sso/me").status_code == 404


def no_route(endpoint: str | None, values: dict[str, Any] | None) -> None:
    """Refuse paths, as an application does whose URLs begin with a language."""
    abort(404)


@pytest.mark.parametrize("testing", [True, False])
@pytest.mark.parametrize("is_broken", [True, False], ids=["session", "preprocessor"])
def test_no_error_page_of_the_application_answers_for_an_unknown_path(
    app: Flask, testing: bool, is_broken: bool
) -> None:
    """Single-page applications often answer 404 with their first page and status 200."""
    catch_everything(app)
    if is_broken:
        broken_session(app)
    else:
        app.url_value_preprocessor(no_route)
    app.config["TESTING"] = testing
    client = app.test_client()
    for path in ("/sso/verify%3Frole=Admin", "/sso/", "/sso//verify"):
        assert client.get(path).status_code == 404, path
    if not testing:
        # Elsewhere, the application may do as it likes.
        assert client.get("/other").text == "index.html"
        assert client.get("/sso/me").text == "index.html" or not is_broken


def test_error_pages_of_the_application_do_not_see_other_methods(app: Flask) -> None:
    app.register_error_handler(405, lambda error: abort(410))
    assert app.test_client().delete("/sso/signed-out").status_code == 405


def test_a_passive_request_does_not_extend_the_idle_timeout(app: Flask) -> None:
    client = app.test_client()
    sign_in(client)
    for seconds, status in ((1000, 204), (801, 401)):
        advance(seconds)
        response = verify(client, headers={"X-DevKit-SSO-Passive": "1"})
        assert response.status_code == status
