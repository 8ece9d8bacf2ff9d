"""Applications with other extensions, settings and proxies.

Each test is a complete login in Chromium, which returns the code in the fragment of the home page
and starts and ends at a page with a hash route, and a logout.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trustme
from cachelib.file import FileSystemCache
from flask import Flask, Response, redirect, render_template_string, request, session
from flask_cors import CORS
from flask_login import LoginManager
from flask_session import Session
from flask_talisman import Talisman
from flask_wtf import CSRFProtect
from playwright.sync_api import Page, expect
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_devkit_sso import DevKitSSO, current_user, login_required

from ..browser import Site, TlsProxy, Watch, sends_back
from ..conftest import CLIENT_ID, CLIENT_SECRET, CODE, SECRET_KEY
from ..scripted import GET_TOKEN, ScriptedServer

pytestmark = [pytest.mark.browser, pytest.mark.slow]

AUTHORIZE = "/sso/oauth2/authorize"

Extend = Callable[[Flask], object]
Build = Callable[..., Flask]


@pytest.fixture
def build(server: ScriptedServer, tmp_path: Path) -> Build:
    """Make an application with a public home page, to which the redirect_uri points."""

    def make(
        redirect_uri: str,
        *,
        before: Extend | None = None,
        after: Extend | None = None,
        sso: DevKitSSO | None = None,
        **config: Any,
    ) -> Flask:
        app = Flask("tests", instance_path=str(tmp_path), static_folder=str(tmp_path / "static"))
        app.config.update(
            SECRET_KEY=SECRET_KEY,
            DEVKIT_SSO_CLIENT_ID=CLIENT_ID,
            DEVKIT_SSO_CLIENT_SECRET=CLIENT_SECRET,
            DEVKIT_SSO_SERVER_URL=server.url,
            DEVKIT_SSO_REDIRECT_URI=redirect_uri,
        )
        app.config.update(config)
        if before:
            before(app)
        (sso or DevKitSSO()).init_app(app)
        if after:
            after(app)

        @app.get("/")
        def home() -> str:
            session["visits"] = session.get("visits", 0) + 1
            return f"<!doctype html><title>app</title><h1>{current_user.username or 'nobody'}</h1>"

        @app.get("/reports")
        @login_required
        def reports() -> str:
            return render_template_string(
                "<!doctype html><title>app</title><h1>{{ devkit_sso.current_user.username }}</h1>"
            )

        @app.get("/favicon.ico")
        def favicon() -> tuple[str, int]:
            return "", 204

        return app

    server.answers[AUTHORIZE] = sends_back()
    return make


@pytest.fixture(scope="module")
def tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def tls_site(tls: ssl.SSLContext) -> Iterator[Site]:
    running = Site(tls)
    yield running
    running.stop()


def signs_in_and_out(page: Page, server: ScriptedServer, base: str) -> None:
    """Complete a login, with the application at ``base``, and a logout."""
    watch = Watch(page)
    page.goto(f"{base}/reports#/files?x=1")
    expect(page.locator("h1")).to_have_text("ada")
    assert page.url == f"{base}/reports#/files?x=1"
    (exchange,) = [seen.json for seen in server.seen if seen.path == GET_TOKEN]
    assert exchange["authorization_code"] == CODE
    assert not any(CODE in url for url in watch.history())
    assert not any(CODE in referer for referer in watch.referers)
    page.goto(f"{base}/")
    expect(page.locator("h1")).to_have_text("ada")
    page.goto(f"{base}/sso/logout")
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("html")).to_have_attribute("data-outcome", "told")
    page.goto(f"{base}/")
    expect(page.locator("h1")).to_have_text("nobody")
    assert watch.console == []


def csrf(app: Flask) -> None:
    CSRFProtect(app)


def cors(app: Flask) -> None:
    CORS(app, supports_credentials=True)


def flask_login(app: Flask) -> None:
    manager = LoginManager(app)
    manager.login_view = "home"

    @manager.user_loader
    def load(user_id: str) -> None:
        return None


def flask_session(app: Flask) -> None:
    app.config["SESSION_TYPE"] = "cachelib"
    app.config["SESSION_CACHELIB"] = FileSystemCache(str(Path(app.instance_path) / "sessions"))
    Session(app)


def moved_home(app: Flask) -> None:
    """Redirect from the path of the redirect_uri, so that its view is never called."""

    @app.before_request
    def move() -> Any:
        return redirect("/start") if request.path == "/" and not current_user.uid else None

    @app.get("/start")
    def start() -> str:
        return "<!doctype html><title>app</title><h1>nobody</h1>"


def redirects_everybody_to_the_login(app: Flask) -> None:
    """Add the application's own guard, which lets anonymous people only reach the login routes."""

    @app.before_request
    def check() -> Any:
        ours = (request.blueprint or "").startswith("devkit_sso_")
        if ours or request.path in ("/", "/favicon.ico") or current_user.is_authenticated:
            return None
        return redirect("/sso/authorize?next=" + request.path)


def canonical(app: Flask) -> None:
    """Redirect each URL that has a query or another host."""

    @app.before_request
    def check() -> Any:
        if request.host.partition(":")[0] != "localhost":
            return redirect("http://localhost" + request.full_path)
        return redirect(request.path) if request.path == "/" and request.args else None


def extensions(app: Flask) -> None:
    for extend in (csrf, cors, flask_login, flask_session):
        extend(app)


def all_of_them(app: Flask) -> None:
    extensions(app)
    moved_home(app)


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize(
    "extend", [extensions, moved_home, redirects_everybody_to_the_login, canonical]
)
def test_with_other_extensions(
    build: Build, site: Site, server: ScriptedServer, page: Page, extend: Extend, order: str
) -> None:
    site.app = build(site.url("/#/login"), **{order: extend})
    signs_in_and_out(page, server, site.url(""))


@pytest.mark.parametrize(
    ("extend", "position"), [(csrf, "end"), (moved_home, "query"), (canonical, "query")]
)
def test_with_other_extensions_and_confirm(
    build: Build, site: Site, server: ScriptedServer, page: Page, extend: Extend, position: str
) -> None:
    """With the binding confirm, its form works, also if the code comes before the fragment."""
    site.app = build(site.url("/#/login"), before=extend, DEVKIT_SSO_BINDING="confirm")
    server.answers[AUTHORIZE] = sends_back(position=position, echo_state=False)
    page.goto(site.url("/reports#/files"))
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Continue as ada").click()
    expect(page.locator("h1")).to_have_text("ada")
    assert page.url == site.url("/reports#/files")


def test_cors_exposes_no_login_routes(
    build: Build, site: Site, server: ScriptedServer, page: Page
) -> None:
    """A foreign page that may read the application's pages with cookies still cannot sign in."""
    site.app = build(site.url("/#/login"), before=cors, SESSION_COOKIE_SAMESITE="None")
    server.answers[AUTHORIZE] = sends_back(wait=True)
    evil = Site()
    evil.app = Flask("evil")
    try:
        page.goto(site.url("/sso/authorize"))
        state = (page.locator("#back").get_attribute("href") or "").rpartition("state=")[2]
        page.goto(evil.url())
        status = page.evaluate(
            """async ([url, state]) => {
              const body = JSON.stringify({code: ["EVIL"], state: [state]});
              const headers = {"Content-Type": "application/json"};
              const how = {method: "POST", credentials: "include", headers, body};
              const told = await fetch(url, how);
              return [told.status, (await told.json()).error];
            }""",
            [site.url("/sso/callback"), state],
        )
    finally:
        evil.stop()
    assert status == [403, "cross_site"]
    assert GET_TOKEN not in server.paths


def test_flask_login_keeps_its_current_user(build: Build) -> None:
    app = build("http://localhost/#/login", after=flask_login)

    @app.get("/both")
    def both() -> str:
        return render_template_string(
            "{{ current_user.is_anonymous }} {{ devkit_sso.current_user.is_authenticated }}"
        )

    assert app.test_client().get("/both").text == "True False"


@pytest.mark.parametrize("order", ["before", "after"])
def test_talisman(
    build: Build, tls_site: Site, server: ScriptedServer, page: Page, order: str
) -> None:
    """By default Talisman forces https and sets Content-Security-Policy and other headers."""
    tls_site.app = build(tls_site.url("/#/login"), **{order: Talisman})
    signs_in_and_out(page, server, tls_site.url(""))


def test_talisman_without_tls(build: Build, site: Site, server: ScriptedServer, page: Page) -> None:
    site.app = build(site.url("/#/login"), after=lambda app: Talisman(app, force_https=False))
    signs_in_and_out(page, server, site.url(""))


def test_talismans_headers_do_not_replace_our_policies(build: Build) -> None:
    app = build("http://localhost/#/login", after=lambda app: Talisman(app, force_https=False))
    client = app.test_client()
    client.get("/sso/authorize")
    headers = {"Accept": "text/html", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "none"}
    landing = client.get("/", headers=headers)
    assert 'data-devkit-sso-onward="' in landing.text
    assert landing.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert landing.headers["Referrer-Policy"] == "no-referrer"
    assert landing.headers["X-Frame-Options"] == "DENY"
    # A proxy may replace the headers as well.
    assert (
        '<meta http-equiv="Content-Security-Policy" content="default-src &#39;none&#39;'
        in landing.text
    )
    assert '<meta name="referrer" content="no-referrer">' in landing.text


# Our cookies have settings of their own.
SETTINGS: list[dict[str, Any]] = [
    {"SESSION_COOKIE_DOMAIN": "localhost", "SESSION_REFRESH_EACH_REQUEST": False},
    {
        "SESSION_COOKIE_DOMAIN": "example.com",
        "SESSION_COOKIE_PATH": "/elsewhere",
        "SESSION_COOKIE_SECURE": True,
        "SESSION_COOKIE_PARTITIONED": True,
    },
    {
        "SESSION_COOKIE_NAME": "sid",
        "SESSION_COOKIE_SAMESITE": "Strict",
        "SESSION_COOKIE_HTTPONLY": False,
        "PREFERRED_URL_SCHEME": "https",
    },
    {"SERVER_NAME": "localhost"},
    {"SERVER_NAME": "www.example.com", "APPLICATION_ROOT": "/app"},
    {"DEVKIT_SSO_URL_PREFIX": "/auth/devkit"},
]


@pytest.mark.parametrize("config", SETTINGS, ids=lambda config: " ".join(config))
def test_settings_of_flask(
    build: Build, site: Site, server: ScriptedServer, page: Page, config: dict[str, Any]
) -> None:
    if config.get("SERVER_NAME") == "localhost":
        config = {"SERVER_NAME": f"localhost:{site.port}"}
    site.app = build(site.url("/#/login"), **config)
    if "DEVKIT_SSO_URL_PREFIX" in config:
        page.goto(site.url("/reports#/files?x=1"))
        expect(page.locator("h1")).to_have_text("ada")
        assert page.url == site.url("/reports#/files?x=1")
    else:
        signs_in_and_out(page, server, site.url(""))


@pytest.mark.parametrize(
    ("prefix", "back", "config"),
    [
        ("/app", "/app#/login", {}),
        ("/app", "/app/#/login", {"APPLICATION_ROOT": "/app"}),
        ("/größe/x y", "/gr%C3%B6%C3%9Fe/x%20y/#/login", {}),
        ("/app", "/app/nowhere#/login", {}),
    ],
)
def test_below_a_prefix(
    build: Build,
    site: Site,
    server: ScriptedServer,
    page: Page,
    prefix: str,
    back: str,
    config: dict[str, Any],
) -> None:
    other = Flask("other")
    other.add_url_rule("/favicon.ico", view_func=lambda: ("", 204), endpoint="favicon")
    mount = prefix.encode().decode("latin-1")
    site.app = DispatcherMiddleware(other, {mount: build(site.url(back), **config)})
    signs_in_and_out(page, server, site.url(quote(prefix)))


def test_two_applications_below_prefixes(
    build: Build, site: Site, server: ScriptedServer, page: Page
) -> None:
    """They share a host and therefore the browser's cookies, but not their logins."""
    apps = {name: build(site.url(f"/{name}/#/login")) for name in ("one", "two")}
    site.app = DispatcherMiddleware(Flask("other"), {f"/{name}": apps[name] for name in apps})
    for name in apps:
        page.goto(site.url(f"/{name}/"))
        expect(page.locator("h1")).to_have_text("nobody")
        page.goto(site.url(f"/{name}/reports#/x"))
        expect(page.locator("h1")).to_have_text("ada")
        assert page.url == site.url(f"/{name}/reports#/x")


# Every pair of values.
PROXIES = [
    (None, True, False),
    (None, False, True),
    ("127.0.0.1:5000", False, False),
    ("127.0.0.1:5000", True, True),
    ("app", True, False),
    ("app", False, True),
    ("evil.example", False, False),
    ("evil.example", True, True),
]


@pytest.mark.parametrize(("host", "forwarded", "fixed"), PROXIES)
def test_behind_a_tls_proxy(
    build: Build,
    tls: ssl.SSLContext,
    site: Site,
    server: ScriptedServer,
    page: Page,
    host: str | None,
    forwarded: bool,
    fixed: bool,
) -> None:
    """redirect_uri, cookie flags and links follow the settings."""
    proxy = TlsProxy(tls, site, host=host, forwarded=forwarded)
    try:
        app = build(proxy.url("/#/login"))
        if fixed:
            app.wsgi_app = ProxyFix(app.wsgi_app, x_host=1, x_prefix=1)  # type: ignore[method-assign]
        site.app = app
        signs_in_and_out(page, server, proxy.url(""))
        (sent,) = [seen.path for seen in server.seen if seen.path.startswith(AUTHORIZE)]
        assert f"redirect_uri=https%3A%2F%2Flocalhost%3A{proxy.server_port}%2F%23%2Flogin" in sent
        assert proxy.redirects
        for url in proxy.redirects:
            assert url.startswith(("/", proxy.url("/"), server.url)), url
        ours = [cookie for cookie in proxy.cookies if "devkit_sso_" in cookie]
        assert len(ours) >= 4
        for cookie in ours:
            assert cookie.startswith("__Host-"), cookie
            assert "; Secure; HttpOnly; Path=/; SameSite=Lax" in cookie
            assert "Domain" not in cookie
    finally:
        proxy.stop()


def test_behind_a_tls_proxy_that_strips_a_prefix(
    build: Build, tls: ssl.SSLContext, site: Site, server: ScriptedServer, page: Page
) -> None:
    proxy = TlsProxy(tls, site, forwarded=True, prefix="/app")
    try:
        app = build(proxy.url("/#/login"), before=Talisman)
        app.wsgi_app = ProxyFix(app.wsgi_app, x_host=1, x_prefix=1)  # type: ignore[method-assign]
        site.app = app
        signs_in_and_out(page, server, proxy.url(""))
    finally:
        proxy.stop()


def test_testing_set_late(build: Build, site: Site, server: ScriptedServer, page: Page) -> None:
    app = build(site.url("/#/login"), SECRET_KEY="dev", DEVKIT_SSO_STORE_URL="memory://")
    site.app = app
    page.goto(site.url("/sso/authorize"))
    assert page.locator("html").get_attribute("data-reason") == "not_configured"
    app.testing = True
    signs_in_and_out(page, server, site.url(""))


def test_a_protected_application(
    build: Build, site: Site, server: ScriptedServer, page: Page, tmp_path: Path
) -> None:
    """Static files and health checks stay public in a protected application."""
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "app.css").write_text("h1 { color: green }")
    sso = DevKitSSO()
    app = build(site.url("/#/login"), sso=sso, before=all_of_them)
    sso.protect(app, public=("static", "healthz", "favicon"))
    app.add_url_rule("/healthz", "healthz", lambda: Response("ok", mimetype="text/plain"))
    site.app = app
    for path, text in (("/static/app.css", "h1 { color: green }"), ("/healthz", "ok")):
        page.goto(site.url(path))
        assert page.locator("body").inner_text() == text
    page.goto(site.url("/reports#/files?x=1"))
    expect(page.locator("h1")).to_have_text("ada")
    assert page.url == site.url("/reports#/files?x=1")
    page.goto(site.url("/#/there"))
    expect(page.locator("h1")).to_have_text("ada")
    page.context.clear_cookies()
    page.goto(site.url("/#/there"))
    expect(page.locator("h1")).to_have_text("ada")
    assert page.url == site.url("/#/there")
    page.goto(site.url("/healthz"))
    assert page.locator("body").inner_text() == "ok"
    unsigned = json.loads(app.test_client().get("/reports", headers={"Accept": "*/*"}).text)
    assert unsigned["error"] == "login_required"
