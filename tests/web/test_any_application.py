"""Our pages and scripts in applications that are configured differently."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, jsonify, request
from flask.json.provider import DefaultJSONProvider
from jinja2 import DictLoader, StrictUndefined
from playwright.sync_api import Page, expect
from werkzeug.exceptions import HTTPException

from flask_devkit_sso import ConfigError, LoginFailed
from flask_devkit_sso.testing import login_as

from ..apps import run_first
from ..browser import Site, Watch, sends_back
from ..conftest import CODE, AppMaker, start
from ..scripted import GET_TOKEN, ScriptedServer, fails

HTML = {"Accept": "text/html"}
JSON = {"Accept": "application/json"}
ELSEWHERE = {**HTML, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}
SAME = {"Sec-Fetch-Site": "same-origin"}

Change = Callable[[Flask], Any]

OTHER_SYNTAX = {
    "block_start_string": "<%",
    "block_end_string": "%>",
    "variable_start_string": "[[",
    "variable_end_string": "]]",
    "comment_start_string": "<#",
    "comment_end_string": "#>",
}


def with_jinja(**options: Any) -> Change:
    return lambda app: setattr(app, "jinja_options", options)


def changes_the_environment(app: Flask) -> None:
    environment = app.jinja_env
    environment.variable_start_string = "[["
    environment.globals.clear()
    environment.filters.clear()
    environment.loader = DictLoader({})


def has_names_like_ours(app: Flask) -> None:
    names = ("url_for", "sso_text", "language", "content_policy", "key", "name", "reason")
    others = dict.fromkeys(names, "theirs")
    app.jinja_env.globals.update(others)
    app.context_processor(lambda: others)


def has_a_context_processor_that_fails(app: Flask) -> None:
    app.context_processor(lambda: {"x": 1 / 0})


class JSONResponse(Response):
    default_mimetype = "application/json"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.envelope = "x"

    def get_wsgi_headers(self, environ: Any) -> Any:
        headers = super().get_wsgi_headers(environ)
        headers["Envelope"] = self.envelope
        return headers


class Envelopes(DefaultJSONProvider):
    def dumps(self, obj: Any, **kwargs: Any) -> str:
        return super().dumps({"code": 0, "data": obj}, **kwargs)


def has_another_json(app: Flask) -> None:
    app.json = Envelopes(app)


def rewrites(change: Callable[[Response], Response | None]) -> Change:
    def rewrite(response: Response) -> Response:
        return change(response) or response

    return lambda app: app.after_request(rewrite)


def wraps_json(response: Response) -> Response | None:
    return jsonify(code=0, data=response.get_json()) if response.is_json else None


def wraps_everything(response: Response) -> None:
    response.direct_passthrough = False
    response.set_data(json.dumps({"data": response.get_data(as_text=True)}))
    response.status_code = 200
    response.content_type = "application/json"


def adds_a_script(response: Response) -> None:
    if response.mimetype == "text/html":
        response.set_data(response.get_data().replace(b"<head>", b"<head><script src=/x.js>"))


def has_a_strict_policy(response: Response) -> None:
    response.headers["Content-Security-Policy"] = "script-src 'nonce-1'; style-src 'none'"
    response.headers["Referrer-Policy"] = "unsafe-url"
    response.headers["X-Frame-Options"] = "SAMEORIGIN"


def turns_errors_into_json(app: Flask) -> None:
    app.register_error_handler(HTTPException, lambda error: ({"e": error.code}, error.code))
    app.register_error_handler(Exception, lambda error: ({"e": 500}, 500))


def serves_files_differently(app: Flask) -> None:
    app.config.update(SEND_FILE_MAX_AGE_DEFAULT=31536000, USE_X_SENDFILE=True)


def has_no_templates(app: Flask) -> None:
    app.jinja_loader = None
    app.static_folder = None


def fails_to_build_urls(app: Flask) -> None:
    app.url_build_error_handlers.append(lambda error, endpoint, values: "/wrong")


def traps_exceptions(app: Flask) -> None:
    app.config.update(TRAP_HTTP_EXCEPTIONS=True, PROPAGATE_EXCEPTIONS=True)


CONFIGURATIONS: dict[str, Change] = {
    "another syntax": with_jinja(**OTHER_SYNTAX),
    "no autoescape": with_jinja(autoescape=False),
    "strict undefined": with_jinja(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True),
    "another environment": changes_the_environment,
    "names like ours": has_names_like_ours,
    "a failing context processor": has_a_context_processor_that_fails,
    "a response class": lambda app: setattr(app, "response_class", JSONResponse),
    "another JSON": has_another_json,
    "wraps JSON": rewrites(wraps_json),
    "wraps everything": rewrites(wraps_everything),
    "adds a script": rewrites(adds_a_script),
    "a strict policy": rewrites(has_a_strict_policy),
    "errors in JSON": turns_errors_into_json,
    "other files": serves_files_differently,
    "no templates": has_no_templates,
    "failing URLs": fails_to_build_urls,
    "traps exceptions": traps_exceptions,
}
"""Applications in which our pages are the same as in a plain application."""

KEPT = (
    *("Content-Type", "Cache-Control", "Content-Security-Policy", "Referrer-Policy", "Location"),
    *("X-Frame-Options", "X-Content-Type-Options", "Content-Language", "X-DevKit-SSO-Next"),
)


def seen_in(app: Flask) -> list[Any]:
    """Return what browsers and scripts receive from our routes."""
    client, found = app.test_client(), []

    def see(method: str, path: str, sent: dict[str, str], **how: Any) -> None:
        response = client.open(path, method=method, headers=sent, **how)
        text = re.sub(r"\b([0-9a-f]{8}|ticket=[^\"]*)\b", "", response.text)
        headers = {name: response.headers[name] for name in KEPT if name in response.headers}
        found.append([method, path, response.status, text, headers])

    see("GET", "/sso/signed-out", HTML)
    see("GET", "/sso/callback", HTML)
    see("GET", "/sso/callback", JSON)
    see("POST", "/sso/logout", HTML)
    see("GET", "/sso/landing.js", {})
    see("GET", "/sso/static/devkit_sso.css", {})
    see("GET", "/sso/static/onward.js", {})
    see("GET", "/?x[]=1", ELSEWHERE)
    see("GET", "/sso/onward?to=/%3Fx[]=1", HTML)
    login = client.get("/sso/authorize", headers={**HTML, "Sec-Fetch-Dest": "document"})
    assert 'data-authorize="http' in login.text
    body = {"code": [CODE], "state": [start(client)["state"]]}
    posted = {"data": json.dumps(body), "content_type": "application/json"}
    see("POST", "/sso/callback", {**HTML, **SAME}, **posted)
    see("GET", "/sso/logout", HTML)
    see("POST", "/sso/logout", {**JSON, **SAME})
    return found


def test_our_pages_are_the_same_in_every_application(make_app: AppMaker) -> None:
    def make() -> Flask:
        return make_app(redirect_uri="http://localhost/#/login")

    plain = seen_in(make())
    assert [status for _, _, status, _, _ in plain] == [
        *("200 OK", "400 BAD REQUEST", "400 BAD REQUEST", "403 FORBIDDEN", "200 OK", "200 OK"),
        *("200 OK", "200 OK", "303 SEE OTHER", "200 OK", "200 OK", "200 OK"),
    ]
    for name, change in CONFIGURATIONS.items():
        app = make()
        change(app)
        for seen, expected in zip(seen_in(app), plain, strict=True):
            assert seen[:4] == expected[:4], name
            # What we do not send may be the application's.
            assert seen[4].items() >= expected[4].items(), name


def test_what_an_application_adds_to_our_responses_stays(make_app: AppMaker) -> None:
    app = make_app()

    @app.after_request
    def add(response: Response) -> Response:
        response.headers["Strict-Transport-Security"] = "max-age=1"
        response.set_cookie("theirs", "1")
        return response

    @app.after_request
    def compress(response: Response) -> Response:
        response.set_data(b"compressed")
        response.headers["Content-Encoding"] = "br"
        return response

    response = app.test_client().get("/sso/signed-out", headers=HTML)
    assert response.data == b"compressed"
    assert response.headers["Strict-Transport-Security"] == "max-age=1"
    assert "theirs=1" in response.headers["Set-Cookie"]
    assert not any("Mark" in name for name, _ in response.headers)


def test_the_applications_handler_for_our_failures_takes_precedence(make_app: AppMaker) -> None:
    app = make_app()
    turns_errors_into_json(app)
    app.register_error_handler(LoginFailed, lambda error: (f"ours {error.reason}", 418))
    response = app.test_client().get("/sso/callback", headers=HTML)
    assert (response.status_code, response.text) == (418, "ours login_unknown")


def test_the_applications_name_and_logo(make_app: AppMaker) -> None:
    app = make_app(app_name="Reports <b>", logo_url="/static/logo.svg", after_login_url="/start")
    page = app.test_client().get("/sso/signed-out", headers=HTML)
    assert "<title>You are not signed in · Reports &lt;b&gt;</title>" in page.text
    link = '<a class="brand" href="/start"><img src="/static/logo.svg" alt="">'
    assert f"{link}<span><bdi>Reports &lt;b&gt;</bdi></span></a>" in page.text
    assert "img-src 'self'" in page.headers["Content-Security-Policy"]
    page = make_app(logo_url="/logo.svg").test_client().get("/sso/signed-out", headers=HTML)
    assert '<img src="/logo.svg" alt="Go to home page"></a>' in page.text
    assert "<title>You are not signed in</title>" in page.text
    for wrong in ("https://elsewhere.test/logo.svg", "//elsewhere.test/logo.svg", "logo.svg"):
        with pytest.raises(ConfigError, match="DEVKIT_SSO_LOGO_URL must be a path on this site"):
            make_app(logo_url=wrong)


# Templates of the application that replace ours.


@pytest.fixture
def with_templates(make_app: AppMaker, tmp_path: Path) -> Callable[..., Flask]:
    def make(files: dict[str, str], options: dict[str, Any] | None = None) -> Flask:
        app = make_app(redirect_uri="http://localhost/#/login")
        app.root_path = str(tmp_path)
        app.jinja_options = options or {}
        folder = tmp_path / "templates/devkit_sso"
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_text(content, "utf-8")
        return app

    return make


def test_a_replaced_page_is_one_of_the_application(with_templates: Callable[..., Flask]) -> None:
    """It has the application's syntax, filters and context, and may extend our frame."""
    app = with_templates(
        {
            "failure.html": "<% extends 'devkit_sso/base.html' %><% block main %>"
            "[[ reason | loud ]] [[ team ]] [[ sso_text('action.start') ]]<% endblock %>"
        },
        OTHER_SYNTAX | {"undefined": StrictUndefined, "trim_blocks": True},
    )
    app.template_filter("loud")(str.upper)
    app.context_processor(lambda: {"team": "Lamps"})
    page = app.test_client().get("/sso/callback?code=C", headers=HTML).text
    assert "LOGIN_UNKNOWN Lamps Go to home page" in page
    assert '<html lang="en">' in page
    assert 'content="default-src' in page


def test_the_applications_frame_receives_ready_markup(
    with_templates: Callable[..., Flask], tmp_path: Path
) -> None:
    app = with_templates(
        {
            "base.html": "<% extends 'layout.html' %><% block content %>"
            "<% block main %><% endblock %><% endblock %>"
        },
        OTHER_SYNTAX | {"autoescape": False},
    )
    (tmp_path / "templates/layout.html").write_text(
        "<title><% block title %>theirs<% endblock %></title>[[ user.name ]]"
        "<% block content %><% endblock %>"
    )
    app.context_processor(lambda: {"user": {"name": "their user"}})
    client = app.test_client()
    login_as(client, "<b>ada</b>")
    page = client.get("/sso/logout", headers=HTML).text
    assert page.startswith("<title>Sign out?</title>their user")
    assert "<h1>Sign out?</h1>" in page
    assert "<bdi>&lt;b&gt;ada&lt;/b&gt;</bdi>" in page


def test_a_replaced_page_without_autoescape_is_inert(with_templates: Callable[..., Flask]) -> None:
    app = with_templates(
        {"logout.html": "{{ username }} {{ username | e }}"}, {"autoescape": False}
    )
    client = app.test_client()
    login_as(client, "<b>ada</b>")
    shown = "&lt;b&gt;ada&lt;/b&gt;"
    assert client.get("/sso/logout", headers=HTML).text == f"{shown} {shown}"


@pytest.mark.parametrize(
    "template",
    ["{{ 1 / 0 }}", "{% broken", "{% extends 'missing.html' %}", "{{ current_user.x.y }}"],
)
@pytest.mark.parametrize("name", ["base.html", "failure.html"])
def test_a_replacement_that_fails_is_logged_and_not_shown(
    with_templates: Callable[..., Flask],
    caplog: pytest.LogCaptureFixture,
    name: str,
    template: str,
) -> None:
    app = with_templates({name: template})
    response = app.test_client().get("/sso/callback?code=C", headers=HTML)
    assert response.status_code == 400
    assert 'data-reason="login_unknown"' in response.text
    (line,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert f"the application's template devkit_sso/{name} failed" in line.getMessage()
    assert CODE not in caplog.text


@pytest.mark.parametrize(
    ("base", "missing"),
    [
        ("{% block content %}{% endblock %}", "main, script, attributes"),
        ("<html{% block attributes %}{% endblock %}>{% block main %}{% endblock %}", "script"),
    ],
)
def test_a_frame_must_have_the_blocks_that_a_page_needs(
    with_templates: Callable[..., Flask],
    caplog: pytest.LogCaptureFixture,
    base: str,
    missing: str,
) -> None:
    app = with_templates({"base.html": base})
    app.config["DEVKIT_SSO_BINDING"] = "confirm"
    page = app.test_client().get("/sso/authorize", headers=HTML).text
    assert "/sso/static/start.js" in page
    assert "<button" in page
    assert f"devkit_sso/base.html has no block {missing}\n" in f"{caplog.text}\n"


def test_the_pages_of_a_login_cannot_be_replaced(with_templates: Callable[..., Flask]) -> None:
    names = ("base.html", "landing.html", "leaving.html")
    app = with_templates(dict.fromkeys(names, "<script>theirs</script>"))
    client = app.test_client()
    landing = client.get("/", headers=ELSEWHERE).text
    leaving = client.get("/sso/authorize", headers={**HTML, "Sec-Fetch-Dest": "document"}).text
    for page in (landing, leaving):
        assert page.startswith("<!doctype html>")
        assert "theirs" not in page


# In Chromium.


def everything_at_once(app: Flask) -> None:
    for name in ("another syntax", "a response class", "another JSON", "wraps everything"):
        CONFIGURATIONS[name](app)
    for name in ("a strict policy", "errors in JSON", "a failing context processor"):
        CONFIGURATIONS[name](app)


@pytest.mark.browser
@pytest.mark.slow
def test_a_login_in_an_application_that_changes_everything(
    site: Site, server: ScriptedServer, make_app: AppMaker, page: Page
) -> None:
    app = make_app(redirect_uri=site.url("/#/login"))
    everything_at_once(app)
    server.answers["/sso/oauth2/authorize"] = sends_back()
    site.app = app
    page.goto(site.url("/sso/authorize?next=/who"))
    expect(page).to_have_url(site.url("/who"))
    expect(page.locator("body")).to_contain_text("ada")
    page.context.clear_cookies()
    server.answers[GET_TOKEN] = fails("8204")
    page.goto(site.url("/sso/authorize?next=/who"), wait_until="commit")
    expect(page.locator("html")).to_have_attribute("data-reason", "server_rejected")
    expect(page.locator("main")).to_have_css("border-top-width", "4px")


@pytest.mark.browser
@pytest.mark.slow
def test_a_front_end_that_requires_trusted_types(
    site: Site, server: ScriptedServer, make_app: AppMaker, page: Page
) -> None:
    """It needs to allow no more than our script, and shows failures too."""
    app = make_app(redirect_uri=site.url("/app#/login"))
    policy = "default-src 'none'; script-src 'self'; trusted-types 'none'"
    html = (
        "<!doctype html><script src=/sso/landing.js></script><title>ran</title><h1>front end</h1>"
    )

    def front_end() -> Any:
        headers = {"Content-Security-Policy": f"{policy}; require-trusted-types-for 'script'"}
        return html, headers

    def serve_front_end() -> Any:
        return front_end() if request.path == "/app" else None

    run_first(app, serve_front_end)
    server.answers["/sso/oauth2/authorize"] = sends_back()
    site.app = app
    watch = Watch(page)
    page.goto(site.url("/sso/authorize?next=/app%23/files"))
    expect(page.locator("h1")).to_have_text("front end")
    assert page.url == site.url("/app#/files")
    assert not any(CODE in url for url in watch.history())
    page.context.clear_cookies()
    server.answers[GET_TOKEN] = fails("8204")
    page.goto(site.url("/sso/authorize?next=/app"), wait_until="commit")
    expect(page.locator("html")).to_have_attribute("data-reason", "server_rejected")
    assert page.url == site.url("/app#/login")
    assert [line for line in watch.console if "502" not in line and "favicon" not in line] == []
    page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
