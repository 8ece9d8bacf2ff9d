"""The page after a login in Firefox. See tests/web/test_returning_in_chromium.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask import Flask, request

from ..browser import CODE, Site, response_url
from ..conftest import AppMaker
from ..scenarios import ICON, exchanged, serve_pages
from ..scripted import ScriptedServer
from .firefox import Tab

SPECIAL = "#/list[1]{a|b}^`/报告?x='%zz%5B&y=//evil.example"

Serve = Callable[..., Flask]


@pytest.fixture
def serve(site: Site, server: ScriptedServer, make_app: AppMaker) -> Serve:
    def serve_it(fragment: str, **settings: Any) -> Flask:
        return serve_pages(site, server, make_app, fragment, **settings)

    return serve_it


@pytest.fixture
def other_site() -> Iterator[Site]:
    running = Site()
    yield running
    running.stop()


def bodies_of(site: Site) -> list[bytes]:
    """Record each address and body that a site receives."""
    app, received = site.app, []
    assert app is not None

    def watched(environ: Any, start_response: Any) -> Any:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        received.append(environ["REQUEST_URI"].encode() + body)
        environ["wsgi.input"] = BytesIO(body)
        return app(environ, start_response)

    site.app = watched
    return received


def in_browser(tab: Tab, url: str) -> str:
    """Return an address as the browser writes it."""
    return str(tab.evaluate(f"new URL({json.dumps(url)}).href"))


def stored(tab: Tab) -> str:
    return "".join(tab.evaluate("Object.values(sessionStorage)"))


@pytest.mark.parametrize(
    ("fragment", "path"), [("/#/login", "/?a=1"), ("/sso/callback#/login", "/page")]
)
def test_the_hash_stays_in_its_tab(
    serve: Serve, site: Site, server: ScriptedServer, tab: Tab, fragment: str, path: str
) -> None:
    """It is neither sent nor changed, however long it is, and it is used once."""
    app = serve(fragment)
    app.view_functions["home"] = app.view_functions["page"]
    received = bodies_of(site)
    tabs = [(tab, SPECIAL), (tab.another(), "#/" + "y" * 33_000)]
    for opened, requested in tabs:
        opened.goto(site.url(path + requested), wait="none")
        opened.wait_for("document.querySelector('#back') != null")
    for opened, requested in tabs:
        opened.press("back")
        opened.wait_for_text("ada")
        assert opened.url == in_browser(opened, site.url(path + requested))
        assert "list" not in stored(opened)
        assert "y" * 30 not in stored(opened), "it is used up"
    assert not any(b"list" in text or b"yyy" in text for text in received)
    assert len(exchanged(server)) == 2


def test_another_login_does_not_restore_the_hash(serve: Serve, site: Site, tab: Tab) -> None:
    """A login that another tab started ends in this tab, while this tab's own login is pending."""
    serve("/#/login")
    tab.goto(site.url("/page#/first"), wait="none")
    tab.wait_for("document.querySelector('#back') != null")
    back = tab.evaluate("document.querySelector('#back').href")
    other = tab.another()
    other.goto(site.url("/sso/authorize?next=/page?second"))
    other.wait_for("document.querySelector('#back') != null")
    second = response_url(urlsplit(other.url).query)
    tab.goto(second, wait="none")
    tab.wait_for_url(site.url("/page?second"))
    tab.wait_for_text("ada")
    tab.goto(back, wait="none")
    tab.wait_for_url(site.url("/page#/first"))


def test_an_authorization_response_is_never_stored(serve: Serve, site: Site, tab: Tab) -> None:
    serve("/#/login")
    tab.goto(site.url("/page#/login?code=LIVE&state=x"), wait="none")
    tab.wait_for("document.querySelector('#back') != null")
    back = tab.evaluate("document.querySelector('#back').href")
    tab.goto(site.url("/who"))
    assert "LIVE" not in stored(tab)
    tab.goto(back, wait="none")
    tab.wait_for_url(site.url("/page"))
    tab.wait_for_text("ada")


@pytest.mark.parametrize("path", ["/download", "/empty"])
@pytest.mark.parametrize("is_front_end", [False, True], ids=["landing-page", "front-end"])
def test_a_login_ends_at_a_download_or_an_empty_response(
    serve: Serve, site: Site, tab: Tab, is_front_end: bool, path: str
) -> None:
    """The person learns that they are signed in, and can go on."""
    app = serve("/#/login", waits=False)
    if is_front_end:
        html = f"{ICON}<script src=/sso/landing.js></script><h1>front end</h1>"
        app.before_request_funcs[None].insert(0, lambda: html if request.path == "/" else None)
    tab.goto(site.url(f"/sso/authorize?next={path}"), wait="none")
    tab.wait_for("document.title == 'You are signed in'")
    tab.wait_for_text("You are signed in")
    assert not tab.evaluate("document.body.innerText.includes('Signing in')")
    tab.press("Go to home page")
    tab.wait_for_url(site.url("/"))
    assert CODE not in tab.evaluate("document.documentElement.outerHTML")


def test_a_frame_opens_the_login_in_the_top_window(
    serve: Serve, site: Site, other_site: Site, tab: Tab
) -> None:
    """Afterwards the frame shows what was requested, in the page around it if that is ours."""
    serve("/sso/callback#/login")
    tab.goto(site.url("/framing?a[]=1"))
    frame = tab.frame()
    frame.wait_for_text("Please sign in")
    frame.press("Sign in")
    tab.press("back")
    tab.frame().wait_for_text("ada")
    assert tab.url == site.url("/framing?a%5B%5D=1")
    # In a page of another site, the frame has no cookies of ours, but the top window has.
    other_site.app = Flask("other")
    framing = f"{ICON}<iframe src='{site.url('/page')}'></iframe>"
    other_site.app.add_url_rule("/", "framing", lambda: framing)
    tab.goto(other_site.url("/", "127.0.0.1"))
    tab.frame().press("Sign in")
    tab.wait_for_url(site.url("/page"))
    tab.wait_for_text("ada")
