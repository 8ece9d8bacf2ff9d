"""The landing page in Chromium: how it leads to the application's page, and what neighbours can do.

A neighbour is another host of the same domain, which can set cookies for the whole domain.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import trustme
from flask import Flask, Response, redirect, request
from playwright.sync_api import BrowserContext, Page, expect
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from flask_devkit_sso import current_user

from .. import browser as sites
from ..browser import CODE, Site, response_url, sends_back
from ..conftest import SIGNED_IN, AppMaker
from ..scripted import GET_TOKEN, ScriptedServer

pytestmark = [pytest.mark.browser, pytest.mark.slow]

AUTHORIZE = "/sso/oauth2/authorize"
CHROMIUM: dict[str, Any] = {
    **sites.CHROMIUM,
    "args": [*sites.CHROMIUM["args"], "--host-resolver-rules=MAP *.example.test 127.0.0.1"],
}
HOME = """<!doctype html><title>app</title><link rel=icon href="data:,">
<h1>%s</h1><a id=in href="/other">in</a>
<script>navigator.sendBeacon("/seen", location.href)</script>"""

Serve = Callable[..., Flask]


@pytest.fixture
def seen() -> list[str]:
    """The addresses that the application's scripts have seen."""
    return []


@pytest.fixture
def serve(site: Site, server: ScriptedServer, make_app: AppMaker, seen: list[str]) -> Serve:
    """Serve an application at the path of its redirect_uri."""

    def serve_it(fragment: str = "/#/login", at: Site = site, **settings: Any) -> Flask:
        app = make_app(**{"redirect_uri": site.url(fragment)} | settings)
        app.view_functions["home"] = lambda: HOME % (current_user.username or "nobody")
        app.add_url_rule("/other", "other", lambda: "<a id=home href='/'>home</a>")

        def record() -> str:
            seen.append(request.get_data(as_text=True))
            return ""

        app.add_url_rule("/seen", "record", record, methods=["POST"])
        server.answers[AUTHORIZE] = sends_back()
        at.app = app
        return app

    return serve_it


@pytest.fixture
def elsewhere() -> Iterator[Site]:
    """Another site, with a link or a redirect to the address in its query."""
    other = Site()
    app = Flask("elsewhere")
    app.add_url_rule("/", "home", lambda: f"<a id=go href='{request.args['to']}'>go</a>")
    app.add_url_rule("/back", "back", lambda: redirect(request.args["to"]))
    other.app = app
    yield other
    other.stop()


def follow_link(page: Page, elsewhere: Site, url: str) -> None:
    """Follow a link on a page of another host."""
    page.goto(elsewhere.url("/?to=" + quote(url, safe=""), "127.0.0.1"))
    page.locator("#go").click(no_wait_after=True)


def requests_of(site: Site) -> list[str]:
    """Record the requests for pages, byte for byte."""
    app, requests = site.app, []
    assert app is not None

    def watched(environ: Any, start_response: Any) -> Any:
        if "text/html" in environ.get("HTTP_ACCEPT", ""):
            requests.append(environ["REQUEST_URI"])
        return app(environ, start_response)

    site.app = watched
    return requests


def without_fetch_metadata(app: Any) -> Any:
    """Serve an application to a browser that sends no Sec-Fetch headers."""

    def serve_it(environ: Any, start_response: Any) -> Any:
        old = {name: environ[name] for name in environ if not name.startswith("HTTP_SEC_")}
        return app(old, start_response)

    return serve_it


def exchanged(server: ScriptedServer) -> list[str]:
    return [seen.json["authorization_code"] for seen in server.seen if seen.path == GET_TOKEN]


@pytest.mark.parametrize("is_old", [False, True], ids=["fetch-metadata", "old"])
def test_a_link_from_elsewhere_costs_one_load(
    serve: Serve, site: Site, elsewhere: Site, page: Page, is_old: bool
) -> None:
    """Path, query and hash are kept byte for byte, and nothing of the landing page is visible."""
    app = serve("/a%C3%A4/#/login")
    app.add_url_rule("/aä/", "page", app.view_functions["home"])
    if is_old:
        page.goto(site.url("/sso/authorize"))
        expect(page.locator("h1")).to_have_text("ada")
        site.app = without_fetch_metadata(site.app)
    requests = requests_of(site)
    visible: list[str] = []
    page.expose_function("tell", lambda text: visible.append(text))
    page.add_init_script(
        "new MutationObserver(() => tell(document.title + (document.body?.innerText ?? '')))"
        ".observe(document, {childList: true, subtree: true})"
    )
    for tail in ("", "?", "?f[]=%zz&a=%20+%2B|{}^", "#/x?y=1"):
        requests.clear()
        follow_link(page, elsewhere, site.url(f"/a%C3%A4/{tail}"))
        expect(page).to_have_title("app")
        assert page.url == site.url(f"/a%C3%A4/{tail}")
        loads = [path for path in requests if not path.startswith("/sso/")]
        assert loads == [f"/a%C3%A4/{tail.partition('#')[0]}"] * 2, tail
    assert not [text for text in visible if "moment" in text or "ontinue" in text]


def test_links_within_the_site_cost_nothing(
    serve: Serve, site: Site, elsewhere: Site, page: Page
) -> None:
    serve()
    follow_link(page, elsewhere, site.url("/"))
    expect(page).to_have_title("app")
    requests = requests_of(site)
    page.locator("#in").click()
    page.locator("#home").click()
    expect(page).to_have_url(site.url("/"))
    page.reload()
    assert [path for path in requests if path != "/other"] == ["/"] * 2
    page.evaluate("void setTimeout(() => history.back())")
    expect(page).to_have_url(site.url("/other"))
    page.evaluate("void setTimeout(() => history.forward())")
    expect(page).to_have_title("app")
    assert "/sso/" not in "".join(requests)


def test_a_loop_of_redirects_ends_with_a_link(
    serve: Serve, site: Site, elsewhere: Site, page: Page
) -> None:
    """The application redirects to another site, which redirects back."""
    app = serve()
    away = elsewhere.url("/back?to=" + quote(site.url("/"), safe=""), "127.0.0.1")
    loops = [True]
    app.view_functions["home"] = lambda: redirect(away) if loops else HOME % "nobody"
    requests = requests_of(site)
    follow_link(page, elsewhere, site.url("/#/files?x=1"))
    expect(page.locator("h1")).to_have_text("Continue to this site")
    expect(page.locator("main")).not_to_contain_text("JavaScript")
    assert [path.partition("&")[0] for path in requests] == ["/", "/sso/onward?to=%2F", "/", "/"]
    loops.clear()
    page.get_by_role("link", name="Continue").click()
    expect(page).to_have_title("app")
    assert page.url == site.url("/#/files?x=1")


def test_visits_in_quick_succession_are_no_loop(
    serve: Serve, site: Site, elsewhere: Site, page: Page
) -> None:
    serve()
    for _ in range(3):
        follow_link(page, elsewhere, site.url("/"))
        expect(page).to_have_title("app")
        page.reload()
        expect(page).to_have_title("app")


def test_a_form_of_another_site_reaches_the_application(
    serve: Serve, site: Site, elsewhere: Site, page: Page
) -> None:
    app = serve()

    def post() -> Any:
        return redirect(f"/?name={request.form['name']}", 303)

    app.add_url_rule("/", "posted", post, methods=["POST"])
    action = site.url("/#/x")
    form = f"<form method=post action='{action}'><button name=name value=v>go</button></form>"
    assert isinstance(elsewhere.app, Flask)
    elsewhere.app.add_url_rule("/form", "form", lambda: form)
    page.goto(elsewhere.url("/form", "127.0.0.1"))
    page.get_by_role("button").click(no_wait_after=True)
    expect(page).to_have_title("app")
    assert page.url == site.url("/?name=v#/x")


@pytest.mark.parametrize("position", ["end", "query"])
@pytest.mark.parametrize("signed_in", [False, True], ids=["new", "signed-in"])
def test_a_response_that_no_login_here_waits_for(
    serve: Serve,
    site: Site,
    server: ScriptedServer,
    elsewhere: Site,
    page: Page,
    seen: list[str],
    position: str,
    signed_in: bool,
) -> None:
    """The code is removed from the address and never exchanged."""
    serve()
    if signed_in:
        page.goto(site.url("/sso/authorize"))
        expect(page.locator("h1")).to_have_text("ada")
    server.answers[AUTHORIZE] = sends_back(code="LIVE", position=position)
    uri = quote(site.url("/#/login"), safe="")
    follow_link(page, elsewhere, f"{server.url}{AUTHORIZE}?redirect_uri={uri}")
    if signed_in:
        expect(page.locator("h1")).to_have_text("You are signed in as ada")
        assert page.url == site.url(SIGNED_IN)
    else:
        expect(page.locator("html")).to_have_attribute("data-reason", "login_unknown")
        assert page.url == site.url("/#/login")
    assert exchanged(server) == [CODE] * signed_in
    assert not any("LIVE" in address for address in seen)


def test_an_authentication_server_on_our_own_origin(
    serve: Serve, site: Site, server: ScriptedServer, page: Page, seen: list[str]
) -> None:
    """Its response arrives as a request of the same origin."""
    app = serve(authorize_url=site.url("/idp/authorize"))
    idp = Flask("idp")

    @idp.get("/authorize")
    def authorize() -> str:
        back = response_url(request.query_string.decode())
        return f"<a id=back href='{back.replace('&', '&amp;')}'>back</a>"

    site.app = DispatcherMiddleware(app, {"/idp": idp})
    page.goto(site.url("/sso/authorize?next=/%23/files"))
    page.locator("#back").click()
    expect(page.locator("h1")).to_have_text("ada")
    assert page.url == site.url("/#/files")
    for _ in range(2):
        page.locator("#in").click()
        page.locator("#home").click(no_wait_after=True)
        expect(page).to_have_title("app")
    uri = quote(site.url("/#/login"), safe="")
    page.goto(site.url(f"/idp/authorize?redirect_uri={uri}"))
    page.locator("#back").click(no_wait_after=True)
    expect(page.locator("h1")).to_have_text("You are signed in as ada")
    assert not any("code=" in address for address in seen)
    assert exchanged(server) == [CODE]


@pytest.mark.parametrize(
    ("position", "binding", "is_old"),
    [
        ("end", "confirm", False),
        ("query", "redirect_uri", False),
        ("query-without-hash", "state", False),
        ("end", "redirect_uri", True),
        ("query", "confirm", True),
        ("query-without-hash", "state", True),
    ],
)
def test_a_redirect_uri_with_a_fragment_at_the_callback(
    serve: Serve,
    site: Site,
    server: ScriptedServer,
    elsewhere: Site,
    page: Page,
    position: str,
    binding: str,
    is_old: bool,
) -> None:
    """The home page is left alone: a link to it costs no landing page."""
    app = serve("/sso/callback#/login", binding=binding)
    site.app = without_fetch_metadata(app) if is_old else app

    def send_back(handler: Any) -> None:
        where, query = position.partition("-")[0], urlsplit(handler.path).query
        url = response_url(query, position=where, echo_state=binding == "state")
        handler.send_response(302)
        handler.send_header("Location", url.split("#")[0] if "-" in position else url)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.answers[AUTHORIZE] = send_back
    for next_url in ("/#/files?x=1", "/other"):
        page.context.clear_cookies()
        page.goto(site.url("/sso/authorize?next=" + quote(next_url)))
        if binding == "confirm":
            page.get_by_role("button", name="Sign in").click()
            page.get_by_role("button", name="Continue as ada").click()
        expect(page).to_have_url(site.url(next_url))
    requests = requests_of(site)
    follow_link(page, elsewhere, site.url("/#/x"))
    expect(page.locator("h1")).to_have_text("ada")
    assert requests == ["/"]
    # Opened by hand, or loaded again after a failure
    page.goto(site.url("/sso/callback#/login"))
    expect(page).to_have_url(site.url("/"))
    assert len(exchanged(server)) == 2


# Neighbours.


class Domain:
    """example.test with an application, its authentication server, and a neighbour."""

    def __init__(self) -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("*.example.test").configure_cert(tls)
        self.app, self.auth, self.evil = Site(tls), Site(tls), Site(tls)
        self.is_waiting = False
        auth = Flask("auth")

        @auth.get("/authorize")
        def authorize() -> Any:
            url = response_url(request.query_string.decode())
            link = f"<a id=back href='{url.replace('&', '&amp;')}'>back</a>"
            return link if self.is_waiting else redirect(url)

        self.auth.app = auth

    def app_url(self, path: str = "/") -> str:
        return self.app.url(path, "app.example.test")

    def authorize_url(self) -> str:
        return self.auth.url("/authorize", "auth.example.test")

    def set_cookies(self, page: Page, cookies: list[str]) -> None:
        """Visit the neighbour, which sets cookies for the whole domain."""

        def set_them() -> Response:
            response = Response("<title>evil</title>")
            for cookie in cookies:
                value = f"{cookie}; Domain=example.test; Path=/; Secure"
                response.headers.add("Set-Cookie", value)
            return response

        evil = Flask("evil")
        evil.add_url_rule("/", "home", set_them)
        evil.add_url_rule("/go", "go", lambda: f"<a id=go href='{request.args['to']}'>go</a>")
        self.evil.app = evil
        page.goto(self.evil.url("/", "evil.example.test"))

    def follow_link(self, page: Page, url: str) -> None:
        page.goto(self.evil.url("/go?to=" + quote(url, safe=""), "evil.example.test"))
        page.locator("#go").click(no_wait_after=True)


@pytest.fixture
def domain() -> Iterator[Domain]:
    running = Domain()
    yield running
    for site in (running.app, running.auth, running.evil):
        site.stop()


def guesses(app: Flask, values: list[str]) -> list[str]:
    """Return cookies with each of our names, which are derived from public values, with and without
    the prefix, and under names that earlier versions used."""
    base = app.extensions["devkit_sso"].session_cookie.removeprefix("__Host-")
    ends = ("", "_login_abcdefgh", "_marker", "_ticket", "_pass_", "_pass_0.5")
    names = [f"{prefix}{base}{end}" for prefix in ("", "__Host-", "=__Host-") for end in ends]
    return [f"{name}={value}" for name in names for value in values]


def test_a_neighbours_cookies_do_not_remove_the_landing_page(
    serve: Serve,
    domain: Domain,
    server: ScriptedServer,
    context: BrowserContext,
    seen: list[str],
) -> None:
    """Neither before a login nor during one does the application see a code."""
    app = serve(
        at=domain.app,
        redirect_uri=domain.app_url("/#/login"),
        authorize_url=domain.authorize_url(),
    )
    # The neighbour may have used the application, and knows tickets that are valid in its browser.
    own = app.test_client()
    text = own.get("/", headers={"Accept": "text/html", "Cookie": "x=1"}).text
    assert "onward" not in text
    page = context.new_page()
    domain.set_cookies(page, guesses(app, ["2", "1"]))
    stray = f"{domain.authorize_url()}?redirect_uri={quote(domain.app_url('/#/login'), safe='')}"
    domain.follow_link(page, stray)
    expect(page.locator("html")).to_have_attribute("data-reason", "login_unknown")
    assert page.url == domain.app_url("/#/login")
    assert exchanged(server) == []

    domain.is_waiting = True
    page.goto(domain.app_url("/sso/authorize?next=/%23/files"))
    expect(page.locator("#back")).to_be_visible()
    domain.set_cookies(context.new_page(), guesses(app, ["2", "1"]))
    page.locator("#back").click(no_wait_after=True)
    expect(page.locator("h1")).to_have_text("ada")
    assert page.url == domain.app_url("/#/files")
    assert exchanged(server) == [CODE]

    domain.is_waiting = False
    for typed in (False, True):
        domain.set_cookies(page, guesses(app, ["2", "1"]))
        if typed:
            page.goto(stray)
        else:
            domain.follow_link(page, stray)
        expect(page.locator("h1")).to_have_text("You are signed in as ada")
        assert page.url == domain.app_url(SIGNED_IN)
    assert exchanged(server) == [CODE]
    assert seen
    assert not any(CODE in address for address in seen)


def test_a_neighbours_ticket_is_not_accepted(
    serve: Serve, domain: Domain, server: ScriptedServer, context: BrowserContext, seen: list[str]
) -> None:
    """In a browser without Fetch Metadata, the only cookie that decides against the landing page
    has the prefix ``__Host-``, and belongs to one browser."""
    app = serve(
        at=domain.app,
        redirect_uri=domain.app_url("/#/login"),
        authorize_url=domain.authorize_url(),
    )
    domain.app.app = without_fetch_metadata(app)
    assert context.browser is not None
    tickets: list[str] = []
    evil_context = context.browser.new_context(ignore_https_errors=True)
    evil_page = evil_context.new_page()
    evil_page.goto(domain.app_url("/sso/authorize"))
    expect(evil_page.locator("h1")).to_have_text("ada")
    evil_page.on("request", lambda request: tickets.append(request.url))
    evil_page.goto(domain.app_url("/other"))
    evil_page.locator("#home").click(no_wait_after=True)
    expect(evil_page.locator("h1")).to_have_text("ada")
    (onward,) = [url for url in tickets if "/sso/onward?" in url]
    evil_context.close()
    seen.clear()

    page = context.new_page()
    domain.is_waiting = True
    page.goto(domain.app_url("/sso/authorize?next=/%23/files"))
    expect(page.locator("#back")).to_be_visible()
    other = context.new_page()
    other.goto(onward)
    domain.set_cookies(other, guesses(app, [onward.partition("ticket=")[2]]))
    page.locator("#back").click(no_wait_after=True)
    expect(page.locator("h1")).to_have_text("ada")
    assert page.url == domain.app_url("/#/files")
    assert not any(CODE in address for address in seen)
