"""When Firefox loads the landing page. See tests/web/test_landing_in_chromium.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask, redirect, request

from ..browser import Site, sends_back
from ..conftest import AppMaker
from ..scenarios import AUTHORIZE, HOME
from ..scripted import ScriptedServer
from .firefox import Tab

Load = tuple[str, str, bool]
"""An address without our paths, its Sec-Fetch-Site, and whether it shows the landing page."""


@pytest.fixture
def elsewhere() -> Iterator[Site]:
    """Another site, with a link or a redirect to the address in its query."""
    running, app = Site(), Flask("elsewhere")
    app.add_url_rule("/", "home", lambda: f"<a href='{request.args['to']}'>go</a>")
    app.add_url_rule("/back", "back", lambda: redirect(request.args["to"]))
    running.app = app
    yield running
    running.stop()


def loads_of(site: Site, app: Callable[..., Iterable[bytes]], *, is_old: bool) -> list[Load]:
    """Serve an application, and record the pages that a browser loads.

    :param is_old: whether the application receives no Fetch Metadata, as from an old browser.
    """
    loads: list[Load] = []

    def watched(environ: Any, start_response: Any) -> Any:
        # The package removes the query from the environment, because it may contain a code.
        path, sent = environ["REQUEST_URI"], environ.get("HTTP_SEC_FETCH_SITE", "")
        if is_old:
            environ = {name: environ[name] for name in environ if "HTTP_SEC_" not in name}
        body = b"".join(app(environ, start_response))
        if "text/html" in environ.get("HTTP_ACCEPT", "") and not path.startswith("/sso/"):
            loads.append((path, sent, b"data-devkit-sso-onward" in body))
        return [body]

    site.app = watched
    return loads


@pytest.mark.parametrize("is_old", [False, True], ids=["fetch-metadata", "old"])
def test_what_leads_to_the_landing_page(
    site: Site, server: ScriptedServer, make_app: AppMaker, elsewhere: Site, tab: Tab, is_old: bool
) -> None:
    app = make_app(redirect_uri=site.url("/#/login"))
    away = elsewhere.url("/back?to=" + quote(site.url("/"), safe=""), "127.0.0.1")
    loops: list[bool] = []
    html = HOME.replace("/private", "/other") % "home"
    app.view_functions["home"] = lambda: redirect(away) if loops else html
    app.add_url_rule("/seen", "seen", lambda: "", methods=["POST"])
    app.add_url_rule("/other", "other", lambda: "<title>other</title><a href='/'>home</a>")
    loads = loads_of(site, app, is_old=is_old)

    def opened(tail: str = "") -> list[Load]:
        tab.wait_for("document.title == 'app' && document.readyState == 'complete'")
        assert tab.url == site.url("/" + tail)
        found = loads.copy()
        loads.clear()
        return found

    def follow_link(url: str) -> None:
        tab.goto(elsewhere.url("/?to=" + quote(url, safe=""), "127.0.0.1"))
        tab.press("go")

    # Typed, in a browser that is not known
    tab.goto(site.url("/"))
    assert opened() == [("/", "none", False)]
    # Links within the site, and a reload
    tab.press("private")
    tab.wait_for("document.title == 'other'")
    tab.press("home")
    assert opened() == [("/other", "same-origin", False), ("/", "same-origin", False)]
    tab.reload()
    assert [load[2] for load in opened()] == [False]
    # Links of another site: one load more, in which the address stays as it is
    for tail in ("", "?", "?f[]=%zz&a=%20+%2B|{}^", "#/x?y=1"):
        if is_old:
            break
        follow_link(site.url(f"/{tail}"))
        tab.wait_for("document.title == 'app'")
        page = "/" + tail.partition("#")[0]
        assert opened(tail) == [(page, "cross-site", True), (page, "same-origin", False)]
    # A person who is known here
    server.answers[AUTHORIZE] = sends_back()
    tab.goto(site.url("/sso/authorize"), wait="none")
    tab.wait_for("document.title == 'app'")
    loads.clear()
    for tail in ("", "?f[]=%zz", "?a#/x?y=1"):
        tab.goto("about:blank")
        tab.goto(site.url(f"/{tail}"), wait="none")
        tab.wait_for("document.title == 'app'")
        page = "/" + tail.partition("#")[0]
        assert opened(tail) == [(page, "none", True), (page, "same-origin", False)]
    tab.reload()
    assert [load[2] for load in opened(tail)] == ([True, False] if is_old else [False])
    # A loop of redirects ends with a link.
    loops.append(True)
    follow_link(site.url("/#/files?x=1"))
    tab.wait_for_text("Continue to this site")
    assert len(loads) <= 4
    loops.clear()
    tab.press("Continue")
    tab.wait_for("document.title == 'app'")
    assert tab.url == site.url("/#/files?x=1")
