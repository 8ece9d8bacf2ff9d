"""Applications with several hosts, or below a path: the redirect URI says where people sign in."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import Client

from flask_devkit_sso import ConfigError, DevKitSSO, current_user, login_required
from flask_devkit_sso.testing import login_as

from ..conftest import SECRET_KEY, come_back, cookies, new_app, reason, start
from ..scripted import GET_TOKEN, ScriptedServer

SCRIPT = {"Accept": "*/*"}
SERVER_NAME = {"SERVER_NAME": "example.com"}

Build = Callable[..., Flask]


@pytest.fixture
def build(server: ScriptedServer, tmp_path: Path) -> Build:
    """Make an application as :func:`new_app` does."""
    return partial(new_app, server.url, tmp_path)


@login_required
def page(**values: str) -> str:
    return f"{current_user.username} {values}"


def check_login(client: FlaskClient, site: str, path: str = "/page") -> None:
    """Check a login that starts at a page of a site and ends there."""
    response = client.get(path, base_url=site)
    assert response.location == f"/sso/authorize?next={path}"
    query = start(client, path, base_url=site)
    assert query["redirect_uri"] == f"{site}/sso/callback"
    response = come_back(client, query["state"], base_url=site)
    assert response.location == path, response.text
    assert client.get(path, base_url=site).text.startswith("ada ")
    with client.get("/sso/static/devkit_sso.css", base_url=site) as stylesheet:
        assert stylesheet.status_code == 200
    headers = {"Sec-Fetch-Site": "same-origin"}
    assert client.post("/sso/logout", base_url=site, headers=headers).status_code == 303
    assert client.get(path, base_url=site, headers=SCRIPT).status_code == 401


# host_matching


@pytest.mark.parametrize("host", ["app.example.com", "app.example.com:8443", "localhost:5000"])
def test_host_matching(build: Build, host: str) -> None:
    app = build(f"https://{host}/sso/callback", host_matching=True, static_host=host)
    app.add_url_rule("/page", view_func=page, host=host)
    app.add_url_rule("/<path:any>", view_func=page, host=host, endpoint="any")
    check_login(app.test_client(), f"https://{host}")


def test_host_matching_without_a_redirect_uri(
    build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    app = build(None, host_matching=True, static_host="localhost")
    assert "DEVKIT_SSO_REDIRECT_URI is missing, and an application with host_matching" in (
        caplog.text
    )
    app.add_url_rule("/page", view_func=page, host="localhost")
    assert reason(app.test_client().get("/page")) == "not_configured"


def test_a_page_that_other_hosts_share(build: Build) -> None:
    app = build("https://example.com/sso/callback", host_matching=True, static_host="example.com")
    for host in ("example.com", "www.example.com"):
        app.add_url_rule("/page", view_func=page, host=host)
    client = app.test_client()
    # The scheme is the redirect URI's, even if a proxy talks plain http to the application.
    response = client.get("/page", base_url="http://www.example.com")
    assert response.location == "https://example.com/sso/authorize?next=/page"
    response = client.get("/page", base_url="http://www.example.com", headers=SCRIPT)
    assert response.json["login_url"] == "https://example.com/sso/authorize"
    check_login(client, "https://example.com")


def test_a_page_that_is_another_one_at_the_redirect_uris_host(
    build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    app = build("https://a.example.com/sso/callback", host_matching=True, static_host="x")
    app.add_url_rule("/page", view_func=page, host="<tenant>.example.com")
    # It removes the tenant from the view's arguments.
    app.url_value_preprocessor(lambda endpoint, values: values and values.pop("tenant", None))
    client = app.test_client()
    check_login(client, "https://a.example.com")
    for headers in ({}, SCRIPT):
        response = client.get("/page", base_url="https://b.example.com", headers=headers)
        assert response.status_code == 503
    assert "People can sign in only at https://a.example.com" in caplog.text


def test_the_landing_page_is_at_the_redirect_uris_host_alone(build: Build) -> None:
    app = build("https://example.com/#/login", host_matching=True, static_host="example.com")
    for host in ("example.com", "www.example.com"):
        app.add_url_rule("/", host, lambda: "home", host=host)
    client = app.test_client()
    headers = {"Accept": "text/html", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "cross-site"}
    landing = client.get("/", base_url="https://example.com", headers=headers)
    assert 'src="/sso/landing.js"' in landing.text
    assert client.get("/", base_url="https://www.example.com", headers=headers).text == "home"


# subdomain_matching


@pytest.mark.parametrize("site", ["https://example.com", "https://login.example.com"])
def test_subdomain_matching(build: Build, site: str) -> None:
    app = build(f"{site}/sso/callback", subdomain_matching=True, **SERVER_NAME)
    subdomain = "login" if "login" in site else ""
    app.add_url_rule("/page", view_func=page, subdomain=subdomain)
    app.add_url_rule("/open", "open", lambda tenant: tenant, subdomain="<tenant>")
    client = app.test_client()
    check_login(client, site)
    assert client.get("/open", base_url="https://acme.example.com").text == "acme"


def test_a_default_subdomain(build: Build) -> None:
    app = build("https://www.example.com/sso/callback", subdomain_matching=True, **SERVER_NAME)
    app.url_map.default_subdomain = "www"
    app.add_url_rule("/page", view_func=page)
    check_login(app.test_client(), "https://www.example.com")


def test_guarded_tenants(build: Build, caplog: pytest.LogCaptureFixture) -> None:
    """The one of the redirect URI works. For the others there is no session that they can read."""
    app = build("https://acme.example.com/sso/callback", subdomain_matching=True, **SERVER_NAME)
    app.add_url_rule("/page", view_func=page, subdomain="<tenant>")
    client = app.test_client()
    check_login(client, "https://acme.example.com")
    response = client.get("/page", base_url="https://other.example.com")
    assert reason(response) == "not_configured"
    assert "with its own DEVKIT_SSO_REDIRECT_URI" in caplog.text


@pytest.mark.parametrize(
    ("redirect_uri", "options", "rule"),
    [
        (
            "https://example.com/sso/callback",
            {"subdomain_matching": True} | SERVER_NAME,
            {"subdomain": "<tenant>"},
        ),
        (
            "https://a.example.com/sso/callback",
            {"host_matching": True, "static_host": "x"},
            {"host": "b.example.com"},
        ),
    ],
    ids=["subdomain", "host"],
)
def test_guarded_views_where_nobody_can_sign_in(
    build: Build, redirect_uri: str, options: dict[str, Any], rule: dict[str, str]
) -> None:
    app = build(redirect_uri, TESTING=True, **options)
    app.add_url_rule("/page", None, page, None, **rule)
    with pytest.raises(ConfigError, match=r"page \(endpoint page\)\. Serve them at the redirect"):
        app.test_client().get("/")


def test_a_redirect_uri_that_no_request_reaches(build: Build) -> None:
    with pytest.raises(ConfigError, match=r"at other\.org, but with subdomain_matching"):
        build("https://other.org/sso/callback", subdomain_matching=True, **SERVER_NAME)


def test_a_view_in_place_of_ours(build: Build) -> None:
    app = Flask("tests")
    app.add_url_rule("/sso/logout", "own", lambda: "own")
    app.config["DEVKIT_SSO_REDIRECT_URI"] = "http://localhost/sso/callback"
    app.testing = True
    DevKitSSO(app)
    with pytest.raises(ConfigError, match="/sso/logout leads to the application's view own"):
        app.test_client().get("/")


# Other hosts that show the same


@pytest.mark.parametrize("uri", ["https://example.com/sso/callback", "https://example.com/#/login"])
def test_opened_at_www(build: Build, server: ScriptedServer, uri: str) -> None:
    """The login starts again at the redirect URI's host, where its cookie has to be."""
    app = build(uri)
    app.add_url_rule("/page", view_func=page)
    client = app.test_client()
    response = client.get("/page", base_url="https://www.example.com")
    response = client.get(response.location, base_url="https://www.example.com")
    assert response.location == "https://example.com/sso/authorize?next=/page&bounced=1"
    assert cookies(client) == []
    response = client.get(response.location)
    assert response.location.startswith(server.url)
    # A proxy that changes the host causes no loop.
    response = client.get("/sso/authorize?next=/page&bounced=1", base_url="http://backend:8000")
    assert response.location.startswith(server.url)
    # Tests, and a proxy on the same machine.
    for host in ("localhost", "127.0.0.1:8000"):
        response = client.get("/sso/authorize?next=/page", base_url=f"http://{host}")
        assert response.location.startswith(server.url)


def test_the_derived_redirect_uri_is_at_the_browsers_host(build: Build) -> None:
    client = build(None, **SERVER_NAME).test_client()
    query = start(client, base_url="http://localhost:5000")
    assert query["redirect_uri"] == "http://localhost:5000/sso/callback"


def test_an_untrusted_host_at_the_landing_page(build: Build) -> None:
    client = build("https://example.com/#/login", TRUSTED_HOSTS=["example.com"]).test_client()
    headers = {"Accept": "text/html", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "cross-site"}
    response = client.get("/", base_url="https://evil.example", headers=headers)
    assert response.status_code == 400
    assert client.get("/", base_url="https://example.com", headers=headers).status_code == 200


# Below a path


def mounted(app: Flask) -> Any:
    return DispatcherMiddleware(Flask("other"), {"/app": app})


def fixed(app: Flask) -> Any:
    return ProxyFix(app, x_prefix=1)


def stripped(app: Flask) -> Any:
    """The server says nothing about the path that a proxy has stripped."""
    return app


@pytest.mark.parametrize("mount", [mounted, fixed, stripped])
@pytest.mark.parametrize("uri", ["https://example.com/app/sso/callback", "/app/#/login"])
def test_below_a_path(
    build: Build, server: ScriptedServer, mount: Callable[[Flask], Any], uri: str
) -> None:
    uri = uri if uri.startswith("https") else f"https://example.com{uri}"
    app = build(uri, APPLICATION_ROOT="/app" if mount is stripped else "/")
    app.add_url_rule("/page", view_func=page)
    app.add_url_rule("/", "home", lambda: "home")
    client = Client(mount(app))

    def get(path: str, **headers: str) -> Any:
        """Load a page as a browser does."""
        assert path.startswith("/app/")
        if mount is not mounted:
            path = path.removeprefix("/app")
            headers |= {"X-Forwarded-Prefix": "/app"}
        return client.get(path, base_url="https://example.com", headers=headers)

    response = get("/app/page")
    assert response.location == "/app/sso/authorize?next=/app/page"
    assert get("/app/page", Accept="*/*").json["login_url"] == "/app/sso/authorize"
    response = get(response.location)
    assert response.location.startswith(server.url)
    state = response.location.partition("state=")[2]
    if uri.endswith("callback"):
        response = get(f"/app/sso/callback?code=C&state={state}")
        assert response.location == "/app/page"
        assert get("/app/page").text == "ada {}"
        assert GET_TOKEN in server.paths
    else:
        landing = get("/app/", **{"Sec-Fetch-Site": "cross-site", "Accept": "text/html"})
        assert 'src="/app/sso/landing.js"' in landing.text
        assert 'href="/app/sso/static/devkit_sso.css"' in landing.text
        assert 'data-devkit-sso-onward="/app/sso/onward?to=/app/' in landing.text
    # No other spelling of our addresses reaches the application.
    assert get("/app/sso//logout").status_code in (308, 404)


# Two applications on one machine


def test_two_applications_in_development(build: Build, tmp_path: Path) -> None:
    """Browsers send cookies to all ports of a host."""
    apps = {}
    for port in (5000, 5001):
        apps[port] = build(None, SECRET_KEY=f"{SECRET_KEY}{port}")
        apps[port].add_url_rule("/page", view_func=page)
    one, two = (app.test_client() for app in apps.values())
    two._cookies = one._cookies  # the same browser
    for client, port in ((one, 5000), (two, 5001)):
        state = start(client, "/page", base_url=f"http://localhost:{port}")["state"]
        assert come_back(client, state, base_url=f"http://localhost:{port}").location == "/page"
    assert one.get("/page", base_url="http://localhost:5000").text == "ada {}"
    headers = {"Sec-Fetch-Site": "same-origin"}
    two.post("/sso/logout", base_url="http://localhost:5001", headers=headers)
    # The cookie of login_as is for every port.
    tester = apps[5000].test_client()
    login_as(tester, "bob")
    assert tester.get("/page", base_url="http://localhost:5000").text == "bob {}"
    assert one.get("/page", base_url="http://localhost:5000").text == "ada {}"
    assert two.get("/page", base_url="http://localhost:5001").status_code == 302
