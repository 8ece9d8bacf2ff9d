"""The code in a URL fragment, in Chromium, on an application that does not change."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, request
from playwright.sync_api import Browser, BrowserContext, Page, expect

from flask_devkit_sso import DevKitSSO, current_user, login_required

from .browser import Site, Watch, sends_back, way_back
from .conftest import CODE, AppMaker
from .scripted import GET_TOKEN, GET_USER_INFO, ScriptedServer, says

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.xdist_group("fragment")]

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


def confirm_if_asked(page: Page, binding: str) -> None:
    if binding == "confirm":
        expect(page.get_by_role("heading")).to_contain_text("ada")
        page.get_by_role("button", name="Continue as ada").click()


BINDINGS = ["state", "redirect_uri", "confirm"]
EVERY_WAY = [
    pytest.param(binding, protected, position, id=f"{binding}-{home}-{position}")
    for binding in BINDINGS
    for protected, home in ((False, "public"), (True, "protected"))
    for position in ("end", "query")
]


@pytest.mark.parametrize(("binding", "protected", "position"), EVERY_WAY)
def test_the_page_asked_for_is_reached(
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
    confirm_if_asked(page, binding)
    expect(page.locator("h1")).to_have_text("ada")
    assert page.url == site.url("/#/files?x=1")
    expect(page.locator("#hash")).to_have_text("#/files?x=1")
    assert watch.console == []
    assert not any(CODE in url for url in watch.history())
    assert not any(CODE in referer for referer in watch.referers)
    carried = [url for url in watch.urls if CODE in url and "#" not in url.partition(CODE)[0]]
    assert len(carried) == (1 if position == "query" else 0)  # that one is the server's own doing
    (exchange,) = exchanges(server)
    assert exchange["authorization_code"] == CODE
    sent = [seen.path for seen in server.seen if seen.path.startswith(AUTHORIZE)]
    assert len(sent) == 1
    assert f"redirect_uri={_quoted(exchange['redirect_uri'])}" in sent[0]
    # Back exchanges nothing and shows no code.
    page.go_back()
    page.wait_for_load_state()
    assert CODE not in page.url
    assert len(exchanges(server)) == 1


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("binding", BINDINGS)
def test_tabs_finished_in_any_order_each_land_on_their_own_page(
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
        expect(tab.locator("#back")).to_be_visible()
    order = [(number * 3 + 1) % count for number in range(count)]
    assert sorted(order) == list(range(count))
    for number in order:
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
    """... and the other tab's login goes on."""
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


def test_an_attackers_link_exchanges_nothing(
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
def test_a_window_steered_to_an_attackers_code(
    serve: Callable[..., Flask],
    site: Site,
    server: ScriptedServer,
    context: BrowserContext,
    page: Page,
    binding: str,
) -> None:
    """The attacker's page opens our authorize route, then sends that window to his own code."""
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
            expect(window.get_by_role("link", name="Sign in")).to_be_visible()
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


def test_confirm_names_who_would_be_signed_in_and_no_means_no(
    serve: Callable[..., Flask], site: Site, server: ScriptedServer, page: Page
) -> None:
    serve(binding="confirm")
    server.answers[AUTHORIZE] = sends_back(echo_state=False)
    server.answers[GET_USER_INFO] = says(
        {"code": "2000", "data": {"uid": "u-9", "username": "王<b>小明", "role": "User"}}
    )
    page.goto(site.url("/sso/authorize"))
    expect(page.get_by_role("button", name="Continue as 王<b>小明")).to_be_visible()
    address = page.url
    assert len(exchanges(server)) == 1
    other = page.context.new_page()
    other.goto(site.url("/who"))
    assert '"is_authenticated":false' in other.content().replace(" ", "")
    page.get_by_role("button", name="No").click()
    expect(page).to_have_url(site.url("/sso/signed-out"))
    page.goto(address)
    assert page.locator("html").get_attribute("data-reason") == "login_unknown"


def test_a_framed_landing_is_nothing(
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


def test_a_refusal_at_the_server_comes_back_and_is_told(
    serve: Callable[..., Flask], site: Site, server: ScriptedServer, page: Page
) -> None:
    serve()

    def refuse(handler: Any) -> None:
        url = way_back(handler.path.partition("?")[2])
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


def test_reload_and_double_run_post_once(
    serve: Callable[..., Flask], site: Site, server: ScriptedServer, page: Page
) -> None:
    app = serve(redirect_uri=site.url("/spa#/login"))
    posts: list[str] = []
    app.before_request_funcs[None].insert(
        0, lambda: posts.append(request.path) if request.method == "POST" else None
    )
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


# The front end that Flask does not serve, and what the script understands.

D = "/#/login"
TABLE: list[tuple[str, dict[str, list[str]] | None]] = [
    # The vendor's, at the end of the redirect_uri, and what standard servers do.
    ("/#/login?code=C", {"code": ["C"]}),
    ("/#/login&code=C", {"code": ["C"]}),
    ("/?code=C#/login", {"code": ["C"]}),
    ("/#/login?code=C&state=S", {"code": ["C"], "state": ["S"]}),
    ("/#/login?state=S&code=C", {"code": ["C"], "state": ["S"]}),
    ("/#/login&code=C&state=S", {"code": ["C"], "state": ["S"]}),
    ("/?code=C&state=S#/login", {"code": ["C"], "state": ["S"]}),
    ("/?state=S&code=C&iss=https%3A%2F%2Fa#/login", {"code": ["C"], "state": ["S"]}),
    ("/#/login?code=C&iss=https://a?x=1", {"code": ["C"]}),
    # The binding redirect_uri.
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
    # Two, or an empty one: told as they are, and refused at the callback.
    ("/#/login?code=A&code=B", {"code": ["A", "B"]}),
    ("/?code=A#/login?code=B", {"code": ["A", "B"]}),
    ("/?code=A&code=B#/login", {"code": ["A", "B"]}),
    ("/#/login?code=A?code=B", {"code": ["A", "B"]}),
    ("/#/login?code=", {"code": [""]}),
    ("/#/login?code", {"code": [""]}),
    ("/#/login?code=&code=C", {"code": ["", "C"]}),
    ("/#/login?code=C&state=S&state=T", {"code": ["C"], "state": ["S", "T"]}),
    ("/#/login?code=C&error=e", {"code": ["C"], "error": ["e"]}),
    # Byte for byte.
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
    # Not ours: the application's own routes and parameters.
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


def test_the_scripts_understanding(serve: Callable[..., Flask], site: Site, page: Page) -> None:
    """A page of somebody else's, which loads our script first, as the docs say."""
    app = serve()
    html = "<!doctype html><link rel=icon href='data:,'><script src=/sso/landing.js></script>spa"
    app.view_functions["home"] = lambda: html
    app.add_url_rule("/other", view_func=lambda: html, endpoint="other")
    posted: list[Any] = []

    def answer(route: Any) -> None:
        posted.append((page.evaluate("location.href"), route.request.post_data_json))
        route.fulfill(status=400, json={"error": "test", "message": "told"})

    page.route("**/sso/callback", answer)
    for address, expected in TABLE:
        posted.clear()
        page.goto("about:blank")
        # Not until "load": where there is an answer, the script stops the page.
        page.goto(site.url(address), wait_until="commit")
        if expected is None:
            page.wait_for_load_state()
            assert posted == [], address
            assert page.url == site.url(address), address
            continue
        expect(page.locator("html")).to_have_attribute("data-reason", "test")
        ((shown, body),) = posted
        assert shown == site.url("/#/login"), address
        complete = {"code": [], "error": [], "state": [], "s": [], "login": "", "hash": ""}
        assert body == complete | expected, address


OTHER_FORMS = [
    ("#/", "/#/?code=C", ["C"]),
    ("#/", "/?code=C#/", ["C"]),
    ("#/", "/#/files?code=C", None),
    ("#/login?from=sso", "/#/login?from=sso&code=C", ["C"]),
    ("#/login?from=sso", "/#/login?from=sso?code=C", ["C"]),
    ("#/login?from=sso", "/#/login?from=ssox&code=C", None),
    ("", "/?code=C", ["C"]),
    ("", "/?code=C#/x", None),
    ("", "/#?code=C", None),
    ("?a=1#/login", "/?a=1#/login?code=C", ["C"]),
    ("?a=1#/login", "/?a=1&code=C#/login", ["C"]),
    ("?a=1#/login", "/?a=12&code=C#/login", None),
    ("?a=1#/login", "/#/login?code=C", None),
]


@pytest.mark.parametrize(("fragment", "address", "code"), OTHER_FORMS)
def test_other_redirect_uris(
    serve: Callable[..., Flask],
    site: Site,
    page: Page,
    fragment: str,
    address: str,
    code: list[str] | None,
) -> None:
    app = serve(fragment=fragment)
    app.view_functions["home"] = lambda: "<script src=/sso/landing.js></script>spa"
    posted: list[Any] = []

    def answer(route: Any) -> None:
        posted.append(route.request.post_data_json["code"])
        route.fulfill(status=400, json={"error": "test", "message": "told"})

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
    assert len(response.data) < 4096


def test_a_front_end_that_flask_does_not_serve(
    serve: Callable[..., Flask], site: Site, server: ScriptedServer, page: Page
) -> None:
    app = serve()
    # As a static host would: before Flask, and with no cookie looked at.
    app.before_request_funcs[None].insert(
        0,
        lambda: (
            "<!doctype html><link rel=icon href='data:,'><script src=/sso/landing.js></script>"
            "<script>document.title = 'ran ' + location.hash</script><h1>spa</h1>"
            if request.path == "/"
            else None
        ),
    )
    watch = Watch(page)
    page.goto(site.url("/sso/authorize?next=/%23/files"))
    expect(page).to_have_title("ran #/files")
    assert len(exchanges(server)) == 1
    assert watch.console == []
    page.goto(site.url("/who"))
    assert json.loads(page.locator("body").inner_text())["username"] == "ada"


@pytest.mark.parametrize("start_at", ["localhost", "127.0.0.1"])
def test_the_other_name_of_this_machine(
    serve: Callable[..., Flask], site: Site, server: ScriptedServer, page: Page, start_at: str
) -> None:
    """A login started on localhost with a redirect_uri on 127.0.0.1, and the other way round."""
    comes_back = "127.0.0.1" if start_at == "localhost" else "localhost"
    serve(protected=True, redirect_uri=site.url("/#/login", comes_back))
    page.goto(site.url("/#/files", start_at))
    expect(page.locator("h1")).to_have_text("ada")
    assert page.url == site.url("/#/files", comes_back)
    assert len(exchanges(server)) == 1
