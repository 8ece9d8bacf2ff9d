"""The page after a login in Chromium: its hash, which servers never see, frames and downloads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask import Flask, request, session
from playwright.sync_api import BrowserContext, Page, expect

from flask_devkit_sso import current_user

from ..apps import run_first
from ..browser import CODE, Site, response_url
from ..conftest import AppMaker
from ..scenarios import ICON, serve_pages
from ..scripted import GET_TOKEN, TOKEN, ScriptedServer, fails, says

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SPECIAL = "#/list[1]{a|b}^`/报告?x='%zz%5B&y=//evil.example"

Serve = Callable[..., Flask]


@pytest.fixture
def serve(site: Site, server: ScriptedServer, make_app: AppMaker) -> Serve:
    """Serve the pages of :func:`serve_pages`, with a redirect URI with a fragment."""

    def serve_it(fragment: str = "/#/login", *, waits: bool = True, **settings: Any) -> Flask:
        return serve_pages(site, server, make_app, fragment, waits=waits, **settings)

    return serve_it


def press_if_asked(page: Page, settings: dict[str, str], name: str) -> None:
    if settings.get("binding") == "confirm":
        page.get_by_role("button", name=name).click(no_wait_after=True)


def in_browser(page: Page, url: str) -> str:
    """Return an address as the browser writes it."""
    return str(page.evaluate("url => new URL(url).href", url))


def stored(page: Page) -> list[str]:
    return list(page.evaluate("Object.values(sessionStorage)"))


@pytest.mark.parametrize(
    ("fragment", "binding", "path"),
    [
        ("/#/login", "state", "/?a=1"),
        ("/sso/callback#/login", "redirect_uri", "/page"),
        ("/sso/callback#/login", "confirm", "/page?a=1"),
    ],
)
def test_the_hash_stays_in_its_tab(
    serve: Serve, site: Site, context: BrowserContext, fragment: str, binding: str, path: str
) -> None:
    """It is neither sent nor changed, however long it is, and it is used once."""
    settings = {"binding": binding}
    app = serve(fragment, **settings)
    app.view_functions["home"] = app.view_functions["page"]
    sent: list[str] = []
    context.on("request", lambda request: sent.append(request.url + (request.post_data or "")))
    tabs = [(context.new_page(), SPECIAL), (context.new_page(), "#/" + "y" * 33_000)]
    for tab, requested in tabs:
        tab.goto(site.url(path + requested))
        press_if_asked(tab, settings, "Sign in")
        expect(tab.locator("#back")).to_be_visible()
    for tab, requested in tabs:
        tab.locator("#back").click()
        press_if_asked(tab, settings, "Continue as ada")
        expect(tab.locator("h1")).to_have_text("ada")
        assert tab.url == in_browser(tab, site.url(path + requested))
        assert not any("list" in value or "yyy" in value for value in stored(tab)), "it is used up"
    posts = [url for url in sent if "/sso/callback{" in url]
    assert len(posts) == 2
    assert not any("list" in url or "yyy" in url for url in posts)


@pytest.mark.parametrize(
    "fragment",
    ["#/login?code=LIVE&state=x", "#/login&error=x", "#code=LIVE", "#/x?error=", "#/x?a&code=LIVE"],
)
def test_an_authorization_response_is_never_stored(
    serve: Serve, site: Site, page: Page, fragment: str
) -> None:
    serve()
    page.goto(site.url("/page" + fragment))
    expect(page.locator("#back")).to_be_visible()
    back = page.locator("#back").get_attribute("href") or ""
    page.goto(site.url("/who"))
    assert not any("LIVE" in value or "error" in value for value in stored(page))
    page.goto(back, wait_until="commit")
    expect(page.locator("h1")).to_have_text("ada")
    assert page.url == site.url("/page")
    # When the session has ended, it may happen again: it is no loop.
    page.context.clear_cookies()
    page.goto(site.url("/page?again" + fragment))
    expect(page.locator("#back")).to_be_visible()


def test_another_login_does_not_restore_the_hash(
    serve: Serve, site: Site, context: BrowserContext, page: Page
) -> None:
    """The second login in this tab starts without our page, so it stores nothing."""
    serve()
    page.goto(site.url("/page#/first"))
    back = page.locator("#back").get_attribute("href") or ""
    started = context.request.get(site.url("/sso/authorize?next=/page?second"), max_redirects=0)
    second = response_url(urlsplit(started.headers["location"]).query)
    page.goto(second, wait_until="commit")
    expect(page.locator("h1")).to_have_text("ada")
    assert page.url == site.url("/page?second")
    page.goto(back, wait_until="commit")
    expect(page).to_have_url(site.url("/page#/first"))


def test_a_login_after_a_failure_keeps_the_hash(
    serve: Serve, site: Site, server: ScriptedServer, page: Page
) -> None:
    serve(waits=False)
    server.answers[GET_TOKEN] = fails("8500")
    page.goto(site.url("/page" + SPECIAL), wait_until="commit")
    expect(page.locator("html")).to_have_attribute("data-reason", "server_rejected")
    server.answers[GET_TOKEN] = says(TOKEN)
    page.get_by_role("link", name="Sign in again").click()
    expect(page.locator("h1")).to_have_text("ada")
    assert page.url == in_browser(page, site.url("/page" + SPECIAL))


@pytest.mark.parametrize(
    ("path", "by_flask", "binding"),
    [
        ("/download", True, "state"),
        ("/empty", False, "state"),
        ("/download", False, "confirm"),
        ("/empty", True, "confirm"),
    ],
)
def test_a_login_ends_at_a_download_or_an_empty_response(
    serve: Serve, site: Site, page: Page, path: str, by_flask: bool, binding: str
) -> None:
    """The person learns that they are signed in, and can go on."""
    settings = {"binding": binding}
    app = serve(waits=False, **settings)
    if not by_flask:
        spa = f"{ICON}<script src=/sso/landing.js></script><h1>spa</h1>"
        run_first(app, lambda: spa if request.path == "/" else None)
    page.goto(site.url(f"/sso/authorize?next={path}"), wait_until="commit")
    press_if_asked(page, settings, "Sign in")
    press_if_asked(page, settings, "Continue as ada")
    expect(page).to_have_title("You are signed in")
    expect(page.locator("h1")).to_have_text("You are signed in")
    link = page.get_by_role("link", name="Go to home page")
    expect(link).to_be_visible()
    # Not click(), which waits for two frames: on a busy machine, headless Chromium sometimes draws
    # no more of them after a navigation that led to no page.
    link.dispatch_event("click")
    expect(page).to_have_url(site.url("/"))
    assert CODE not in page.content()


def test_a_frame_opens_the_login_in_the_top_window(serve: Serve, site: Site, page: Page) -> None:
    """Afterwards the frame shows what was requested, in the page around it."""
    serve("/sso/callback#/login")
    page.goto(site.url("/framing?a[]=1"))
    frame = page.frame_locator("iframe")
    expect(frame.locator("h1")).to_have_text("Please sign in")
    frame.get_by_role("link", name="Sign in").click()
    page.locator("#back").click()
    expect(frame.locator("h1")).to_have_text("ada")
    assert page.url == site.url("/framing?a%5B%5D=1")


def test_a_frame_of_another_site_does_not_clear_flasks_session(
    serve: Serve, site: Site, page: Page
) -> None:
    """Requests from our page in it come from the same origin, but carry no SameSite=Lax cookie."""
    app = serve("/sso/callback", waits=False)
    app.config.update(SESSION_COOKIE_SAMESITE="None", SESSION_COOKIE_SECURE=True)
    fetching = f"{ICON}<script>fetch('/fetched')</script>"
    app.add_url_rule("/fetched", "fetched", lambda: f"{current_user.uid}")
    app.add_url_rule("/fetching", "fetching", lambda: fetching)
    app.add_url_rule("/write", "write", lambda: {"before": session.setdefault("cart", 1)})
    app.add_url_rule("/data", "data", lambda: list(session))
    other = f"{ICON}<iframe src='{site.url('/fetching')}'></iframe>"
    app.add_url_rule("/other", "other", lambda: other)
    page.goto(site.url("/page"))
    expect(page.locator("h1")).to_have_text("ada")
    page.goto(site.url("/write"))
    with page.expect_response("**/fetched"):
        page.goto(site.url("/other", "127.0.0.1"))
    page.goto(site.url("/data"))
    expect(page.locator("body")).to_contain_text("_devkit_sso_user")


def test_a_frame_of_another_site(serve: Serve, site: Site, page: Page) -> None:
    """The login returns to the page in the frame, because the page around it is not ours."""
    serve("/sso/callback#/login")
    other = Site()
    other.app = Flask("other")
    framing = f"{ICON}<iframe src='{site.url('/page')}'></iframe>"
    other.app.add_url_rule("/", "framing", lambda: framing)
    try:
        page.goto(other.url("/", "127.0.0.1"))
        frame = page.frame_locator("iframe")
        frame.get_by_role("link", name="Sign in").click()
        page.locator("#back").click()
        expect(page.locator("h1")).to_have_text("ada")
        assert page.url == site.url("/page")
    finally:
        other.stop()
