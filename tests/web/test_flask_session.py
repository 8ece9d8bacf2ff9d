"""Flask's ``session`` belongs to the person who is signed in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cachelib.file import FileSystemCache
from flask import Flask, g, request, session, stream_with_context
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from flask.testing import FlaskClient
from flask_session import Session
from werkzeug.test import TestResponse

from flask_devkit_sso import DevKitSSO, LoginRefused, current_user, logged_out, login_succeeded

from .. import clock
from ..clock import advance
from ..conftest import SECRET_KEY, AppMaker, come_back, cookies, sign_in, start
from ..redis_server import Proxy, RedisServer
from ..scripted import ADA, GET_USER_INFO, REFRESH_TOKEN, ScriptedServer, fails, says

SAME = {"Sec-Fetch-Site": "same-origin"}


def add_views(app: Flask) -> Flask:
    """Add a view that changes Flask's session, and one that shows it without reading ours."""

    @app.post("/session")
    def put() -> str:
        session.update(request.form)
        return ""

    @app.get("/session")
    def show() -> dict[str, Any]:
        return {name: value for name, value in session.items() if not name.startswith("_")}

    return app


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    return add_views(make_app())


def put(client: FlaskClient, **data: str) -> None:
    assert client.post("/session", data=data).status_code == 200


def data_of(client: FlaskClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/session").get_json()
    return found


def value_of(client: FlaskClient) -> str:
    cookie = client.get_cookie("session")
    return cookie.value if cookie else ""


def as_person(server: ScriptedServer, uid: str) -> None:
    server.answers[GET_USER_INFO] = says(
        {"code": "2000", "data": {"uid": uid, "username": uid, "role": "User"}}
    )


def another_login(client: FlaskClient, server: ScriptedServer, uid: str) -> TestResponse:
    """Complete a login while somebody is signed in, as another tab can."""
    helper = client.application.test_client()
    state = start(helper)["state"]
    for cookie in cookies(helper):
        client.set_cookie(cookie.key, cookie.value)
    as_person(server, uid)
    return come_back(client, state)


def changes_session(response: TestResponse) -> bool:
    return any(c.startswith("session=") for c in response.headers.getlist("Set-Cookie"))


def test_the_data_of_a_visitor_stays_through_the_login(client: FlaskClient) -> None:
    put(client, cart="book")
    assert not changes_session(client.get("/who"))
    sign_in(client)
    assert data_of(client) == {"cart": "book"}
    assert not changes_session(client.get("/private"))
    cookie = client.get_cookie("session")
    assert cookie is not None
    with client.session_transaction() as found:
        assert "u-1" not in str(dict(found))
    sign_in(client.application.test_client())
    # The same person again
    helper = client.application.test_client()
    state = start(helper)["state"]
    for login in cookies(helper):
        client.set_cookie(login.key, login.value)
    come_back(client, state)
    assert data_of(client) == {"cart": "book"}


def test_a_logout_clears_it_before_the_signal(app: Flask, client: FlaskClient) -> None:
    def receiver(sender: Flask, **_: object) -> None:
        assert dict(session) == {}
        session["goodbye"] = "yes"

    sign_in(client)
    put(client, cart="book")
    client.get("/sso/logout")
    assert data_of(client) == {"cart": "book"}
    with logged_out.connected_to(receiver, app):
        client.post("/sso/logout", headers=SAME)
    assert data_of(client) == {"goodbye": "yes"}
    # Nobody is signed in: a logout changes nothing.
    assert not changes_session(client.post("/sso/logout", headers=SAME))


def test_a_logout_clears_data_without_a_tag(app: Flask, client: FlaskClient) -> None:
    def receiver(sender: Flask, **_: object) -> None:
        session.clear()
        session["cart"] = "written after the application has cleared the session"

    with login_succeeded.connected_to(receiver, app):
        sign_in(client)
    assert client.get("/private").status_code == 200
    assert data_of(client)
    client.post("/sso/logout", headers=SAME)
    assert data_of(client) == {}
    assert client.get_cookie("session") is None


@pytest.mark.parametrize("has_tag", [True, False])
def test_somebody_else_finds_it_empty(
    make_app: AppMaker, server: ScriptedServer, has_tag: bool
) -> None:
    """It is cleared before on_login runs, and what on_login writes stays."""
    sso = DevKitSSO()
    seen: list[dict[str, Any]] = []

    @sso.on_login
    def on_login(user: Any) -> None:
        seen.append({name: session[name] for name in session if name[0] != "_"})
        session["theme"] = user.uid

    client = add_views(make_app(sso)).test_client()
    sign_in(client)
    put(client, cart="book")
    if not has_tag:
        # An application without the extension shares the cookie.
        other = Flask("other")
        other.secret_key = SECRET_KEY
        browser = other.test_client()
        browser.set_cookie("session", value_of(client))
        with browser.session_transaction() as found:
            del found["_devkit_sso_user"]
        client.set_cookie("session", value_of(browser))
    another_login(client, server, "u-2")
    assert seen == [{}, {}]
    assert client.get("/who").get_json()["uid"] == "u-2"
    assert data_of(client) == {"theme": "u-2"}


@pytest.mark.parametrize("failure", [LoginRefused("no"), ZeroDivisionError()], ids=repr)
def test_it_is_restored_if_the_login_of_somebody_else_is_refused(
    make_app: AppMaker, server: ScriptedServer, failure: Exception
) -> None:
    sso = DevKitSSO()

    @sso.on_login
    def on_login(user: Any) -> None:
        if user.uid == "u-2":
            assert "cart" not in session
            session["cart"] = "of the person who was refused"
            raise failure

    client = add_views(make_app(sso)).test_client()
    sign_in(client)
    put(client, cart="book")
    response = another_login(client, server, "u-2")
    assert response.status_code == (403 if isinstance(failure, LoginRefused) else 500)
    assert not changes_session(response)
    assert data_of(client) == {"cart": "book"}
    assert client.get("/who").get_json()["uid"] == "u-1"


def end_by_timeout(app: Flask, client: FlaskClient) -> None:
    clock.advance(1801)


def end_elsewhere(app: Flask, client: FlaskClient) -> None:
    with app.app_context():
        app.extensions["devkit_sso"].session_service.end_sessions("u-1")


def close_browser(app: Flask, client: FlaskClient) -> None:
    """Our cookie ends with the browser; a permanent session's does not."""
    for cookie in cookies(client):
        client.delete_cookie(cookie.key)


ENDINGS = [end_by_timeout, end_elsewhere, close_browser]


@pytest.mark.parametrize("end", ENDINGS)
@pytest.mark.parametrize("path", ["/who", "/private", "/sso/authorize", "/sso/signed-out"])
def test_it_is_cleared_once_the_session_has_ended(
    app: Flask, client: FlaskClient, end: Any, path: str
) -> None:
    sign_in(client)
    put(client, cart="book")
    end(app, client)
    assert data_of(client) == {"cart": "book"}, "this view does not read our session"
    response = client.get(path)
    assert changes_session(response)
    assert "Cookie" in response.vary
    assert data_of(client) == {}
    put(client, cart="pen")
    assert not changes_session(client.get("/who"))
    assert data_of(client) == {"cart": "pen"}


def test_it_is_cleared_if_the_server_ends_the_session_during_a_request(
    app: Flask, client: FlaskClient, server: ScriptedServer
) -> None:
    sign_in(client)
    put(client, cart="book")
    clock.advance(1000)
    server.answers[GET_USER_INFO] = fails("8500")
    assert client.get("/private").status_code == 503
    assert data_of(client) == {"cart": "book"}, "the server has not answered"
    clock.advance(100)
    server.answers[GET_USER_INFO] = fails("8205")
    server.answers[REFRESH_TOKEN] = fails("8206")
    assert client.get("/private").status_code == 302
    assert data_of(client) == {}


def test_it_stays_while_the_store_is_unavailable(client: FlaskClient, tmp_path: Path) -> None:
    sign_in(client)
    put(client, cart="book")
    for file in tmp_path.iterdir():
        file.unlink()
    (tmp_path / "devkit_sso.db").write_bytes(b"no database at all, but long enough" * 100)
    advance(1)  # A read notices within a second that the file was replaced.
    for path in ("/who", "/private", "/sso/logout", "/sso/callback?code=C"):
        response = client.get(path)
        assert (response.status_code, changes_session(response)) == (503, False)
    assert client.post("/sso/logout", headers=SAME).status_code == 503
    assert data_of(client) == {"cart": "book"}


LAX = [
    # Requests to which browsers attach no SameSite=Lax cookie, but may attach Flask's
    ("POST", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}, False),
    ("POST", {"Origin": "https://evil.example", "Accept": "text/html"}, False),
    ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image"}, False),
    ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "iframe"}, False),
    ("GET", {"Accept": "image/*"}, False),
    ("GET", SAME | {"Sec-Fetch-Dest": "empty", "Sec-Fetch-Storage-Access": "active"}, False),
    # All others
    ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}, True),
    ("GET", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "empty"}, True),
    ("POST", {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Dest": "empty"}, True),
    ("POST", {"Origin": "http://localhost"}, True),
    ("GET", {"Accept": "text/html"}, True),
]


@pytest.mark.parametrize(("method", "headers", "is_cleared"), LAX)
def test_another_site_cannot_have_it_cleared(
    client: FlaskClient, method: str, headers: dict[str, str], is_cleared: bool
) -> None:
    sign_in(client)
    put(client, cart="book")
    found = client.get_cookie("session")
    assert found is not None
    other = client.application.test_client()
    other.set_cookie("session", found.value)
    assert changes_session(other.open("/private", method=method, headers=headers)) == is_cleared


def test_a_cookie_for_several_hosts(make_app: AppMaker) -> None:
    """Our cookie is for the redirect URI's host only, so its absence says nothing elsewhere."""
    app = add_views(make_app(redirect_uri="https://app.example.test/sso/callback"))
    app.config["SESSION_COOKIE_DOMAIN"] = "example.test"
    client = app.test_client()
    here, elsewhere = "https://app.example.test", "https://tenant.example.test"
    state = start(client, base_url=here)["state"]
    come_back(client, state, base_url=here)
    client.post("/session", data={"cart": "book"}, base_url=here)
    assert client.get("/who", base_url=elsewhere).get_json()["uid"] is None
    assert client.get("/session", base_url=elsewhere).get_json() == {"cart": "book"}
    for cookie in cookies(client):
        client.delete_cookie(cookie.key, domain="app.example.test")
    client.get("/who", base_url=here)
    assert client.get("/session", base_url=elsewhere).get_json() == {}


def test_nothing_changes_without_a_cookie_of_flask(make_app: AppMaker) -> None:
    """Flask's session is then not even looked at."""
    looked: list[str] = []

    class Watched(SecureCookieSession):
        def get(self, name: str, default: Any = None) -> Any:
            looked.append(name)
            return super().get(name, default)

    class Interface(SecureCookieSessionInterface):
        session_class = Watched

    def answers(**settings: Any) -> list[list[tuple[str, str]]]:
        app = make_app(**settings)
        app.session_interface = Interface()
        client = app.test_client()
        sign_in(client)
        client.delete_cookie("session")
        anonymous = app.test_client()
        looked.clear()
        return [
            [header for header in browser.get(path).headers if header[0] != "Date"]
            for browser in (client, anonymous)
            for path in ("/", "/who", "/private", "/nowhere")
        ]

    found = answers()
    assert looked == []
    assert found == answers(clear_session=False)
    assert not any(name == "Set-Cookie" for headers in found for name, _ in headers)


def test_an_application_that_keeps_nothing_there_gets_no_cookie(client: FlaskClient) -> None:
    assert not changes_session(sign_in(client))
    assert not changes_session(client.get("/private"))
    assert value_of(client) == ""


def test_what_is_written_while_the_store_is_unavailable_is_lost(
    make_app: AppMaker, redis_server: RedisServer
) -> None:
    """Somebody may be signed in, and the next person must not find that person's data."""
    proxy = Proxy(redis_server)
    client = add_views(make_app(store_url=proxy.url)).test_client()
    sign_in(client)
    proxy.close()
    put(client, cart="book")
    assert client.get("/private").status_code == 503
    other = add_views(make_app(store_url=redis_server.url)).test_client()
    for cookie in cookies(client):
        other.set_cookie(cookie.key, cookie.value)
    other.set_cookie("session", value_of(client))
    assert data_of(other) == {"cart": "book"}
    assert other.get("/private").status_code == 200
    assert data_of(other) == {}


def test_other_applications_of_the_process_stay_as_they_are(client: FlaskClient) -> None:
    other = Flask("other")
    other.secret_key = SECRET_KEY
    sign_in(client)
    put(client, cart="book")
    assert type(other).session_interface is other.session_interface
    browser = add_views(other).test_client()
    for cookie in cookies(client):
        browser.set_cookie(cookie.key, cookie.value)
    browser.delete_cookie("session")
    put(browser, cart="pen")
    with browser.session_transaction() as found:
        assert dict(found) == {"cart": "pen"}


def test_it_can_be_turned_off(make_app: AppMaker, server: ScriptedServer) -> None:
    client = add_views(make_app(clear_session=False)).test_client()
    put(client, cart="book")
    assert not changes_session(sign_in(client))
    assert not changes_session(another_login(client, server, "u-2"))
    clock.advance(1801)
    assert not changes_session(client.get("/private"))
    sign_in(client)
    client.post("/sso/logout", headers=SAME)
    assert data_of(client) == {"cart": "book"}


def test_a_fallback_of_the_secret_key_verifies_the_tag(make_app: AppMaker) -> None:
    client = add_views(make_app()).test_client()
    sign_in(client)
    put(client, cart="book")
    rotated = add_views(make_app())
    rotated.config.update(SECRET_KEY="another-key-" * 3, SECRET_KEY_FALLBACKS=[SECRET_KEY])
    rotated.extensions.pop("devkit_sso")
    again = Flask("rotated", instance_path=rotated.instance_path)
    again.config.update(rotated.config)
    DevKitSSO(again)
    again.add_url_rule("/who", "who", lambda: {"uid": current_user.uid})
    browser = add_views(again).test_client()
    for cookie in client._cookies.values() if client._cookies else ():
        browser.set_cookie(cookie.key, cookie.value)
    assert browser.get("/who").get_json() == {"uid": "u-1"}
    assert data_of(browser) == {"cart": "book"}


def test_two_applications_that_share_flasks_session(make_app: AppMaker) -> None:
    """Neither clears what belongs to somebody who is signed in to the other one."""
    one, two = make_app(), make_app(client_id="the-second")
    client, other = add_views(one).test_client(), add_views(two).test_client()

    def carry(source: FlaskClient, target: FlaskClient) -> None:
        for cookie in source._cookies.values() if source._cookies else ():
            target.set_cookie(cookie.key, cookie.value)

    sign_in(client)
    put(client, cart="book")
    carry(client, other)
    assert other.get("/who").get_json()["uid"] is None
    assert data_of(other) == {"cart": "book"}
    # Somebody signs in there: nobody can tell whether that is the same person.
    sign_in(other)
    assert data_of(other) == {}


@pytest.mark.parametrize("is_signed_in", [True, False])
def test_async_views_streams_and_teardown(app: Flask, is_signed_in: bool) -> None:
    seen: list[Any] = []

    @app.get("/async")
    async def asynchronous() -> dict[str, Any]:
        return {"uid": current_user.uid}

    @app.get("/stream")
    def stream() -> Any:
        def body() -> Any:
            yield str(current_user.uid)

        return stream_with_context(body())

    @app.teardown_request
    def at_the_end(error: BaseException | None) -> None:
        if "late" in request.args:
            seen.append(current_user.uid)

    @app.teardown_appcontext
    def after_the_end(error: BaseException | None) -> None:
        g.last = current_user.uid

    expected = "u-1" if is_signed_in else None
    for path in ("/session?late=1", "/stream", "/async"):
        client = app.test_client()
        sign_in(client)
        put(client, cart="book")
        if not is_signed_in:
            clock.advance(1801)
        response = client.get(path)
        assert response.status_code == 200
        if path == "/async":
            assert response.get_json() == {"uid": expected}
        if path == "/stream":
            assert response.text == str(expected)
        # Too late for this response, but not for the next one.
        client.get("/who")
        assert data_of(client) == ({"cart": "book"} if is_signed_in else {})
    assert seen == [expected]


def test_a_session_on_the_server_gets_a_new_id(
    make_app: AppMaker, server: ScriptedServer, tmp_path: Path
) -> None:
    """With Flask-Session: an id from before the login or logout is worth nothing afterwards."""
    app = make_app()
    app.config["SESSION_TYPE"] = "cachelib"
    app.config["SESSION_CACHELIB"] = FileSystemCache(str(tmp_path / "sessions"))
    Session(app)
    client = add_views(app).test_client()
    old: list[str] = []

    @app.get("/note")
    def note() -> dict[str, Any]:
        found = {"uid": current_user.uid}
        session["note"] = "new"
        return found

    def session_id() -> str:
        found = client.get_cookie("session")
        return found.value if found else ""

    def data_of_old_ids() -> list[dict[str, Any]]:
        thief = app.test_client()
        found = []
        for value in old:
            thief.set_cookie("session", value)
            found.append(data_of(thief))
        return found

    put(client, cart="book")
    old.append(session_id())
    sign_in(client)
    assert session_id() not in ("", *old)
    assert data_of(client) == {"cart": "book"}
    assert data_of_old_ids() == [{}]

    old.append(session_id())
    another_login(client, server, "u-2")
    assert session_id() not in old
    assert data_of(client) == {}
    put(client, cart="pen")
    assert session_id() not in ("", *old)
    assert data_of_old_ids() == [{}, {}]

    old.append(session_id())
    clock.advance(1801)
    assert client.get("/note").get_json() == {"uid": None}
    assert session_id() not in ("", *old)
    assert data_of(client) == {"note": "new"}
    assert data_of_old_ids() == [{}, {}, {}]

    server.answers[GET_USER_INFO] = says(ADA)
    sign_in(client)
    put(client, cart="book")
    old.append(session_id())
    client.post("/sso/logout", headers=SAME)
    assert data_of(client) == {}
    assert data_of_old_ids() == [{}] * 4


@pytest.mark.parametrize("has_key", [True, False])
def test_a_session_that_flask_keeps_works_as_without_the_extension(
    make_app: AppMaker, has_key: bool
) -> None:
    """It is opened and saved in a shorter way as long as it has no cookie and nobody uses it."""
    plain = Flask("plain")
    plain.secret_key = SECRET_KEY
    ours = make_app()
    found: list[list[Any]] = []
    for app in (plain, ours):
        app.add_url_rule("/untouched", "untouched", lambda: "")
        app.add_url_rule("/read", "read", lambda: session.get("cart", ""))
        app.add_url_rule("/changed", "changed", lambda: session.update(cart="a") or "")
        app.add_url_rule("/cleared", "cleared", lambda: f"{session.pop('cart', None)}")
        # The extension extends the session's interface at the first request.
        app.test_client().get("/untouched")
        app.config["SECRET_KEY"] = SECRET_KEY if has_key else None
        app.testing = False
        client = app.test_client()
        seen: list[Any] = []
        for path in ("/untouched", "/read", "/changed", "/untouched", "/read", "/cleared", "/read"):
            response = client.get(path)
            # The error page of an application with the extension depends on the user.
            vary = response.status_code == 200 and response.headers.getlist("Vary")
            seen.append((response.status_code, response.text, vary))
            seen.append((changes_session(response), bool(value_of(client))))
        client.set_cookie("session", "not.a.session")
        seen.append((client.get("/read").text, value_of(client)))
        found.append(seen)
    assert found[0] == found[1]
    assert any(status == 500 for status, *_ in found[0][::2]) is not has_key
