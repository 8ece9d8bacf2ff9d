"""A code in the URL fragment, in Chromium, with an application that needs no changes."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from flask import Flask, redirect, request
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from flask_devkit_sso import DevKitSSO, LoginFailed, current_user, login_required

from ..apps import run_first
from ..browser import WHOLE_CHROMIUM, Site, Watch, response_url, sends_back
from ..conftest import CODE, AppMaker
from ..scripted import GET_TOKEN, GET_USER_INFO, TOKEN, ScriptedServer, says

pytestmark = [pytest.mark.browser, pytest.mark.slow]

AUTHORIZE = "/sso/oauth2/authorize"

HOME = """<!doctype html><title>app</title><link rel=icon href="data:,">
<h1>%s</h1><p id=hash></p><script>
const show = () => document.getElementById("hash").textContent = location.hash;
addEventListener("hashchange", show); show();
</script>"""


@pytest.fixture
def serve(site: Site, server: ScriptedServer, make_app: AppMaker) -> Callable[..., Flask]:
    """Serve an application whose redirect_uri is ``/#/login`` on its own home page."""

    def serve_it(
        *,
        protected: bool = False,
        fragment: str = "#/login",
        sso: DevKitSSO | None = None,
        **settings: Any,
    ) -> Flask:
        redirect_uri = settings.pop("redirect_uri", site.url("/") + fragment)
        app = make_app(sso or DevKitSSO(), redirect_uri=redirect_uri, **settings)

        def home() -> str:
            return HOME % (current_user.username or "nobody")

        app.view_functions["home"] = login_required(home) if protected else home
        server.answers.setdefault(AUTHORIZE, sends_back())
        site.app = app
        return app

    return serve_it


def exchanges(server: ScriptedServer) -> list[Any]:
    return [seen.json for seen in server.seen if seen.path == GET_TOKEN]


def sign_in_if_asked(page: Page, binding: str) -> None:
    if binding == "confirm":
        page.get_by_role("button", name="Sign in").click()


def confirm_if_asked(page: Page, binding: str) -> None:
    if binding == "confirm":
        expect(page.get_by_role("heading")).to_contain_text("ada")
        page.get_by_role("button", name="Continue as ada").click()


BINDINGS = ["state", "redirect_uri", "confirm"]
# Every pair of values, and the most common binding in every way.
WAYS = [
    pytest.param("state", False, "end", id="state-public-end"),
    pytest.param("state", False, "query", id="state-public-query"),
    pytest.param("state", True, "end", id="state-protected-end"),
    pytest.param("state", True, "query", id="state-protected-query"),
    pytest.param("redirect_uri", False, "query", id="redirect_uri-public-query"),
    pytest.param("redirect_uri", True, "end", id="redirect_uri-protected-end"),
    pytest.param("confirm", False, "end", id="confirm-public-end"),
    pytest.param("confirm", True, "query", id="confirm-protected-query"),
]


@pytest.mark.parametrize(("binding", "protected", "position"), WAYS)
def test_the_requested_page_is_reached(
    serve: Callable[..., Flask],
    site: Site,
    server: ScriptedServer,
    page: Page,
    binding: str,
    protected: bool,
    position: str,
) -> None:
    serve(protected=protected, binding=binding)
    server.answers[AUTHORIZE] = sends_back(position=position, echo_state=binding == "state")
    watch = Watch(page)
    if protected:
        page.goto(site.url("/#/files?x=1"))
    else:
        page.goto(site.url("/sso/authorize?next=/%23/files?x=1"))
    sign_in_if_asked(page, binding)
    confirm_if_asked(page, binding)
    expect(page.locator("h1")).to_have_text("ada")
    assert page.url == site.url("/#/files?x=1")
    expect(page.locator("#hash")).to_have_text("#/files?x=1")
    assert watch.console == []
    assert not any(CODE in url for url in watch.history())
    assert not any(CODE in referer for referer in watch.referers)
    carried = [url for url in watch.urls if CODE in url and "#" not in url.partition(CODE)[0]]
    assert len(carried) == (
        1 if position == "query" else 0
    )  # the URL to which the server redirected
    (exchange,) = exchanges(server)
    assert exchange["authorization_code"] == CODE
    sent = [seen.path for seen in server.seen if seen.path.startswith(AUTHORIZE)]
    assert len(sent) == 1
    assert f"redirect_uri={_quoted(exchange['redirect_uri'])}" in sent[0]
    # Going back exchanges no code and shows none.
    page.go_back()
    page.wait_for_load_state()
    assert CODE not in page.url
    assert len(exchanges(server)) == 1


def _quoted(text: str) -> str:
    return quote(text, safe="")


@pytest.mark.parametrize(("binding", "count"), [("state", 5), ("redirect_uri", 2), ("confirm", 3)])
def test_each_tab_returns_to_its_own_page_in_any_order(
    serve: Callable[..., Flask],
    site: Site,
    server: ScriptedServer,
    context: BrowserContext,
    binding: str,
    count: int,
) -> None:
    serve(binding=binding)
    server.answers[AUTHORIZE] = sends_back(wait=True, echo_state=binding == "state")
    tabs = [context.new_page() for _ in range(count)]
    for number, tab in enumerate(tabs):
        tab.goto(site.url(f"/sso/authorize?next=/%23/tab{number}"))
        sign_in_if_asked(tab, binding)
        expect(tab.locator("#back")).to_be_visible()
    # Not in the order in which they started.
    for number in (*range(1, count, 2), *range(0, count, 2)):
        tabs[number].locator("#back").click()
        confirm_if_asked(tabs[number], binding)
        expect(tabs[number].locator("h1")).to_have_text("ada")
        assert tabs[number].url == site.url(f"/#/tab{number}")


@pytest.mark.parametrize("protected", [False, True])
def test_a_landing_without_a_code_shows_the_applications_page(
    serve: Callable[..., Flask],
    site: Site,
    server: ScriptedServer,
    context: BrowserContext,
    protected: bool,
) -> None:
    """The login in the other tab still completes."""
    serve(protected=protected)
    server.answers[AUTHORIZE] = sends_back(wait=True)
    tab, other = context.new_page(), context.new_page()
    tab.goto(site.url("/sso/authorize?next=/%23/mine"))
    expect(tab.locator("#back")).to_be_visible()
    for fragment in ("", "#/files?code=1", "#/login", "#/login2?code=1", "#/loginx"):
        other.goto("about:blank")
        other.goto(site.url(f"/{fragment}"))
        if protected:
            expect(other.locator("#back")).to_be_visible()
        else:
            expect(other.locator("h1")).to_have_text("nobody")
            assert other.url == site.url(f"/{fragment}")
    assert exchanges(server) == []
    tab.locator("#back").click()
    expect(tab.locator("h1")).to_have_text("ada")
    assert tab.url == site.url("/#/mine")


def test_a_code_added_later_is_not_sent(
    serve: Callable[..., Flask], site: Site, server: ScriptedServer, page: Page
) -> None:
    app = serve()
    app.add_url_rule(
        "/spa",
        view_func=lambda: "<script src=/sso/landing.js></script><h1>spa</h1>",
        endpoint="spa",
    )
    page.goto(site.url("/spa"))
    page.evaluate("location.hash = '#/login?code=X'")
    page.goto(site.url("/"))
    page.evaluate("location.hash = '#/login?code=X'")
    page.wait_for_timeout(300)
    assert page.locator("h1").text_content() == "nobody"
    assert server.seen == []


def test_an_attackers_link_exchanges_no_code(
    serve: Callable[..., Flask], site: Site, server: ScriptedServer, page: Page
) -> None:
    for binding in BINDINGS:
        serve(binding=binding)
        for form in ("/#/login?code=X", "/#/login&code=X", "/?code=X#/login"):
            page.goto("about:blank")
            page.goto(site.url(form))
            expect(page.locator("h1")).to_have_text("nobody")
    assert server.seen == []


@pytest.mark.parametrize("binding", BINDINGS)
def test_a_window_redirected_to_an_attackers_code(
    serve: Callable[..., Flask],
    site: Site,
    server: ScriptedServer,
    context: BrowserContext,
    page: Page,
    binding: str,
) -> None:
    """The attacker's page opens the authorize route in a window, then loads its own code there."""
    serve(binding=binding)
    server.answers[AUTHORIZE] = sends_back(wait=True)
    evil = Site()
    try:
        evil.app = Flask("evil")
        evil.app.add_url_rule("/", view_func=lambda: "<h1>evil</h1>", endpoint="evil")
        page.goto(evil.url(host="127.0.0.1"))
        with context.expect_page() as opened:
            page.evaluate("url => { window.w = open(url) }", site.url("/sso/authorize"))
        window = opened.value
        window.wait_for_load_state()
        if binding == "confirm":
            expect(window.get_by_role("button", name="Sign in")).to_be_visible()
        else:
            expect(window.locator("#back")).to_be_visible()
        for form in ("/#/login?code=EVIL", "/?code=EVIL#/login"):
            page.evaluate("url => { w.location = url }", site.url(form))
            expect(window.locator("h1")).to_be_visible()
            window.wait_for_timeout(300)
            page.evaluate("w.postMessage({code: 'EVIL', state: 'x'}, '*')")
        assert exchanges(server) == []
        window.goto(site.url("/who"))
        assert json.loads(window.locator("body").inner_text())["is_authenticated"] is False
    finally:
        evil.stop()


def test_confirm_names_the_user_and_no_signs_nobody_in(
    serve: Callable[..., Flask], site: Site, server: ScriptedServer, page: Page
) -> None:
    serve(binding="confirm")
    server.answers[AUTHORIZE] = sends_back(echo_state=False)
    server.answers[GET_USER_INFO] = says(
        {"code": "2000", "data": {"uid": "u-9", "username": "王<b>小明", "role": "User"}}
    )
    page.goto(site.url("/sso/authorize"))
    sign_in_if_asked(page, "confirm")
    expect(page.get_by_role("button", name="Continue as 王<b>小明")).to_be_visible()
    expect(page.locator("main")).to_contain_text("Account ID: u-9")
    address = page.url
    assert len(exchanges(server)) == 1
    other = page.context.new_page()
    other.goto(site.url("/who"))
    assert '"is_authenticated":false' in other.content().replace(" ", "")
    page.get_by_role("button", name="No").click()
    expect(page.locator("html")).to_have_attribute("data-outcome", "told")
    page.goto(address)
    assert page.locator("html").get_attribute("data-reason") == "login_unknown"


def test_a_framed_landing_does_nothing(
    serve: Callable[..., Flask], site: Site, server: ScriptedServer, page: Page
) -> None:
    app = serve()
    server.answers[AUTHORIZE] = sends_back(wait=True)
    app.add_url_rule(
        "/frame",
        view_func=lambda: f"<iframe src='{request.args['u']}'></iframe>",
        endpoint="frame",
    )
    page.goto(site.url("/sso/authorize"))
    back = page.locator("#back").get_attribute("href") or ""
    page.goto(site.url("/frame?u=") + _quoted(back))
    page.wait_for_timeout(500)
    assert exchanges(server) == []


def test_a_refusal_by_the_server_is_shown(
    serve: Callable[..., Flask], site: Site, server: ScriptedServer, page: Page
) -> None:
    serve()

    def refuse(handler: Any) -> None:
        url = response_url(handler.path.partition("?")[2])
        handler.send_response(302)
        handler.send_header(
            "Location",
            url.replace(f"code={CODE}", "error=access_denied&error_description=No+%3Cb%3E&iss=x"),
        )
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.answers[AUTHORIZE] = refuse
    page.goto(site.url("/sso/authorize"))
    expect(page.locator("html")).to_have_attribute("data-reason", "denied")
    expect(page.get_by_role("link", name="Sign in again")).to_be_visible()
    assert exchanges(server) == []


@pytest.mark.parametrize("text", ["<img src=x onerror=alert(1)>", "'\"><script>alert(1)</script>"])
def test_markup_is_inert(
    serve: Callable[..., Flask], site: Site, server: ScriptedServer, page: Page, text: str
) -> None:
    serve()
    server.answers[AUTHORIZE] = sends_back(code=_quoted(text))
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    page.goto(site.url("/sso/authorize"))
    expect(page.locator("h1")).to_have_text("ada")
    assert exchanges(server)[0]["authorization_code"] == text
    for query in (f"state={_quoted(text)}&code=x", f"error={_quoted(text)}", f"code=a&code={text}"):
        server.answers[AUTHORIZE] = sends_back(wait=True)
        page.context.clear_cookies()
        page.goto(site.url("/sso/authorize"))
        expect(page.locator("#back")).to_be_visible()
        page.goto(site.url(f"/#/login?{query}"))
        expect(page.locator("html[data-reason]")).to_have_count(1)
        assert page.locator("script:not([src]), img").count() == 0
    assert dialogs == []


def test_a_reload_or_a_second_run_posts_only_once(
    serve: Callable[..., Flask], site: Site, server: ScriptedServer, page: Page
) -> None:
    app = serve(redirect_uri=site.url("/spa#/login"))
    posts: list[str] = []
    run_first(app, lambda: posts.append(request.path) if request.method == "POST" else None)
    app.add_url_rule(
        "/spa",
        view_func=lambda: (
            "<script src=/sso/landing.js></script><script src=/sso/landing.js></script><h1>spa</h1>"
        ),
        endpoint="spa",
    )
    page.goto(site.url("/sso/authorize?next=/spa"))
    expect(page.locator("h1")).to_have_text("spa")
    page.reload()
    page.go_back()
    page.go_forward()
    assert posts == ["/sso/callback"]


def test_without_javascript_there_is_a_readable_message(
    serve: Callable[..., Flask], site: Site, server: ScriptedServer, browser: Browser
) -> None:
    serve()
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(site.url("/sso/authorize"))
    page.get_by_role("link").first.click()
    expect(page.get_by_text("JavaScript").first).to_be_visible()
    assert exchanges(server) == []
    context.close()


# Front ends that Flask does not serve, and the URLs that the script recognizes.

D = "/#/login"
TABLE: list[tuple[str, dict[str, list[str]] | None]] = [
    # The vendor's server appends to the end, standard servers before the fragment.
    ("/#/login?code=C", {"code": ["C"]}),
    ("/#/login&code=C", {"code": ["C"]}),
    ("/?code=C#/login", {"code": ["C"]}),
    ("/#/login?code=C&state=S", {"code": ["C"], "state": ["S"]}),
    ("/#/login?state=S&code=C", {"code": ["C"], "state": ["S"]}),
    ("/#/login&code=C&state=S", {"code": ["C"], "state": ["S"]}),
    ("/?code=C&state=S#/login", {"code": ["C"], "state": ["S"]}),
    ("/?state=S&code=C&iss=https%3A%2F%2Fa#/login", {"code": ["C"], "state": ["S"]}),
    ("/#/login?code=C&iss=https://a?x=1", {"code": ["C"]}),
    # With the binding redirect_uri.
    ("/#/login?s=N?code=C", {"code": ["C"], "s": ["N"]}),
    ("/#/login?s=N&code=C", {"code": ["C"], "s": ["N"]}),
    ("/?code=C#/login?s=N", {"code": ["C"], "s": ["N"]}),
    ("/#/login?s=N?code=C&state=S", {"code": ["C"], "s": ["N"], "state": ["S"]}),
    ("/#/login&s=N&code=C", {"code": ["C"], "s": ["N"]}),
    ("/#/login?s=N&s=M&code=C", {"code": ["C"], "s": ["N", "M"]}),
    # Errors.
    ("/#/login?error=access_denied", {"error": ["access_denied"]}),
    ("/#/login&error=access_denied&state=S", {"error": ["access_denied"], "state": ["S"]}),
    ("/?error=server_error&error_description=a+b#/login", {"error": ["server_error"]}),
    ("/#/login?error=", {"error": [""]}),
    ("/#/login?error_description=x", None),
    # Two codes or an empty one: posted unchanged, and refused by the callback.
    ("/#/login?code=A&code=B", {"code": ["A", "B"]}),
    ("/?code=A#/login?code=B", {"code": ["A", "B"]}),
    ("/?code=A&code=B#/login", {"code": ["A", "B"]}),
    ("/#/login?code=A?code=B", {"code": ["A", "B"]}),
    ("/#/login?code=", {"code": [""]}),
    ("/#/login?code", {"code": [""]}),
    ("/#/login?code=&code=C", {"code": ["", "C"]}),
    ("/#/login?code=C&state=S&state=T", {"code": ["C"], "state": ["S", "T"]}),
    ("/#/login?code=C&error=e", {"code": ["C"], "error": ["e"]}),
    # Unchanged, byte for byte.
    ("/#/login?code=a%2Bb", {"code": ["a+b"]}),
    ("/#/login?code=a+b", {"code": ["a+b"]}),
    ("/#/login?code=a=b==", {"code": ["a=b=="]}),
    ("/#/login?code=a%26b%3Dc", {"code": ["a&b=c"]}),
    ("/#/login?code=a%23b", {"code": ["a#b"]}),
    ("/#/login?code=a#b", {"code": ["a#b"]}),
    ("/#/login?code=a/b~c-d_e.f", {"code": ["a/b~c-d_e.f"]}),
    ("/#/login?code=%E9%AA%8C", {"code": ["验"]}),
    ("/#/login?code=%", {"code": ["%"]}),
    ("/#/login?code=%zz", {"code": ["%zz"]}),
    ("/#/login?code=%C3", {"code": ["%C3"]}),
    ("/#/login?code=%3Cb%3E", {"code": ["<b>"]}),
    ("/#/login?code=a%20b", {"code": ["a b"]}),
    ("/#/login?code=" + "x" * 4000, {"code": ["x" * 4000]}),
    ("/#/login?&&code=C&&", {"code": ["C"]}),
    ("/#/login?a&b=&code=C", {"code": ["C"]}),
    # The application's own routes and parameters.
    ("/", None),
    ("/#", None),
    ("/#/", None),
    ("/#/login", None),
    ("/#/login?", None),
    ("/#/login&", None),
    ("/#/login?x=1", None),
    ("/#/login?state=S", None),
    ("/#/login?s=N", None),
    ("/#/login?Code=C", None),
    ("/#/login?xcode=C", None),
    ("/#/login?code2=C", None),
    ("/#/login?co%64e=C", None),
    ("/#/login?__proto__=C&constructor=C&toString=C", None),
    ("/#/loginx?code=C", None),
    ("/#/login/?code=C", None),
    ("/#/login/x?code=C", None),
    ("/#/login#?code=C", None),
    ("/#/Login?code=C", None),
    ("/#/log%69n?code=C", None),
    ("/#login?code=C", None),
    ("/#/files?code=C", None),
    ("/#code=C", None),
    ("/#?code=C", None),
    ("/?code=C", None),
    ("/?code=C#", None),
    ("/?code=C#/", None),
    ("/?code=C#/files", None),
    ("/?x=1#/login", None),
    ("/other?code=C#/login", None),
    ("/other#/login?code=C", None),
]
assert len(TABLE) >= 60


def spa() -> str:
    """Return the page of another front end, which loads the landing script first."""
    return "<!doctype html><link rel=icon href='data:,'><script src=/sso/landing.js></script>spa"


# Run the script on our landing page, or on another page, which passes the response on to ours.
# Return what it posts and the address that it sets.
RUN_SCRIPT = """([script, base, address, isOurs]) => {
  const done = [null, null];
  const location = new URL(address, base);
  let passedOn = null;
  location.replace = (url) => passedOn = url;
  const history = {replaceState: (state, title, url) => done[1] = url};
  function XMLHttpRequest() {
    this.open = (method, url) => this.path = url.pathname;
    this.send = (body) => done[0] = [this.path, JSON.parse(body)];
    this.setRequestHeader = () => {};
  }
  const document = {
    currentScript: {src: new URL("/sso/landing.js", base).href},
    documentElement: {dataset: isOurs ? {devkitSsoOnward: "/"} : {}},
  };
  const names = ["location", "history", "XMLHttpRequest", "document", "stop"];
  const run = (where) =>
    new Function(...names, script)(where, history, XMLHttpRequest, document, () => {});
  run(location);
  if (passedOn) {
    document.documentElement.dataset.devkitSsoOnward = "/";
    run(new URL(passedOn));
  }
  return done;
}"""
COMPLETE: dict[str, Any] = {"code": [], "error": [], "state": [], "s": [], "login": ""}


def test_what_the_script_posts(serve: Callable[..., Flask], site: Site, page: Page) -> None:
    script = serve().test_client().get("/sso/landing.js").text
    page.goto("about:blank")
    for (address, expected), is_ours in itertools.product(TABLE, (True, False)):
        posted, shown = page.evaluate(RUN_SCRIPT, [script, site.url(""), address, is_ours])
        if expected is None:
            assert (posted, shown) == (None, None), address
        else:
            assert posted == ["/sso/callback", COMPLETE | expected], address
            assert shown == "/#/login", address


ON_REAL_PAGES = [
    "/#/login?code=C&state=S",
    "/?code=C&state=S#/login",
    "/#/login?s=N?code=C",
    "/#/login?error=access_denied",
    "/#/files?code=C",
    "/other#/login?code=C",
]
"""One address of each kind, for the test with real pages."""


def test_the_script_on_pages(serve: Callable[..., Flask], site: Site, page: Page) -> None:
    app = serve()
    app.view_functions["home"] = spa
    app.add_url_rule("/other", view_func=spa, endpoint="other")
    posted: list[Any] = []

    def answer(route: Any) -> None:
        posted.append((page.evaluate("location.href"), route.request.post_data_json))
        route.fulfill(status=400, body="<html data-reason=test>", content_type="text/html")

    page.route("**/sso/callback", answer)
    table = dict(TABLE)
    for address in ON_REAL_PAGES:
        expected = table[address]
        posted.clear()
        page.goto("about:blank")
        # Do not wait for "load": the script stops the page if there is a response in the address.
        page.goto(site.url(address), wait_until="commit")
        if expected is None:
            page.wait_for_load_state()
            assert posted == [], address
            assert page.url == site.url(address), address
            continue
        expect(page.locator("html")).to_have_attribute("data-reason", "test")
        ((shown, body),) = posted
        assert shown == site.url("/#/login"), address
        assert body == COMPLETE | expected, address


OTHER_FORMS = [
    ("#/", "/#/?code=C", ["C"]),
    ("#/", "/?code=C#/", ["C"]),
    ("#/", "/#/files?code=C", None),
    ("#/login?from=sso", "/#/login?from=sso&code=C", ["C"]),
    ("#/login?from=sso", "/#/login?from=sso?code=C", ["C"]),
    ("#/login?from=sso", "/#/login?from=ssox&code=C", None),
    ("", "/?code=C", ["C"]),
    ("", "/?code=C#/x", ["C"]),
    ("", "/#/x?code=C", None),
    ("", "/#?code=C", None),
    ("#", "/#?code=C", ["C"]),
    ("#", "/?code=C#", ["C"]),
    ("#", "/?code=C", ["C"]),
    ("#", "/#/x?code=C", None),
    ("?a=1#/login", "/?a=1#/login?code=C", ["C"]),
    ("?a=1#/login", "/?a=1&code=C#/login", ["C"]),
    ("?a=1#/login", "/?a=12&code=C#/login", None),
    ("?a=1#/login", "/#/login?code=C", None),
]


def test_other_redirect_uris(serve: Callable[..., Flask], site: Site, page: Page) -> None:
    page.goto("about:blank")
    for fragment, address, code in OTHER_FORMS:
        script = serve(fragment=fragment).test_client().get("/sso/landing.js").text
        posted, _ = page.evaluate(RUN_SCRIPT, [script, site.url(""), address, True])
        expected = None if code is None else ["/sso/callback", COMPLETE | {"code": code}]
        assert posted == expected, address


@pytest.mark.parametrize(
    ("fragment", "address", "code"), [("", "/?code=C", ["C"]), ("#/", "/#/files?code=C", None)]
)
def test_other_redirect_uris_on_pages(
    serve: Callable[..., Flask],
    site: Site,
    page: Page,
    fragment: str,
    address: str,
    code: list[str] | None,
) -> None:
    assert (fragment, address, code) in OTHER_FORMS
    app = serve(fragment=fragment)
    app.view_functions["home"] = spa
    posted: list[Any] = []

    def answer(route: Any) -> None:
        posted.append(route.request.post_data_json["code"])
        route.fulfill(status=400, body="<html data-reason=test>", content_type="text/html")

    page.route("**/sso/callback", answer)
    page.goto(site.url(address), wait_until="commit")
    if code is None:
        page.wait_for_load_state()
    else:
        expect(page.locator("html")).to_have_attribute("data-reason", "test")
    assert posted == ([] if code is None else [code])


def test_the_script_is_small_enough_to_read(serve: Callable[..., Flask]) -> None:
    response = serve().test_client().get("/sso/landing.js")
    assert response.mimetype == "text/javascript"
    assert len(response.data) < 6144


def static_host(app: Flask) -> None:
    """Serve the home page as a static host does: before Flask, and without reading cookies."""
    html = (
        "<!doctype html><link rel=icon href='data:,'><script src=/sso/landing.js></script>"
        "<script>document.title = 'ran ' + location.hash</script><h1>spa</h1>"
    )
    run_first(app, lambda: html if request.path == "/" else None)


def test_a_front_end_that_flask_does_not_serve(
    serve: Callable[..., Flask], site: Site, server: ScriptedServer, page: Page
) -> None:
    static_host(serve())
    watch = Watch(page)
    page.goto(site.url("/sso/authorize?next=/%23/files"))
    expect(page).to_have_title("ran #/files")
    assert len(exchanges(server)) == 1
    assert watch.console == []
    page.goto(site.url("/who"))
    assert json.loads(page.locator("body").inner_text())["username"] == "ada"


@pytest.mark.parametrize("by_flask", [True, False])
def test_a_login_that_failed_shows_the_whole_page(
    serve: Callable[..., Flask], site: Site, server: ScriptedServer, page: Page, by_flask: bool
) -> None:
    """The browser must paint the page, which requires a body element."""
    app = serve()
    app.debug = True
    if not by_flask:
        static_host(app)
    server.answers[GET_TOKEN] = says({"code": "8204", "message": "invalid"})
    watch = Watch(page)
    page.goto(site.url("/sso/authorize?next=/%23/files"), wait_until="commit")
    expect(page).to_have_title("The sign-in service rejected the request")
    painted = "performance.getEntriesByName('first-contentful-paint').length"
    deadline = time.monotonic() + 60
    while not page.evaluate(painted):
        assert time.monotonic() < deadline, "nothing is painted"
        page.wait_for_timeout(50)
    expect(page.locator("html")).to_have_attribute("data-reason", "server_rejected")
    expect(page.locator("h1")).to_have_text("The sign-in service rejected the request")
    expect(page.locator("main")).to_contain_text("an error. Please sign in again.")
    expect(page.locator(".reference")).to_be_visible()
    expect(page.locator(".hint")).to_contain_text("8204")
    expect(page.locator("h1")).to_have_css("font-weight", "700")
    expect(page.locator("main")).to_have_css("border-top-width", "4px")
    again = page.get_by_role("link", name="Sign in again")
    expect(again).to_have_attribute("href", "/sso/authorize?next=/%23/files")
    assert [line for line in watch.console if "502" not in line] == []
    server.answers[GET_TOKEN] = says(TOKEN)
    again.click()
    expect(page.locator("h1")).to_have_text("ada" if by_flask else "spa")
    assert page.url == site.url("/#/files")
    page.goto(site.url("/who"))
    assert json.loads(page.locator("body").inner_text())["username"] == "ada"


@pytest.mark.parametrize("by_flask", [True, False])
def test_the_applications_response_to_a_failure_is_shown(
    serve: Callable[..., Flask], site: Site, server: ScriptedServer, page: Page, by_flask: bool
) -> None:
    app = serve()
    if not by_flask:
        static_host(app)
    markup = "<img src=x onerror='window.ran = 1'><meta http-equiv=refresh content='0;url=/who'>"
    answers: list[tuple[Any, str]] = [
        (("<title>ours</title><h1>No</h1>", 418), "No"),
        ("<h1>Without a status</h1>", "Without a status"),
        (redirect("/oops"), "moved"),
        # Not an HTML page: its text may come from anywhere and is not shown as a page.
        (({"description": markup}, 403), "This site is not responding"),
        ((markup, 403, {"Content-Type": "text/plain"}), "This site is not responding"),
        (redirect("https://elsewhere.invalid/"), "This site is not responding"),
    ]
    app.add_url_rule("/oops", view_func=lambda: ("<h1>moved</h1>", 403), endpoint="oops")
    app.register_error_handler(LoginFailed, lambda error: answers[0][0])
    server.answers[GET_TOKEN] = says({"code": "8204", "message": "invalid"})
    while answers:
        page.goto("about:blank")
        page.goto(site.url("/sso/authorize"), wait_until="commit")
        expect(page.locator("h1")).to_have_text(answers[0][1])
        assert page.url == site.url("/oops" if answers[0][1] == "moved" else "/#/login")
        assert page.evaluate("window.ran") is None
        assert page.locator("img").count() == 0
        answers.pop(0)


@pytest.mark.parametrize("start_at", ["localhost", "127.0.0.1"])
def test_the_other_name_of_this_machine(
    serve: Callable[..., Flask], site: Site, server: ScriptedServer, page: Page, start_at: str
) -> None:
    """A login starts on localhost and has a redirect_uri on 127.0.0.1, or vice versa."""
    comes_back = "127.0.0.1" if start_at == "localhost" else "localhost"
    serve(protected=True, redirect_uri=site.url("/#/login", comes_back))
    page.goto(site.url("/#/files", start_at))
    expect(page.locator("h1")).to_have_text("ada")
    assert page.url == site.url("/#/files", comes_back)
    assert len(exchanges(server)) == 1


def test_an_origin_that_redirects_to_another_one_causes_no_loop(
    serve: Callable[..., Flask], site: Site, server: ScriptedServer, page: Page
) -> None:
    """As with a redirect URI at a bare host, if the web server redirects that to ``www.``."""
    app = serve(protected=True, redirect_uri=site.url("/#/login", "127.0.0.1"))
    visits: list[str] = []

    def redirects(environ: Any, start_response: Any) -> Any:
        visits.append(environ["PATH_INFO"])
        if environ["HTTP_HOST"].startswith("localhost"):
            return app(environ, start_response)
        url = f"{site.url(environ['PATH_INFO'])}?{environ['QUERY_STRING']}"
        start_response("301 MOVED PERMANENTLY", [("Location", url)])
        return []

    site.app = redirects
    page.goto(site.url("/#/files"))
    expect(page.locator("html")).to_have_attribute("data-reason", "cookie_missing")
    assert visits.count("/sso/authorize") <= 7
    assert exchanges(server) == []


def test_lost_cookies_cause_no_redirect_loop(
    serve: Callable[..., Flask], site: Site, server: ScriptedServer, page: Page
) -> None:
    """On a protected home page, each failed login could start the next one."""
    app = serve(protected=True)
    served = app.wsgi_app

    def without_cookies(environ: Any, start_response: Any) -> Any:
        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            kept = [item for item in headers if item[0].lower() != "set-cookie"]
            return start_response(status, kept, *more)

        return served(environ, start)

    app.wsgi_app = without_cookies  # type: ignore[method-assign]
    for _ in range(2):
        page.goto(site.url("/#/files"))
        expect(page.locator("html")).to_have_attribute("data-reason", "cookie_missing")
        assert CODE not in page.url
    assert len([seen for seen in server.seen if seen.path.startswith(AUTHORIZE)]) <= 4
    assert exchanges(server) == []
    # When cookies arrive again, the login works.
    app.wsgi_app = served  # type: ignore[method-assign]
    page.get_by_role("link", name="Sign in again").click()
    expect(page.locator("h1")).to_have_text("ada")


def test_a_cacheable_home_page(
    serve: Callable[..., Flask], site: Site, server: ScriptedServer, page: Page
) -> None:
    """The browser must not show the cached page, which would ignore the code in its URL."""
    app = serve()
    kept = {"Cache-Control": "public, max-age=3600"}
    app.view_functions["home"] = lambda: (HOME % (current_user.username or "nobody"), 200, kept)
    app.view_functions["static"] = lambda filename: (filename, 200, kept)
    page.goto(site.url("/"))
    expect(page.locator("h1")).to_have_text("nobody")
    page.goto(site.url("/sso/authorize?next=/%23/files"))
    expect(page.locator("h1")).to_have_text("ada")
    client = app.test_client()
    app.view_functions["home"] = lambda: ("open", 200, kept)
    assert client.get("/").headers["Cache-Control"] == "no-store"
    script = client.get("/", headers={"Sec-Fetch-Dest": "empty"})
    assert script.headers["Cache-Control"] == "no-store"
    app.view_functions["home"] = lambda: ({"a": 1}, 200, kept)
    script = client.get("/", headers={"Sec-Fetch-Dest": "empty"})
    assert script.headers["Cache-Control"] == "no-cache"
    assert client.get("/static/x").headers["Cache-Control"] == "public, max-age=3600"


def forget_fetch_metadata(app: Flask) -> Callable[..., Any]:
    """Serve an application to a browser that sends no Sec-Fetch headers."""

    def serve_it(environ: Any, start_response: Any) -> Any:
        old = {name: environ[name] for name in environ if not name.startswith("HTTP_SEC_")}
        return app(old, start_response)

    return serve_it


def test_a_page_load_in_another_tab_while_the_code_arrives(
    serve: Callable[..., Flask], site: Site, server: ScriptedServer, context: BrowserContext
) -> None:
    """The other tab finds no code and requests the application's page with a ticket.

    This tab, in which the code arrives, must not use the ticket.
    """
    site.app = forget_fetch_metadata(serve())
    server.answers[AUTHORIZE] = sends_back(wait=True)
    tab, other = context.new_page(), context.new_page()
    tab.goto(site.url("/sso/authorize?next=/%23/mine"))
    expect(tab.locator("#back")).to_be_visible()
    stalled: list[Route] = []

    def stall(route: Route) -> None:
        response = route.fetch(max_redirects=0)
        stalled.append(route)
        # The browser has the ticket, and now follows the redirect; the network is slow.
        cookie = response.headers["set-cookie"]
        name, value = cookie.partition(";")[0].split("=", 1)
        context.add_cookies([{"name": name, "value": value, "url": site.url("/")}])

    other.route("**/sso/onward?*", stall)
    other.goto(site.url("/"), wait_until="commit")
    wait_in(other, lambda: stalled)
    assert any(cookie["name"].endswith("_ticket") for cookie in context.cookies())
    tab.locator("#back").click()
    expect(tab.locator("h1")).to_have_text("ada")
    assert tab.url == site.url("/#/mine")
    assert len(exchanges(server)) == 1


def wait_in(page: Page, what: Callable[[], object]) -> None:
    """Wait while Playwright goes on."""
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)


def travel(page: Page, direction: str) -> None:
    left = page.url
    page.evaluate(f"history.{direction}()")
    expect(page).not_to_have_url(left)
    assert CODE not in page.url


def test_back_and_forward_with_the_browsers_cache_of_pages(
    serve: Callable[..., Flask], site: Site, server: ScriptedServer, browser: Browser
) -> None:
    other = browser.browser_type.launch(
        **WHOLE_CHROMIUM,  # type: ignore[arg-type]
        ignore_default_args=["--disable-back-forward-cache"],
    )
    try:
        for binding in BINDINGS:
            server.seen.clear()
            go_back_and_forward(serve, site, server, other, binding)
    finally:
        other.close()


def go_back_and_forward(
    serve: Callable[..., Flask], site: Site, server: ScriptedServer, browser: Browser, binding: str
) -> None:
    app = serve(binding=binding)
    server.answers[AUTHORIZE] = sends_back(echo_state=binding == "state")
    app.add_url_rule(
        "/start",
        view_func=lambda: (
            "<link rel=icon href='data:,'><a href='/sso/authorize?next=/%23/files'>in</a>"
            "<h1 id=h>start</h1>"
            "<script>onpageshow = e => h.dataset.kept = e.persisted</script>"
        ),
        endpoint="start",
    )
    with browser.new_context() as context:
        page = context.new_page()
        watch = Watch(page)
        page.goto(site.url("/start"))
        page.get_by_role("link").click()
        sign_in_if_asked(page, binding)
        confirm_if_asked(page, binding)
        expect(page.locator("h1")).to_have_text("ada")
        for _ in range(2):
            while page.url != site.url("/start"):
                travel(page, "back")
            expect(page.locator("#h")).to_have_attribute("data-kept", "true")
            travel(page, "forward")
        assert not any(CODE in url for url in watch.history())
        assert len(exchanges(server)) == 1
        assert "cross_site" not in page.content()


@pytest.mark.parametrize("protected", [False, True])
def test_a_reload_while_the_code_is_exchanged(
    serve: Callable[..., Flask], site: Site, server: ScriptedServer, page: Page, protected: bool
) -> None:
    """The script has already removed the code from the address: it is sent once, without a loop."""
    serve(protected=protected)
    exchanging, go_on = threading.Event(), threading.Event()

    def slowly(handler: Any) -> None:
        exchanging.set()
        go_on.wait(60)
        says(TOKEN)(handler)

    server.answers[GET_TOKEN] = slowly
    page.goto(site.url("/sso/authorize"), wait_until="commit")
    while not exchanging.is_set():
        page.wait_for_timeout(20)
    expect(page).to_have_url(site.url("/#/login"))
    server.answers[AUTHORIZE] = sends_back(wait=True)
    page.reload()
    go_on.set()
    shown = page.locator("#back") if protected else page.locator("h1", has_text="nobody")
    expect(shown).to_be_visible()
    assert len(exchanges(server)) == 1


@pytest.mark.parametrize("binding", ["state", "confirm"])
def test_without_storage_for_scripts(
    serve: Callable[..., Flask],
    site: Site,
    server: ScriptedServer,
    context: BrowserContext,
    binding: str,
) -> None:
    """Without session storage, cookies alone store the login and its page."""
    context.add_init_script(
        "Object.defineProperty(window, 'sessionStorage', "
        "{get() { throw new DOMException('no', 'SecurityError') }})"
    )
    serve(binding=binding)
    server.answers[AUTHORIZE] = sends_back(wait=True, echo_state=binding == "state")
    page, other = context.new_page(), context.new_page()
    page.goto(site.url("/sso/authorize?next=/%23/files"))
    sign_in_if_asked(page, binding)
    expect(page.locator("#back")).to_be_visible()
    other.goto(site.url("/#/x"))
    expect(other.locator("h1")).to_have_text("nobody")
    page.locator("#back").click()
    confirm_if_asked(page, binding)
    expect(page.locator("h1")).to_have_text("ada")
    assert page.url == site.url("/#/files")


@pytest.mark.parametrize("binding", BINDINGS)
def test_a_login_that_finishes_in_another_tab(
    serve: Callable[..., Flask],
    site: Site,
    server: ScriptedServer,
    context: BrowserContext,
    binding: str,
) -> None:
    """The server's page opens a new window, which lacks the session storage of the first tab."""
    serve(binding=binding)
    server.answers[AUTHORIZE] = sends_back(wait=True, echo_state=binding == "state")
    page = context.new_page()
    page.goto(site.url("/sso/authorize?next=/%23/files"))
    sign_in_if_asked(page, binding)
    back = page.locator("#back").get_attribute("href") or ""
    other = context.new_page()
    other.goto(back, wait_until="commit")
    confirm_if_asked(other, binding)
    expect(other.locator("h1")).to_have_text("ada")
    assert other.url == site.url("/#/files")
    # The first tab follows later: the code is not exchanged again.
    page.locator("#back").click()
    expect(page.locator("h1")).to_have_text("ada")
    assert len(exchanges(server)) == 1


@pytest.mark.parametrize("binding", ["state", "confirm"])
def test_a_duplicated_tab(
    serve: Callable[..., Flask],
    site: Site,
    server: ScriptedServer,
    context: BrowserContext,
    binding: str,
) -> None:
    """A duplicated tab starts with a copy of the first tab's session storage."""
    serve(protected=True, binding=binding)
    server.answers[AUTHORIZE] = sends_back(wait=True, echo_state=binding == "state")
    page = context.new_page()
    page.goto(site.url("/#/first"))
    sign_in_if_asked(page, binding)
    expect(page.locator("#back")).to_be_visible()
    page.goto(site.url("/who"))
    with context.expect_page() as opened:
        page.evaluate("open('/#/second')")
    copy = opened.value
    sign_in_if_asked(copy, binding)
    expect(copy.locator("#back")).to_be_visible()
    page.goto(site.url("/#/first"))
    sign_in_if_asked(page, binding)
    expect(page.locator("#back")).to_be_visible()
    for tab, route in ((page, "/#/first"), (copy, "/#/second")):
        tab.locator("#back").click()
        confirm_if_asked(tab, binding)
        expect(tab.locator("h1")).to_have_text("ada")
        assert tab.url == site.url(route)


@pytest.mark.parametrize(
    ("host", "reason"), [("127.0.0.1", "login_unknown"), ("localhost", "cross_site")]
)
def test_confirm_starts_and_ends_on_our_own_site(
    serve: Callable[..., Flask],
    site: Site,
    server: ScriptedServer,
    page: Page,
    host: str,
    reason: str,
) -> None:
    """A foreign page can neither start a login, directly or by a guarded page, nor confirm one.

    The browser sends the cookie from another port of the host, but not from another site.
    """
    serve(binding="confirm")
    server.answers[AUTHORIZE] = sends_back(echo_state=False)
    evil = Site()
    evil.app = Flask("evil")

    @evil.app.get("/")
    def home() -> str:
        return f"<a href='{request.args['to']}'>go</a>"

    @evil.app.get("/form")
    def form() -> str:
        to = request.args["to"]
        return f"<form method=post action='{to}'><button name=answer value=yes>go</button></form>"

    try:
        page.goto(evil.url("/?to=" + _quoted(site.url("/private")), host))
        page.get_by_role("link").click()
        expect(page.get_by_role("button", name="Sign in")).to_be_visible()
        assert server.seen == []
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("button", name="Continue as ada")).to_be_visible()
        question = page.url
        page.goto(evil.url("/form?to=" + _quoted(question), host))
        page.get_by_role("button").click()
        expect(page.locator("html")).to_have_attribute("data-reason", reason)
        page.goto(question)
        page.get_by_role("button", name="Continue as ada").click()
        expect(page.locator("body")).to_have_text("private ada")
    finally:
        evil.stop()


@pytest.mark.parametrize(
    ("fragment", "glue"),
    [
        ("#/login", "?"),
        ("#/", "&"),
        ("#/login?from=sso", "?"),
        ("#/login?from=sso", "&"),
        ("", "?"),
    ],
)
def test_a_server_that_appends_blindly_to_a_redirect_uri_with_a_nonce(
    serve: Callable[..., Flask],
    site: Site,
    server: ScriptedServer,
    page: Page,
    fragment: str,
    glue: str,
) -> None:
    """The server ignores the query and the fragment that the redirect_uri already has."""
    serve(protected=True, binding="redirect_uri", fragment=fragment)

    def append(handler: Any) -> None:
        query = parse_qs(urlsplit(handler.path).query)
        handler.send_response(302)
        handler.send_header("Location", f"{query['redirect_uri'][0]}{glue}code={CODE}")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.answers[AUTHORIZE] = append
    page.goto(site.url("/#/files"))
    expect(page.locator("h1")).to_have_text("ada")
    assert page.url == site.url("/#/files")
    (exchange,) = exchanges(server)
    assert exchange["redirect_uri"].startswith(site.url("/") + fragment)
    assert "code=" not in exchange["redirect_uri"]


def test_two_codes_are_refused(
    serve: Callable[..., Flask], site: Site, server: ScriptedServer, page: Page
) -> None:
    serve()
    for more in ("&code=B", "?code=B", f"&code={CODE}"):
        server.answers[AUTHORIZE] = sends_back(code=CODE + more)
        page.goto(site.url("/sso/authorize"))
        expect(page.locator("html")).to_have_attribute("data-reason", "code_missing")
        page.goto("about:blank")
    assert exchanges(server) == []


def test_requests_other_than_page_loads_reach_the_application(serve: Callable[..., Flask]) -> None:
    app = serve()
    app.add_url_rule("/", view_func=lambda: "posted", endpoint="posted", methods=["POST"])
    client = app.test_client()
    client.get("/sso/authorize")
    page_load = {"Sec-Fetch-Dest": "document", "Accept": "text/html"}
    landing = client.get("/?code=C", headers=page_load)
    assert 'data-devkit-sso-onward="' in landing.text
    assert landing.status_code == 200
    policy = landing.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    assert "base-uri 'none'" in policy
    assert landing.headers["Cache-Control"] == "no-store"
    assert landing.headers["Referrer-Policy"] == "no-referrer"
    # A prefetched page may be shown later: it must not be the application's page.
    ahead = client.get("/", headers=page_load | {"Sec-Purpose": "prefetch;prerender"})
    assert 'data-devkit-sso-onward="' in ahead.text
    assert client.head("/", headers=page_load).headers["Content-Type"].startswith("text/html")
    assert client.post("/", headers=page_load).text == "posted"
    for destination in ("iframe", "empty", "script", "image", "serviceworker"):
        assert "nobody" in client.get("/", headers={"Sec-Fetch-Dest": destination}).text
    assert "nobody" in client.get("/", headers={"X-Requested-With": "XMLHttpRequest"}).text


@pytest.mark.parametrize("protected", [False, True])
def test_a_proxy_that_shows_another_host(
    serve: Callable[..., Flask],
    site: Site,
    server: ScriptedServer,
    page: Page,
    protected: bool,
) -> None:
    """Only the browser can see that the page has the wrong name of this machine.

    The person is at another name than the redirect_uri's, or at the right name while the Host
    header has the wrong one.
    """
    for comes_back, shown in (("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1")):
        app = serve(protected=protected, redirect_uri=site.url("/#/login", comes_back))
        starts: list[str] = []

        def behind(
            environ: Any,
            start_response: Any,
            app: Any = app,
            shown: str = shown,
            starts: list[str] = starts,
        ) -> Any:
            starts.extend(["x"] if environ["PATH_INFO"] == "/sso/authorize" else [])
            environ["HTTP_HOST"] = f"{shown}:{site.port}"
            return app(environ, start_response)

        site.app = behind
        server.seen.clear()
        page.context.clear_cookies()
        address = "/#/files" if protected else "/sso/authorize?next=/%23/files"
        page.goto(site.url(address, "localhost"))
        expect(page.locator("h1")).to_have_text("ada")
        assert page.url == site.url("/#/files", comes_back)
        assert len(exchanges(server)) == 1
        assert len(starts) == 2


def test_only_the_redirect_is_to_another_name(
    serve: Callable[..., Flask], site: Site, server: ScriptedServer, page: Page
) -> None:
    """Somebody edited the address by hand: the code is not exchanged, and there is no loop."""
    serve(protected=True)
    server.answers[AUTHORIZE] = sends_back(wait=True)
    page.goto(site.url("/#/files"))
    back = page.locator("#back").get_attribute("href") or ""
    server.answers[AUTHORIZE] = sends_back()
    page.goto(back.replace("localhost", "127.0.0.1"))
    expect(page.locator("h1")).to_have_text("ada")
    assert page.url == site.url("/")
    assert len(exchanges(server)) == 1


def test_a_service_worker_that_answers_from_its_cache(
    serve: Callable[..., Flask], site: Site, server: ScriptedServer, page: Page
) -> None:
    """The cached page must load the script, because the request does not reach Flask."""
    app = serve()
    app.view_functions["home"] = lambda: (
        "<!doctype html><link rel=icon href='data:,'><script src=/sso/landing.js></script>"
        "<h1>kept</h1><script>navigator.serviceWorker.register('/sw.js')</script>"
    )
    worker = """
      const keep = async () => (await caches.open("app")).add("/");
      oninstall = event => event.waitUntil(keep());
      onactivate = event => event.waitUntil(clients.claim());
      onfetch = event => {
        const {mode, url} = event.request;
        const home = mode === "navigate" && new URL(url).pathname === "/";
        if (home) event.respondWith(caches.match("/"));
      };
    """
    app.add_url_rule(
        "/sw.js",
        view_func=lambda: (worker, 200, {"Content-Type": "text/javascript"}),
        endpoint="sw",
    )
    page.goto(site.url("/"))
    page.evaluate("navigator.serviceWorker.ready.then(() => 1)")
    page.goto(site.url("/sso/authorize?next=/%23/files"))
    expect(page).to_have_url(site.url("/#/files"))
    expect(page.locator("h1")).to_have_text("kept")
    assert len(exchanges(server)) == 1
    page.goto(site.url("/who"))
    assert json.loads(page.locator("body").inner_text())["username"] == "ada"
