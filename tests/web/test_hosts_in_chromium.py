"""Complete logins in Chromium, in applications with several hosts or below a path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from playwright.sync_api import Page, expect

from flask_devkit_sso import current_user, login_required

from .. import browser
from ..browser import Site, Watch, sends_back
from ..conftest import CODE, new_app
from ..scripted import GET_TOKEN, ScriptedServer

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# All hosts of the tests are this machine. Over http they are no secure contexts, so the browser
# does not say where a request comes from (Sec-Fetch-Site).
CHROMIUM = browser.CHROMIUM | {
    "args": [*browser.CHROMIUM["args"], "--host-resolver-rules=MAP *.test 127.0.0.1"]
}

Build = Callable[..., Flask]


@pytest.fixture
def build(server: ScriptedServer, tmp_path: Path, site: Site) -> Build:
    """Make an application for ``site``, with the options of :func:`new_app`."""
    server.answers["/sso/oauth2/authorize"] = sends_back()

    def make(redirect_uri: str, rule: dict[str, str] | None = None, **options: Any) -> Flask:
        options = {"DEVKIT_SSO_INSECURE_HTTP": True} | options
        app = new_app(server.url, tmp_path, redirect_uri, **options)

        @app.get("/", **(rule or {}))
        @app.get("/reports", **(rule or {}))
        @login_required
        def reports() -> str:
            return f"<!doctype html><title>app</title><h1>{current_user.username}</h1>"

        return app

    return make


def signs_in(page: Page, server: ScriptedServer, url: str, end: str) -> None:
    """Complete a login that starts at a page."""
    watch = Watch(page)
    page.goto(url)
    expect(page.locator("h1")).to_have_text("ada")
    assert page.url == end
    (exchange,) = [seen.json for seen in server.seen if seen.path == GET_TOKEN]
    assert exchange["authorization_code"] == CODE
    assert not any(CODE in url for url in watch.history())
    assert [text for text in watch.console if "favicon" not in text] == []


@pytest.mark.parametrize("back", ["/#/login", "/sso/callback#/login", "/sso/callback"])
def test_opened_at_www(
    build: Build, site: Site, server: ScriptedServer, page: Page, back: str
) -> None:
    site.app = build(site.url(back, "example.test"))
    start = site.url("/reports?x=1", "www.example.test")
    signs_in(page, server, start, site.url("/reports?x=1", "example.test"))


def test_host_matching(build: Build, site: Site, server: ScriptedServer, page: Page) -> None:
    host = f"app.test:{site.port}"
    options = {"host_matching": True, "static_host": host}
    site.app = build(f"http://{host}/#/login", {"host": host}, **options)
    url = f"http://{host}/reports?x=1"
    signs_in(page, server, url, url)


def test_subdomain_matching(build: Build, site: Site, server: ScriptedServer, page: Page) -> None:
    options = {"subdomain_matching": True, "SERVER_NAME": f"example.test:{site.port}"}
    host = "acme.example.test"
    site.app = build(site.url("/#/login", host), {"subdomain": "acme"}, **options)
    url = site.url("/reports?x=1", host)
    signs_in(page, server, url, url)


@pytest.mark.parametrize("back", ["/app/sso/callback#/login", "/app/#/login"])
def test_a_proxy_that_strips_the_path(
    build: Build, site: Site, server: ScriptedServer, page: Page, back: str
) -> None:
    """Neither SCRIPT_NAME nor X-Forwarded-Prefix says what it has stripped."""
    app = build(site.url(back), APPLICATION_ROOT="/app")

    def strip(environ: Any, start_response: Any) -> Any:
        if not environ["PATH_INFO"].startswith("/app/"):
            start_response("404 NOT FOUND", [("Content-Type", "text/plain")])
            return [b""]
        environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix("/app")
        return app(environ, start_response)

    site.app = strip
    signs_in(page, server, site.url("/app/reports?x=1"), site.url("/app/reports?x=1"))
