"""The forms of our pages in Chromium, which blocks redirects to other sites after a form."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from flask import Flask, redirect
from playwright.sync_api import Page, expect
from werkzeug.wrappers import Response

from ..browser import Site, Watch, sends_back
from ..conftest import AppMaker
from ..scripted import LOGOUT, ScriptedServer

pytestmark = [pytest.mark.browser, pytest.mark.slow]

AUTHORIZE = "/sso/oauth2/authorize"


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The address of a page on another site."""
    other = Site()
    other.app = Flask("elsewhere")
    other.app.add_url_rule("/", view_func=lambda: "<h1>elsewhere</h1>", endpoint="home")
    yield other.url(host="127.0.0.1")
    other.stop()


@pytest.fixture
def serve(
    make_app: AppMaker, site: Site, server: ScriptedServer, elsewhere: str
) -> Callable[..., None]:
    """Serve an application whose page ``/away`` redirects to the other site."""

    def serve_it(**settings: str) -> None:
        app = make_app(redirect_uri=site.url("/sso/callback"), **settings)

        @app.get("/away")
        def away() -> Response:
            return redirect(elsewhere)

        site.app = app
        is_confirm = settings.get("binding") == "confirm"
        server.answers[AUTHORIZE] = sends_back(echo_state=not is_confirm)

    return serve_it


@pytest.mark.parametrize("after", ["elsewhere", "/away", "/private"])
def test_a_logout_leads_to_another_site(
    serve: Callable[..., None],
    site: Site,
    server: ScriptedServer,
    page: Page,
    elsewhere: str,
    after: str,
) -> None:
    """The page after it is at another site, or redirects there, as a guarded page does."""
    serve(after_logout_url=elsewhere if after == "elsewhere" else after)
    watch = Watch(page)
    page.goto(site.url("/private"))
    expect(page.locator("body")).to_have_text("private ada")
    server.answers[AUTHORIZE] = sends_back(wait=True)
    page.goto(site.url("/sso/logout"))
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("h1")).to_have_text("Sign in" if after == "/private" else "elsewhere")
    assert server.paths.count(LOGOUT) == 1
    assert watch.console == []


@pytest.mark.parametrize(("next_url", "heading"), [("/away", "elsewhere"), ("/#/files", None)])
def test_confirm_leads_to_the_server_and_to_another_site(
    serve: Callable[..., None],
    site: Site,
    page: Page,
    next_url: str,
    heading: str | None,
) -> None:
    serve(binding="confirm")
    watch = Watch(page)
    page.goto(site.url("/sso/authorize?next=" + next_url.replace("#", "%23")))
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Continue as ada").click()
    if heading:
        expect(page.locator("h1")).to_have_text(heading)
    else:
        expect(page.locator("body")).to_have_text("home")
        assert page.url == site.url(next_url)
    assert watch.console == []


@pytest.mark.parametrize("method", ["get", "post"])
def test_a_form_of_a_page_with_a_policy_leads_to_the_login(
    serve: Callable[..., None], site: Site, page: Page, method: str
) -> None:
    """Without a page of ours in between, nothing would happen after the click."""
    serve()
    assert isinstance(site.app, Flask)

    @site.app.get("/form")
    def form() -> tuple[str, dict[str, str]]:
        text = f'<form method="{method}" action="/save"><button>Save</button></form>'
        return text, {"Content-Security-Policy": "form-action 'self'"}

    @site.app.route("/save", methods=["GET", "POST"])
    def save() -> Response:
        return redirect("/private", 303)

    page.goto(site.url("/form"))
    page.get_by_role("button").click()
    expect(page.locator("body")).to_have_text("private ada")
    # The page in between is no entry of the history.
    page.go_back()
    expect(page.get_by_role("button")).to_have_text("Save")
