"""Run the programs in docs/landing.md, bindings.md and sessions.md unchanged."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from playwright.sync_api import Page, expect
from werkzeug.wrappers import Response

from flask_devkit_sso.testing import login_as

from .. import documents
from ..browser import Site, Watch, sends_back
from ..conftest import CODE
from ..documents import blocks
from ..scripted import GET_TOKEN, LOGOUT, ScriptedServer

pytestmark = [
    pytest.mark.browser,
    pytest.mark.checkout,
    pytest.mark.slow,
    pytest.mark.xdist_group("front_end_docs"),
]


def run(
    document: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, site: Site, server: str
) -> Flask:
    """Run the program of a document; return its application."""
    (program,) = blocks(document, "python")
    app = documents.run(
        program,
        monkeypatch,
        tmp_path,
        DEVKIT_SSO_SERVER_URL=server,
        DEVKIT_SSO_REDIRECT_URI=site.url("/#/login"),
    )["app"]
    assert isinstance(app, Flask)
    return app


def test_a_front_end_that_flask_does_not_serve(
    site: Site,
    server: ScriptedServer,
    page: Page,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (html,) = blocks("docs/landing.md", "html")
    main, vite = blocks("docs/landing.md", "js")
    (policy,) = re.findall("^Content-Security-Policy: (.*)", blocks("docs/landing.md", "text")[0])
    flask = run("docs/landing.md", monkeypatch, tmp_path, site, server.url)
    to_flask = tuple(re.findall(r'^      "(/\w+)":', vite, re.M))
    files = {"/": (html, "text/html"), "/main.js": (main, "text/javascript")}

    def dev_server(environ: Any, start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path.startswith(to_flask):
            return flask(environ, start_response)
        content, mimetype = files[path]
        headers = {"Content-Security-Policy": policy}
        return Response(content, 200, headers, mimetype)(environ, start_response)

    site.app = dev_server
    server.answers["/sso/oauth2/authorize"] = sends_back()
    watch = Watch(page)
    page.goto(site.url("/#/files?x=1"))
    expect(page.locator("#who")).to_have_text("ada")
    assert page.url == site.url("/#/files?x=1")
    assert server.paths.count(GET_TOKEN) == 1
    assert [line for line in watch.console if "401" not in line] == []
    assert not any(CODE in url for url in watch.history())
    assert not any(CODE in referer for referer in watch.referers)


@pytest.mark.parametrize("position", ["end", "query"])
def test_the_binding_confirm_with_pkce(
    site: Site,
    server: ScriptedServer,
    page: Page,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    position: str,
) -> None:
    site.app = run("docs/bindings.md", monkeypatch, tmp_path, site, server.url)
    server.answers["/sso/oauth2/authorize"] = sends_back(position=position, echo_state=False)
    page.goto(site.url("/#/files"))
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Continue as ada").click()
    expect(page.locator("h1")).to_have_text("Hello ada")
    assert page.url == site.url("/#/files")
    (exchange,) = [seen.json for seen in server.seen if seen.path == GET_TOKEN]
    assert len(exchange["code_verifier"]) >= 43


def test_the_ways_to_sign_out(
    site: Site,
    server: ScriptedServer,
    page: Page,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (html,) = blocks("docs/sessions.md", "html")
    (script,) = blocks("docs/sessions.md", "js")
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/home.html").write_text(html, encoding="utf-8")
    site.app = app = run("docs/sessions.md", monkeypatch, tmp_path, site, server.url)
    server.answers["/sso/oauth2/authorize"] = sends_back()
    heading = page.locator("h1")

    def sign_in() -> None:
        page.goto(site.url("/"))
        expect(page.get_by_text("Hello ada", exact=True)).to_be_visible()

    sign_in()
    page.get_by_role("link", name="Sign out").click()
    page.get_by_role("button", name="Sign out").click()
    expect(heading).to_have_text("You are signed out")
    sign_in()
    page.get_by_role("button", name="Sign out at once").click()
    expect(heading).to_have_text("You are signed out")
    sign_in()
    page.add_script_tag(content=script, type="module")
    expect(heading).to_have_text("You are signed out")
    assert server.paths.count(LOGOUT) == 3

    bob, admin = app.test_client(), app.test_client()
    login_as(bob, "bob", uid="1043")
    login_as(admin, "ada", role="Admin")
    assert bob.post("/people/1043/end-sessions").status_code == 403
    assert admin.post("/people/1043/end-sessions").json == {"ended": 1}
    assert bob.get("/").status_code == 302
