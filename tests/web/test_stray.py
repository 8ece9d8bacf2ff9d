"""Authorization responses that belong to no pending login, and the Back button."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import BrowserContext, Page, expect
from werkzeug.test import TestResponse

from .. import clock
from ..browser import Site
from ..clock import advance
from ..conftest import CODE, SIGNED_IN, AppMaker, come_back, cookies, reason, sign_in, start
from ..scenarios import KINDS, Walk, exchanged
from ..scripted import GET_USER_INFO, ScriptedServer, says

SAME = {"Sec-Fetch-Site": "same-origin"}


def answer_with(client: FlaskClient, is_post: bool, **parameters: str) -> str:
    """Return with a response, and return where it leads."""
    if is_post:
        body = {name: [value] for name, value in parameters.items()}
        posted = client.post("/sso/callback", json=body, headers=SAME)
        assert posted.status_code == 200, posted.text
        where: str = posted.get_json()["next"]
        return where
    response = client.get("/sso/callback", query_string=parameters)
    assert response.status_code == 303, response.text
    assert response.headers["Cache-Control"] == "no-store"
    return response.location


def begin(client: FlaskClient, binding: str, next_url: str) -> dict[str, str]:
    """Start a login, and return what the server returns besides the code."""
    query = start(client, next_url)
    if binding == "state":
        return {"state": query["state"]}
    nonce = parse_qs(urlsplit(query["redirect_uri"]).query).get("s")
    return {"s": nonce[0]} if nonce else {}


@pytest.mark.parametrize("is_post", [False, True], ids=["get", "post"])
@pytest.mark.parametrize("binding", ["state", "redirect_uri"])
def test_a_response_to_the_login_that_began_the_session(
    make_app: AppMaker,
    server: ScriptedServer,
    caplog: pytest.LogCaptureFixture,
    binding: str,
    is_post: bool,
) -> None:
    """The person continues to the page that the login led to, however late."""
    client = make_app(binding=binding).test_client()
    mine = begin(client, binding, "/private?a=1")
    assert answer_with(client, is_post, code=CODE, **mine) == "/private?a=1"
    caplog.set_level(logging.INFO)
    for hours in (0, 0, 0.4):
        clock.advance(hours * 3600)
        caplog.clear()
        for parameters in ({"code": "FRESH"}, {"error": "access_denied"}):
            assert answer_with(client, is_post, **parameters, **mine) == "/private?a=1"
        assert [record.levelname for record in caplog.records] == ["INFO"] * 2
        assert client.get("/private").text == "private ada"
    assert exchanged(server) == [CODE]
    # Another person at the same browser, and nobody
    other = make_app(binding=binding).test_client()
    assert reason(other.get("/sso/callback", query_string={"code": "C", **mine})) in (
        "login_unknown",
        "login_expired",
        "cookie_missing",
    )
    client.post("/sso/logout", headers=SAME)
    assert client.get("/sso/callback", query_string={"code": "C", **mine}).status_code == 400
    assert exchanged(server) == [CODE]


@pytest.mark.parametrize("is_post", [False, True], ids=["get", "post"])
@pytest.mark.parametrize("binding", ["state", "redirect_uri", "confirm"])
def test_a_response_to_no_login_of_this_browser(
    make_app: AppMaker,
    server: ScriptedServer,
    caplog: pytest.LogCaptureFixture,
    binding: str,
    is_post: bool,
) -> None:
    """A person who is signed in stays signed in, and learns who they are. It is logged."""
    app = make_app(binding=binding)
    client, attacker = app.test_client(), app.test_client()
    expired, mine = (begin(client, binding, "/private") for _ in range(2))
    where = answer_with(client, is_post, code=CODE, **mine)
    if binding == "confirm":
        client.post(where, data={"answer": "yes"}, headers=SAME)
    clock.advance(700)
    theirs = begin(attacker, binding, "/private")
    stray = [{}, {"state": "made-up"}, {"s": "made-up"}, theirs, expired]
    for parameters in stray:
        for result in ({"code": "EVIL"}, {"error": "access_denied"}):
            caplog.clear()
            assert answer_with(client, is_post, **result, **parameters) == SIGNED_IN
            (record,) = caplog.records
            assert record.levelname == "WARNING"
            assert "uid 'u-1' stays signed in" in record.getMessage()
            assert "EVIL" not in record.getMessage()
            assert not any(value in record.getMessage() for value in parameters.values())
    assert exchanged(server) == [CODE]
    page = client.get(SIGNED_IN)
    assert page.status_code == 200
    assert "You are signed in as <bdi>ada</bdi>" in page.text
    assert 'href="/">Continue</a>' in page.text
    assert '<form method="post" action="/sso/logout"' in page.text
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    assert page.headers["Cache-Control"] == "no-store"
    # Nobody is signed in: no page but the one that says so.
    assert attacker.get(SIGNED_IN).location == "/sso/signed-out"


def test_the_warning_names_keys_that_differ_between_workers(
    make_app: AppMaker, caplog: pytest.LogCaptureFixture
) -> None:
    app, other = make_app(binding="state"), make_app(binding="state")
    other.secret_key = "the-key-of-another-worker-51f0"
    client = app.test_client()
    _, mine = (begin(client, "state", "/private") for _ in range(2))
    answer_with(client, False, code=CODE, **mine)
    theirs = begin(other.test_client(), "state", "/private")
    caplog.clear()
    assert answer_with(client, False, code="C", **theirs) == SIGNED_IN
    (record,) = caplog.records
    assert "was ignored (state_mismatch)" in record.getMessage()
    assert "check that all workers use the same SECRET_KEY" in record.getMessage()


def test_confirm_trusts_the_tab_with_no_more_than_the_page(
    make_app: AppMaker, server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The tab that started the login may say so. That proves nothing, so there is a warning."""
    client = make_app(binding="confirm").test_client()
    start(client, "/private")
    (name,) = [c.key.partition("_login_")[2] for c in cookies(client) if "_login_" in c.key]
    question = client.get("/sso/callback?code=C").location
    client.post(question, data={"answer": "yes"}, headers=SAME)
    for login, expected in ((name, "/private"), (name[1:], SIGNED_IN), ("", SIGNED_IN)):
        caplog.clear()
        body = {"code": ["EVIL"], "login": login}
        assert client.post("/sso/callback", json=body, headers=SAME).json["next"] == expected
        assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert exchanged(server) == ["C"]


def test_a_response_to_a_pending_login_may_change_the_person(
    client: FlaskClient, server: ScriptedServer
) -> None:
    first, second = start(client, "/private")["state"], start(client, "/private?b")["state"]
    come_back(client, first)
    user = {"uid": "u-2", "username": "bob", "role": "User"}
    server.answers[GET_USER_INFO] = says({"code": "2000", "data": user})
    assert come_back(client, second).location == "/private?b"
    assert client.get("/private").text == "private bob"
    # From now on, it is the second login that began the session.
    assert come_back(client, second).location == "/private?b"
    assert come_back(client, first).location == SIGNED_IN


@pytest.mark.parametrize("page", ["/private", "/"], ids=["page", "default page"])
def test_a_copy_of_a_response_that_has_just_been_used(
    app: Flask, client: FlaskClient, server: ScriptedServer, page: str
) -> None:
    """The browser still has the login's cookie, but the login was used by another tab's request."""
    state = start(client, page)["state"]
    login = [cookie for cookie in cookies(client) if "_login_" in cookie.key]
    assert come_back(client, state).location == page
    for cookie in login:
        client.set_cookie(cookie.key, cookie.value)
    assert come_back(client, state).location == page
    assert exchanged(server) == [CODE]


def test_a_failure_of_a_pending_login_is_shown_to_a_person_who_is_signed_in(
    client: FlaskClient,
) -> None:
    sign_in(client)
    other = client.application.test_client()
    pending = start(other)["state"]
    for cookie in cookies(other):
        client.set_cookie(cookie.key, cookie.value)
    denied = client.get("/sso/callback", query_string={"error": "access_denied", "state": pending})
    assert (denied.status_code, reason(denied)) == (403, "denied")


def test_while_the_store_is_unavailable_nothing_is_said_about_the_person(
    client: FlaskClient, tmp_path: Any
) -> None:
    sign_in(client)
    for file in tmp_path.iterdir():
        file.unlink()
    (tmp_path / "devkit_sso.db").write_bytes(b"no database at all, but long enough" * 100)
    advance(1)  # A read notices within a second that the file was replaced.
    response = client.get("/sso/callback?code=C")
    assert (response.status_code, reason(response)) == (503, "store_unavailable")


def test_going_back_to_the_question_of_confirm(make_app: AppMaker, server: ScriptedServer) -> None:
    client = make_app(binding="confirm").test_client()
    start(client)
    question = client.get("/sso/callback?code=C").location

    def answer(text: str) -> TestResponse:
        return client.post(question, data={"answer": text}, headers=SAME)

    assert client.get("/sso/callback?code=C").status_code == 400, "nobody is signed in yet"
    answer("yes")
    assert client.get(question).location == SIGNED_IN
    for text in ("yes", "no"):
        assert answer(text).location == SIGNED_IN
    assert client.get("/who").get_json()["username"] == "ada"
    client.post("/sso/logout", headers=SAME)
    assert reason(client.get(question)) == "login_unknown"


# In Chromium


@pytest.fixture
def walk(site: Site, server: ScriptedServer, make_app: AppMaker) -> Walk:
    return Walk(site, server, make_app)


def history(page: Page) -> list[str]:
    session = page.context.new_cdp_session(page)
    return [entry["url"] for entry in session.send("Page.getNavigationHistory")["entries"]]


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_back_button_in_chromium(
    walk: Walk,
    site: Site,
    server: ScriptedServer,
    context: BrowserContext,
    page: Page,
    kind: str,
) -> None:
    """Back, a reload, a restored tab and a bookmark exchange nothing and leave no code."""
    walk.serve(kind)
    mine = site.url("/private")
    page.goto(site.url("/"))
    page.locator("#private").click()
    page.locator("#back").click(no_wait_after=True)
    expect(page).to_have_url(mine)
    expect(page.locator("h1")).to_have_text("ada")
    page.reload()
    expect(page.locator("h1")).to_have_text("ada")
    # The authentication server sends the person back with a fresh code.
    with page.expect_event("domcontentloaded"):
        page.evaluate("void setTimeout(() => history.back())")
    expect(page).to_have_url(mine)
    expect(page.locator("h1")).to_have_text("ada")
    assert len(walk.responses) == 2
    # Nothing keeps the person from going further back.
    page.evaluate("void setTimeout(() => history.back())")
    expect(page).to_have_url(site.url("/"))
    # A restored tab, or a bookmark: with the first code, and with a fresh one
    for url in (walk.responses[0], walk.responses[0].replace("CODE0", "FRESH")):
        tab = context.new_page()
        tab.goto(url, wait_until="commit")
        expect(tab).to_have_url(mine)
        expect(tab.locator("h1")).to_have_text("ada")
        tab.close()
    # A response that somebody else asked for
    other = walk.responses[0].replace("state=", "state=x")
    page.goto(mine)
    page.goto(other, wait_until="commit")
    expect(page.get_by_role("heading")).to_have_text("You are signed in as ada")
    assert page.url == site.url(SIGNED_IN)
    page.reload()
    expect(page.get_by_role("heading")).to_have_text("You are signed in as ada")
    page.get_by_role("link", name="Continue").click()
    expect(page).to_have_url(site.url("/"))
    assert exchanged(server) == ["CODE0"]
    assert not any("code=" in url for url in history(page))
    assert walk.seen
    assert not any("code=" in address for address in walk.seen)
    page.goto(mine)
    page.goto(other, wait_until="commit")
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("html")).to_have_attribute("data-outcome", "told")
    assert exchanged(server) == ["CODE0"]
