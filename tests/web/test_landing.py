"""When the landing page appears, and how it leads to the application's page."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from flask.testing import FlaskClient

from flask_devkit_sso.testing import login_as

from .. import clock
from ..conftest import CODE, AppMaker, come_back, cookies, start

LANDING = "data-devkit-sso-onward="
HTML = {"Accept": "text/html"}
DOCUMENT = {**HTML, "Sec-Fetch-Dest": "document"}


def lands(client: FlaskClient, path: str = "/", **headers: str) -> bool:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return LANDING in client.get(path, headers=HTML | given).text


@pytest.fixture
def client(make_app: AppMaker) -> FlaskClient:
    return make_app(redirect_uri="https://localhost/#/login").test_client()


def browser_with(client: FlaskClient, state: str) -> None:
    """Bring a browser into a state: new, marker (it has signed in before), pending or session."""
    if state == "new":
        return
    query = start(client, base_url="https://localhost")
    if state == "session":
        body = {"code": [CODE], "state": [query["state"]]}
        headers = {"Sec-Fetch-Site": "same-origin"}
        url = "https://localhost/sso/callback"
        assert client.post(url, json=body, headers=headers).status_code == 200
    if state == "marker":
        for cookie in cookies(client):
            if not cookie.key.endswith("_marker"):
                client.delete_cookie(cookie.key)


TABLE = [
    # Sec-Fetch-Site, and in which states of the browser the landing page appears
    ("same-origin", ""),
    ("cross-site", "new marker pending session"),
    ("same-site", "new marker pending session"),
    ("none", "marker pending session"),
    (None, "pending session"),
    ("anything-else", "new marker pending session"),
]


@pytest.mark.parametrize(("site", "states"), TABLE)
def test_who_gets_the_landing_page(client: FlaskClient, site: str | None, states: str) -> None:
    headers = {} if site is None else {"Sec-Fetch-Site": site, "Sec-Fetch-Dest": "document"}
    for state in ("new", "marker", "pending", "session"):
        for cookie in cookies(client):
            client.delete_cookie(cookie.key)
        browser_with(client, state)
        response = client.get("https://localhost/?a=1", headers=HTML | headers)
        assert (LANDING in response.text) == (state in states.split()), state
        # Only page loads by GET are answered.
        url, other = "https://localhost/", headers | {"Sec-Fetch-Dest": "empty"}
        assert client.head(url, headers=HTML | headers).headers.get("Content-Length") == "4"
        assert client.get(url, headers=other).text == "home"
        assert LANDING not in client.get("https://localhost/who", headers=HTML | headers).text


def test_a_crawler_gets_the_applications_page(client: FlaskClient) -> None:
    for headers in ({}, {"Accept": "*/*"}, HTML, {**HTML, "User-Agent": "Googlebot/2.1"}):
        assert client.get("/", headers=headers).text == "home"


def test_the_marker(make_app: AppMaker) -> None:
    for base_url, prefix in (("https://localhost", "__Host-"), ("http://localhost", "")):
        client = make_app(redirect_uri=f"{base_url}/#/login").test_client()
        response = client.get("/sso/authorize", base_url=base_url)
        (marker,) = [
            cookie
            for cookie in response.headers.getlist("Set-Cookie")
            if "_marker=" in cookie.partition(";")[0]
        ]
        name, _, rest = marker.partition("_marker=1; ")
        assert name.startswith(f"{prefix}devkit_sso_")
        assert "Max-Age=2592000" in rest
        assert "HttpOnly; Path=/; SameSite=Lax" in rest
        assert ("Secure" in rest) == bool(prefix)
        assert "Domain" not in rest


ONWARD = [
    ("/", "/"),
    ("/?", "/?"),
    ("/?a=%C3%A4&b=%zz&c=1+2&c=%2B", None),
    ("/?f[]=1&g={a|b}^`\\", None),
    ("/?next=https://evil.test/&x=//evil.test", None),
    ("/?code=mine", None),
    ("/reports?a=1", None),
    # The landing page's address, written differently
    ("/%2F", None),
    # Other sites, our own routes, and what is not one address of this site
    ("", "/"),
    ("//", "/"),
    ("//evil.test", "/"),
    ("///evil.test", "/"),
    ("/\\evil.test", "/"),
    ("\\\\evil.test", "/"),
    ("/\t/evil.test", "/"),
    ("/\n/evil.test", "/"),
    ("/?a\r\nSet-Cookie: a=b", "/"),
    ("/?ä", "/?%C3%A4"),
    ("/? ", "/?%20"),
    ("https://localhost/reports#a", "/reports#a"),
    ("https://evil.test/", "/"),
    ("javascript:alert(1)", "/"),
    ("/%2e%2e//evil.test", "/"),
    ("/#/login?code=EVIL", "/"),
    ("/sso/logout", "/"),
    ("/sso/authorize?next=/private", "/"),
    ("/sso/callback?code=EVIL", "/"),
    ("/sso/onward?to=/", "/"),
    ("/%73so/logout", "/"),
]


@pytest.mark.parametrize(("to", "expected"), ONWARD)
def test_where_onward_leads(client: FlaskClient, to: str, expected: str | None) -> None:
    response = client.get("/sso/onward", query_string=urlencode({"to": to}), headers=DOCUMENT)
    assert response.status_code == 303
    assert response.headers["Location"] == (to if expected is None else expected)
    assert response.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in response.headers


def test_onward_does_not_lead_to_a_redirect_uri_below_our_prefix(make_app: AppMaker) -> None:
    client = make_app(redirect_uri="http://localhost/sso/callback#/login").test_client()
    for to in ("/sso/callback", "/sso/callback?code=EVIL", "/sso/callback/"):
        response = client.get("/sso/onward", query_string=urlencode({"to": to}))
        assert response.headers["Location"] == "/"


# Browsers that send no Fetch Metadata. They need a ticket for the application's page.


def ticket_link(client: FlaskClient, path: str = "/") -> str:
    """Return the address to which the landing page's script goes."""
    text = client.get(path, headers=HTML).text
    link: str = text.partition(LANDING + '"')[2].partition('"')[0]
    assert "ticket=" in link
    return link.replace("&amp;", "&")


@pytest.fixture
def old(make_app: AppMaker) -> FlaskClient:
    """A browser without Fetch Metadata in which somebody is signed in."""
    client = make_app(redirect_uri="http://localhost/#/login").test_client()
    query = start(client)
    body = {"code": [CODE], "state": [query["state"]]}
    origin = {"Origin": "http://localhost"}
    assert client.post("/sso/callback", json=body, headers=origin).status_code == 200
    return client


def test_a_ticket_is_used_up_by_the_next_load(old: FlaskClient) -> None:
    assert lands(old)
    link = ticket_link(old)
    assert lands(old), "a landing page alone allows nothing"
    response = old.get(link, headers=HTML)
    assert response.headers["Location"] == "/"
    (cookie,) = response.headers.getlist("Set-Cookie")
    assert "_ticket=" in cookie
    assert "Max-Age=10; HttpOnly; Path=/; SameSite=Lax" in cookie
    assert not lands(old)
    assert lands(old)


def test_a_ticket_of_another_browser_or_time_is_not_accepted(
    old: FlaskClient, make_app: AppMaker
) -> None:
    link = ticket_link(old)
    other = make_app(redirect_uri="http://localhost/#/login").test_client()
    start(other)
    assert "Set-Cookie" not in other.get(link, headers=HTML).headers
    old.get(link, headers=HTML)
    (ticket,) = [cookie for cookie in cookies(old) if cookie.key.endswith("_ticket")]
    other.set_cookie(ticket.key, ticket.value)
    assert lands(other)
    # Another login has started in this browser since.
    name = ticket.key.replace("_ticket", "_login_abcdefgh")
    old.set_cookie(name, "x")
    assert lands(old)
    old.delete_cookie(name)
    assert not lands(old)
    old.get(ticket_link(old), headers=HTML)
    clock.advance(100)
    assert lands(old)
    # Another page than the landing page's, nothing at all, and the page's ticket in the cookie
    link = ticket_link(old)
    for changed in (link.replace("to=/", "to=/who"), link[:-1], link.partition("&")[0]):
        assert "Set-Cookie" not in old.get(changed, headers=HTML).headers
    old.set_cookie(ticket.key, link.partition("ticket=")[2])
    assert lands(old)


def test_a_ticket_is_only_for_the_tab_that_came_from_the_landing_page(old: FlaskClient) -> None:
    here, server = {"Referer": "http://localhost/"}, {"Referer": "http://server.test/"}
    for elsewhere in ({}, server, {"Referer": "http://localhost/who"}):
        old.get(ticket_link(old), headers=HTML | here)
        assert lands(old, **elsewhere)
        assert not lands(old, **here)


def test_a_ticket_does_not_count_for_a_request_from_another_site(old: FlaskClient) -> None:
    for site in ("cross-site", "same-site", "none"):
        old.get(ticket_link(old), headers=HTML)
        assert lands(old, Sec_Fetch_Site=site, Sec_Fetch_Dest="document")
        assert not lands(old)


@pytest.mark.parametrize("seconds", [-59, 0, 59])
def test_the_clocks_of_two_hosts_may_differ(old: FlaskClient, seconds: float) -> None:
    link = ticket_link(old)
    clock.advance(seconds)
    old.get(link, headers=HTML)
    assert not lands(old)


def test_a_test_client_gets_the_applications_page(make_app: AppMaker) -> None:
    """An application's own tests send neither Accept nor Fetch Metadata."""
    client = make_app(redirect_uri="http://localhost/#/login").test_client()
    login_as(client, "ada")
    assert client.get("/").text == "home"
    assert lands(client)


def test_a_client_without_scripts_can_use_a_redirect_uri_below_our_prefix(
    make_app: AppMaker,
) -> None:
    uri = "http://localhost/sso/callback#/login"
    client = make_app(redirect_uri=uri).test_client()
    query = start(client)
    assert query["redirect_uri"] == uri
    assert not any(cookie.key.endswith("_marker") for cookie in cookies(client))
    for path in ("/sso/callback", f"/sso/callback?code={CODE}&state={query['state']}"):
        assert lands(client, path)
        assert lands(client, path, Sec_Fetch_Site="same-origin", Sec_Fetch_Dest="document")
    assert come_back(client, query["state"]).location == "/"
    assert client.get("/who").get_json()["username"] == "ada"
