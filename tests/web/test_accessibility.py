"""Every page in Chromium: axe-core, keyboard, small screens, and no requests to other hosts.

If SCREENSHOTS names a folder, the tests store screenshots in it (`make screenshots`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from flask import Response, request
from playwright.sync_api import Browser, Page, expect
from werkzeug.test import TestResponse

from flask_devkit_sso.sandbox import SandboxConfig, create_sandbox, running

from ..apps import run_first
from ..browser import Site, Watch, sends_back
from ..conftest import AppMaker, sign_in
from ..login_failures import FAILURES
from ..scripted import GET_USER_INFO, LOGOUT, ScriptedServer, fails, says

pytestmark = [
    pytest.mark.browser,
    pytest.mark.checkout,
    pytest.mark.slow,
    pytest.mark.xdist_group("accessibility"),
]

SCREENSHOTS = os.environ.get("SCREENSHOTS")
SIZES = {"phone": {"width": 360, "height": 480}, "desktop": {"width": 1280, "height": 720}}
ZOOMED = {"width": 195, "height": 400}
"""A phone at 200 % zoom."""
# Two combinations are enough for axe, which is slow: colours depend only on the scheme, and sizes
# only on the screen. A page in two languages is checked once in each.
CHECKED_BY_AXE = {"en": ("phone", "light"), "zh": ("desktop", "dark")}
RUN_AXE = "axe.run({resultTypes: ['violations']}).then(results => results.violations)"
Show = Callable[[str, TestResponse, str], None]
LONG_NAME = "Wolfeschlegelsteinhausenbergerdorff von der Königlichen Sternwarte"[:64]
HTML = {"Accept": "text/html"}

REACHABLE = "a[href], button, input:not([type=hidden])"
FOCUSED = f"""() => {{
  const style = getComputedStyle(document.activeElement);
  const place = [...document.querySelectorAll("{REACHABLE}")].indexOf(document.activeElement);
  return [place, style.outlineStyle, style.outlineWidth];
}}"""


def look(page: Page, name: str, language: str | None = None) -> None:
    """Check a page in both sizes and colour schemes, and move through it with the keyboard.

    :param language: that of the page, if the same page is checked in the other language too.
    """
    page.evaluate(AXE_SCRIPT + "; 0")
    checked = [CHECKED_BY_AXE[language]] if language else CHECKED_BY_AXE.values()
    for size, viewport in SIZES.items():
        page.set_viewport_size(viewport)  # type: ignore[arg-type]
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"], name
        for scheme in ("light", "dark"):
            if (size, scheme) not in checked and not SCREENSHOTS:
                continue
            page.emulate_media(color_scheme=scheme)
            where = f"{name}-{size}-{scheme}"
            if SCREENSHOTS:
                page.screenshot(path=Path(SCREENSHOTS, f"{where}.png"), full_page=True)
            if (size, scheme) in checked:
                assert page.evaluate(RUN_AXE) == [], where
            assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"], where
    page.set_viewport_size(ZOOMED)  # type: ignore[arg-type]
    assert page.evaluate("document.documentElement.scrollWidth") <= ZOOMED["width"], name
    for place in range(page.locator(REACHABLE).count()):
        page.keyboard.press("Tab")
        assert page.evaluate(FOCUSED) == [place, "solid", "3px"], name


@pytest.fixture
def show(site: Site, make_app: AppMaker, page: Page) -> Show:
    """Check a given response as a page, without running the landing script."""
    app = make_app()
    site.app = app
    shown: list[TestResponse] = []

    def answer() -> Response | None:
        if request.path != "/shown":
            return None
        return Response(shown[-1].data, shown[-1].status, list(shown[-1].headers))

    run_first(app, answer)
    page.route(re.compile(r"/(landing|leaving|ending)\.js$"), lambda route: route.abort())

    def show_it(name: str, response: TestResponse, language: str) -> None:
        shown.append(response)
        watch = Watch(page)
        page.goto(site.url("/shown"))
        for late in page.locator(".late").all():
            expect(late).to_be_visible()
        look(page, f"{name}-{language}", language)
        assert all(url.startswith(site.url("/")) for url in watch.urls)

    return show_it


@pytest.mark.parametrize("reason", FAILURES)
def test_failures(
    show: Show,
    make_app: AppMaker,
    server: ScriptedServer,
    tmp_path: Path,
    reason: str,
) -> None:
    fail = FAILURES[reason][1](make_app, server, tmp_path)
    for language in ("en", "zh"):
        response = fail({**HTML, "Accept-Language": language})
        assert f'lang="{language}" data-reason="{reason}"' in response.text
        show(f"failure-{reason}", response, language)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_other_pages(
    show: Show,
    make_app: AppMaker,
    server: ScriptedServer,
    language: str,
) -> None:
    user = {"uid": "u-2", "username": LONG_NAME, "role": "User"}
    server.answers[GET_USER_INFO] = says({"code": "2000", "data": user})
    html = {**HTML, "Accept-Language": language}
    same_origin = {"Sec-Fetch-Site": "same-origin"}

    def show_it(name: str, response: TestResponse) -> None:
        show(name, response, language)

    app = make_app()
    client = app.test_client()
    show_it("signed-out-unknown", client.get("/sso/signed-out", headers=html))
    show_it("form-not-sent", client.post("/private", headers=html))
    show_it("framed", client.get("/private", headers={**html, "Sec-Fetch-Dest": "iframe"}))
    sign_in(client)
    show_it("signed-out-signed-in", client.get("/sso/signed-out", headers=html))
    show_it("logout", client.get("/sso/logout", headers=html))
    show_it("forbidden", client.get("/admin", headers=html))
    outcome = client.post("/sso/logout", headers=same_origin).location
    show_it("signed-out-told", client.get(outcome, headers=html))
    sign_in(client)
    server.answers[LOGOUT] = fails("8500")
    outcome = client.post("/sso/logout", headers=same_origin).location
    show_it("signed-out-not-told", client.get(outcome, headers=html))
    app.debug = True
    client.get("/sso/authorize")
    show_it("debug", client.get("/sso/callback?code=C", headers=html))
    show_it("sign-in", app.test_client().get("/sso/verify", headers=html))

    app = make_app(server_url=None)
    app.debug = True
    missing = app.test_client().get("/private", headers=html)
    assert "<code>flask devkit-sso register</code>" in missing.text
    assert "<code>python -m flask_devkit_sso.sandbox</code>" in missing.text
    assert "`" not in missing.text
    show_it("debug-not-configured", missing)

    client = make_app(binding="confirm").test_client()
    show_it("start", client.get("/sso/authorize", headers=html))
    forward = client.post("/sso/authorize", headers={**html, **same_origin})
    # The page would leave at once.
    forward.set_data(forward.text.replace('content="0; url', f'content="{24 * 3600}; url'))
    show_it("forward", forward)
    question = client.get("/sso/callback?code=C").location
    show_it("confirm", client.get(question, headers=html))
    yes = client.post(question, data={"answer": "yes"}, headers={**html, **same_origin})
    show_it("signed-in", yes)
    show_it("start-signed-in", client.get("/sso/authorize", headers=html))

    client = make_app(redirect_uri="http://localhost/#/login").test_client()
    leaving = client.get("/sso/authorize", headers={**html, "Sec-Fetch-Dest": "document"})
    show_it("leaving", leaving)
    show_it("landing", client.get("/", headers=html))


@pytest.mark.parametrize(
    ("locale", "language", "again", "reference", "silence"),
    [
        ("en-GB", "en", "Sign in again", "Reference: ", "This site is not responding"),
        ("zh-CN", "zh", "重新登录", "错误编号：", "网站没有响应"),
    ],
)
def test_the_messages_of_the_landing_script(
    site: Site,
    server: ScriptedServer,
    make_app: AppMaker,
    browser: Browser,
    locale: str,
    language: str,
    again: str,
    reference: str,
    silence: str,
) -> None:
    site.app = make_app(redirect_uri=site.url("/#/login"))
    server.answers["/sso/oauth2/authorize"] = sends_back(wait=True)
    context = browser.new_context(locale=locale)
    page = context.new_page()
    page.goto(site.url("/sso/authorize"))
    expect(page.locator("#back")).to_be_visible()
    page.goto(site.url("/#/login?code=C"))
    expect(page.locator("html")).to_have_attribute("data-reason", "state_missing")
    expect(page.locator("html")).to_have_attribute("lang", language)
    expect(page.get_by_role("link")).to_have_text(again)
    expect(page.locator(".reference")).to_contain_text(reference)
    look(page, f"told-by-script-{language}", language)

    page.route("**/sso/callback", lambda route: route.abort())
    page.goto("about:blank")
    page.goto(site.url("/#/login?code=C"))
    expect(page.locator("html")).to_have_attribute("lang", language)
    expect(page.locator("h1")).to_have_text(silence)
    expect(page.get_by_role("link")).to_have_text(again)
    look(page, f"no-answer-{language}", language)
    context.close()


def test_the_sandbox_and_the_example(
    site: Site, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from example_app import create_app

    config = SandboxConfig(redirect_uris=(site.url("/sso/callback"),))
    with running(create_sandbox(config)) as sandbox:
        for name, value in {
            "SECRET_KEY": "only-for-this-test-7c1e",
            "DEVKIT_SSO_CLIENT_ID": config.client_id,
            "DEVKIT_SSO_CLIENT_SECRET": config.client_secret,
            "DEVKIT_SSO_SERVER_URL": sandbox,
            "DEVKIT_SSO_REDIRECT_URI": site.url("/sso/callback"),
            "DEVKIT_SSO_STORE_URL": f"sqlite:///{tmp_path}/example.db",
        }.items():
            monkeypatch.setenv(f"FLASK_{name}", value)
        site.app = create_app()
        watch = Watch(page)

        def visit(url: str, name: str) -> None:
            page.goto(url)
            look(page, name)

        visit(sandbox, "sandbox-home")
        visit(f"{sandbox}/nowhere", "sandbox-not-found")
        visit(site.url("/nowhere"), "example-not-found")
        visit(site.url(), "example-home")
        visit(site.url("/reports"), "sandbox-sign-in")
        expect(page.get_by_role("button", name="eve")).to_have_count(0)
        page.get_by_label("Or type any name").fill("eve")
        page.get_by_role("button", name="Sign in", exact=True).click()
        expect(page.get_by_role("alert")).to_be_visible()
        look(page, "sandbox-problem")
        people = f"{sandbox}/_sandbox/people"
        assert page.request.post(people, data={"username": "carol", "password": "x"}).ok
        page.get_by_role("button", name="carol").click()
        page.get_by_label("Password").fill("guess")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_have_text("The password is wrong.")
        look(page, "sandbox-password")
        authorize = f"{sandbox}/sso/oauth2/authorize?client_id={config.client_id}"
        visit(f"{authorize}&redirect_uri=https://app.example/%23/somewhere/else", "sandbox-error")
        visit(f"{sandbox}/sso/oauth2/authorize", "sandbox-other-error")
        page.goto(site.url("/reports"))
        page.get_by_label("Or type any name").fill(LONG_NAME)
        page.get_by_role("button", name="Sign in", exact=True).click()
        expect(page.get_by_role("heading", name="Reports")).to_be_visible()
        look(page, "example-reports-long-name")
        visit(site.url("/me"), "example-me-long-name")
        visit(site.url("/admin"), "example-forbidden")
        visit(sandbox, "sandbox-home-signed-in")
        page.goto(site.url())
        page.get_by_role("button", name="Sign out").click()
        page.get_by_role("link", name="Sign in").click()
        page.get_by_role("button", name="ada").click()
        expect(page.get_by_role("button", name="Sign out")).to_be_visible()
        for name in ("", "reports", "admin", "me"):
            visit(site.url(f"/{name}"), f"example-{name or 'home'}-signed-in")
        assert all(url.startswith((sandbox, site.url("/"))) for url in watch.urls)
