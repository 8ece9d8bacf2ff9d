from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Generator, Iterator
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from werkzeug.test import Cookie, TestResponse

from flask_devkit_sso import DevKitSSO, current_user, login_required, role_required

from . import clock
from .browser import CHROMIUM, Site
from .browser import CODE as CODE
from .redis_server import Proxy, RedisServer
from .scripted import ScriptedServer

SECRET_KEY = "0d9f6b1ac54e2378-no-one-knows-this"
CLIENT_ID = "20221017000000001"
CLIENT_SECRET = "canary-client-secret-e41d"
REDIRECT_URI = "http://localhost/sso/callback"

AppMaker = Callable[..., Flask]

# Long enough for a busy machine: only a failing test waits this long.
PATIENCE = 60_000
expect.set_options(timeout=PATIENCE)


clock.install()

# Reading the system's CA certificates takes 50 ms for each application and each process, and no
# server in the tests uses them.
os.environ["SSL_CERT_FILE"] = os.environ["SSL_CERT_DIR"] = os.devnull


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out what needs more libraries, unless it is named, as in ``make integration``."""
    is_named = any("integration" in argument for argument in config.args)
    return True if collection_path.name == "integration" and not is_named else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need Redis, so that ``make quick`` can skip them."""
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        if "redis_server" in getattr(item, "fixturenames", ()) or "redis" in params.values():
            item.add_marker(pytest.mark.redis)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    """Keep the audit trail out of caplog, which has the ordinary log.

    pytest adds its handler to loggers that do not propagate. This one stops with its next line.
    """
    logging.getLogger("flask_devkit_sso.audit").propagate = True
    return (yield)


@pytest.fixture(autouse=True)
def present_time() -> Iterator[None]:
    """Start each test in real time."""
    yield
    clock.reset()


# Not for the whole session: while Playwright runs, this thread has an event loop, and Flask cannot
# run async views in it.
@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    """Chromium: headless, unless the module sets ``CHROMIUM``."""
    options = getattr(request.module, "CHROMIUM", CHROMIUM)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(**options)
        yield running
        running.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    # Chromium does not know the CA of the tests' certificates.
    new = browser.new_context(ignore_https_errors=True)
    new.set_default_timeout(PATIENCE)
    yield new
    new.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


@pytest.fixture
def site() -> Iterator[Site]:
    running = Site()
    yield running
    running.stop()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    running = ScriptedServer()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    running = RedisServer(tmp_path_factory.mktemp("redis"))
    yield running
    running.stop()


@pytest.fixture
def redis_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """An empty Redis: the shared one, or a separate one for tests marked own_redis."""
    if request.node.get_closest_marker("own_redis") is None:
        shared: RedisServer = request.getfixturevalue("shared_redis")
        with shared.admin() as admin:
            admin.flushall()
        yield shared
        return
    folder = request.getfixturevalue("tmp_path") / "redis"
    folder.mkdir()
    running = RedisServer(folder)
    yield running
    running.stop()


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    running = Proxy(redis_server)
    yield running
    running.close()


@pytest.fixture(params=["sqlite", "redis"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a store, of each kind in turn."""
    if request.param == "redis":
        url: str = request.getfixturevalue("redis_server").url
        return url
    return f"sqlite:///{tmp_path}/devkit_sso.db"


def new_app(server_url: str, folder: Path, redirect_uri: str | None, **options: Any) -> Flask:
    """Make an application without views. Names in upper case are Flask's settings or ours, and
    names in lower case are arguments of ``Flask``."""
    arguments = {name: value for name, value in options.items() if name.islower()}
    app = Flask("tests", instance_path=str(folder), **arguments)
    app.config.update(
        SECRET_KEY=SECRET_KEY,
        DEVKIT_SSO_CLIENT_ID=CLIENT_ID,
        DEVKIT_SSO_CLIENT_SECRET=CLIENT_SECRET,
        DEVKIT_SSO_SERVER_URL=server_url,
    )
    if redirect_uri is not None:
        app.config["DEVKIT_SSO_REDIRECT_URI"] = redirect_uri
    app.config.update({name: value for name, value in options.items() if name.isupper()})
    DevKitSSO(app)
    return app


@pytest.fixture
def make_app(server: ScriptedServer, tmp_path: Path) -> AppMaker:
    """Make an application with a few views; settings have no prefix, and None means unset."""

    def make(sso: DevKitSSO | None = None, **settings: Any) -> Flask:
        app = Flask("tests", instance_path=str(tmp_path))
        given = {
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "server_url": server.url,
            "redirect_uri": REDIRECT_URI,
        } | settings
        app.config["SECRET_KEY"] = SECRET_KEY
        app.config.update({f"DEVKIT_SSO_{k.upper()}": v for k, v in given.items() if v is not None})
        (sso or DevKitSSO()).init_app(app)

        @app.get("/")
        def home() -> str:
            return "home"

        @app.get("/who")
        def who() -> dict[str, Any]:
            return {
                "is_authenticated": current_user.is_authenticated,
                "uid": current_user.uid,
                "username": current_user.username,
                "role": current_user.role,
                "is_admin": current_user.is_admin,
            }

        @app.route("/private", methods=["GET", "POST"])
        @login_required
        def private() -> str:
            return f"private {current_user.username}"

        @app.get("/admin")
        @role_required("Admin")
        def admin() -> str:
            return "admin"

        return app

    return make


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    return make_app()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def wait_until(what: Callable[[], object], seconds: float = 60) -> None:
    # A test may have stopped time.monotonic.
    until = time.perf_counter() + seconds
    while not what():
        assert time.perf_counter() < until
        time.sleep(0.02)


def cookies(client: FlaskClient) -> list[Cookie]:
    """Return the extension's own cookies in a browser, without Flask's."""
    found = client._cookies.values() if client._cookies else []
    return [cookie for cookie in found if cookie.key != "session"]


def carry_cookies(source: FlaskClient, target: FlaskClient) -> None:
    """Copy the cookies of one browser to another."""
    for cookie in cookies(source):
        target.set_cookie(cookie.key, cookie.value)


def start(client: FlaskClient, next_url: str | None = None, **kwargs: Any) -> dict[str, str]:
    """Start a login and return the query of the authorize URL."""
    query = None if next_url is None else {"next": next_url}
    response = client.get("/sso/authorize", query_string=query, **kwargs)
    if response.status_code == 200:
        # The binding confirm: a page with a button.
        kwargs["headers"] = {**kwargs.get("headers", {}), "Sec-Fetch-Site": "same-origin"}
        response = client.post("/sso/authorize", query_string=query, **kwargs)
        location = leads_to(response)
    else:
        assert response.status_code == 303, response.text
        location = response.location
    pairs = parse_qs(urlsplit(location).query, strict_parsing=True)
    assert all(len(values) == 1 for values in pairs.values())
    return {name: values[0] for name, values in pairs.items()}


def leads_to(response: TestResponse) -> str:
    """Return the address to which a page leads by itself."""
    assert response.status_code == 200, response.text
    (found,) = re.findall(r'content="0; url=(.*?)"|data-authorize="(.*?)"', response.text)
    return unescape("".join(found))


def come_back(client: FlaskClient, state: str, code: str = CODE, **kwargs: Any) -> TestResponse:
    """Return from the authentication server with a code."""
    return client.get("/sso/callback", query_string={"code": code, "state": state}, **kwargs)


def sign_in(client: FlaskClient, next_url: str | None = None) -> TestResponse:
    """Complete a login and return its last response."""
    response = come_back(client, start(client, next_url)["state"])
    assert response.status_code == 303, response.text
    return response


SIGNED_IN = "/sso/logout?stray=1"
"""The page that says who is signed in after a stray response."""


def reason(response: TestResponse) -> str:
    """Return the reason of the failure that a page shows."""
    start_of = response.text.index('data-reason="') + len('data-reason="')
    return response.text[start_of : response.text.index('"', start_of)]
