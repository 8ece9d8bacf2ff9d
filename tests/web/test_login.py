"""Complete logins: the requests on the wire, and the binding to the browser."""

from __future__ import annotations

import base64
import hashlib
import string
import threading
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_devkit_sso import (
    DevKitSSO,
    LoginFailed,
    LoginRefused,
    current_user,
    login_failed,
    login_succeeded,
)
from flask_devkit_sso.testing import login_as

from .. import clock
from ..clock import advance
from ..conftest import (
    CLIENT_ID,
    CODE,
    SIGNED_IN,
    AppMaker,
    carry_cookies,
    come_back,
    cookies,
    leads_to,
    reason,
    sign_in,
    start,
)
from ..scripted import GET_TOKEN, GET_USER_INFO, LOGOUT, Answer, ScriptedServer, closes, fails, says
from ..threads import at_once


def test_the_bytes_on_the_wire(client: FlaskClient, server: ScriptedServer) -> None:
    """Compare all requests with docs/protocol.md sections 1, 2 and 3."""
    location = client.get("/sso/authorize").location
    head, _, state = location.partition("&state=")
    assert head == (
        f"{server.url}/sso/oauth2/authorize?client_id=20221017000000001"
        "&redirect_uri=http%3A%2F%2Flocalhost%2Fsso%2Fcallback&response_type=code"
    )
    come_back(client, state)
    exchange, question = server.seen
    assert (exchange.method, exchange.path) == ("POST", "/sso/oauth2/getToken")
    assert exchange.headers["content-type"] == "application/json"
    assert exchange.body == (
        b'{"client_id": "20221017000000001", "grant_type": "authorization_code",'
        b' "client_secret": "canary-client-secret-e41d",'
        b' "authorization_code": "d6eda491b5b2166e16bd",'
        b' "redirect_uri": "http://localhost/sso/callback"}'
    )
    assert (question.method, question.path) == ("POST", "/sso/oauth2/getUserInfo")
    assert question.headers["content-type"] == "application/json"
    assert question.body == (
        b'{"client_id": "20221017000000001", "access_token": "canary-access-token-1f6a"}'
    )
    for seen in (exchange, question):
        assert "authorization" not in seen.headers
        assert "cookie" not in seen.headers


@pytest.mark.parametrize("code", ["a~b+c/d=e&f%20g", "with space", "!~", "x" * 4096])
def test_a_code_reaches_the_server_unchanged(
    client: FlaskClient, server: ScriptedServer, code: str
) -> None:
    come_back(client, start(client)["state"], code)
    assert server.seen[0].json["authorization_code"] == code


@pytest.mark.parametrize("url", ["https://app.example:8443/a%20b/sso/callback?x=%7e&y=1"])
def test_the_redirect_uri_is_byte_identical_at_both_steps(
    make_app: AppMaker, server: ScriptedServer, url: str
) -> None:
    client = make_app(redirect_uri=url).test_client()
    base = "https://app.example:8443"
    sent = start(client, base_url=base)
    come_back(client, sent["state"], base_url=base)
    assert sent["redirect_uri"] == server.seen[0].json["redirect_uri"] == url


def test_pkce(make_app: AppMaker, server: ScriptedServer) -> None:
    client = make_app(pkce=True).test_client()
    sent = start(client)
    assert sent["code_challenge_method"] == "S256"
    assert "code_verifier" not in sent
    come_back(client, sent["state"])
    verifier = server.seen[0].json["code_verifier"]
    assert len(verifier) >= 43
    digest = hashlib.sha256(verifier.encode()).digest()
    assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == sent["code_challenge"]


def test_without_pkce_no_pkce_parameter_is_sent(
    client: FlaskClient, server: ScriptedServer
) -> None:
    assert set(start(client)) == {"client_id", "redirect_uri", "response_type", "state"}
    sign_in(client)
    assert "code_verifier" not in server.seen[0].json


@pytest.mark.parametrize(
    ("redirect_uri", "base", "flags"),
    [
        (
            "http://localhost/sso/callback",
            "http://localhost",
            {"HttpOnly", "Path=/", "SameSite=Lax"},
        ),
        (
            "https://app.example/sso/callback",
            "https://app.example",
            {"HttpOnly", "Path=/", "SameSite=Lax", "Secure"},
        ),
        (
            # The proxy that terminates TLS sends no headers: the settings still decide.
            "https://app.example/sso/callback",
            "http://app.example",
            {"HttpOnly", "Path=/", "SameSite=Lax", "Secure"},
        ),
    ],
)
def test_the_cookies(make_app: AppMaker, redirect_uri: str, base: str, flags: set[str]) -> None:
    client = make_app(redirect_uri=redirect_uri).test_client()
    response = client.get("/sso/authorize", base_url=base)
    (login_cookie,) = response.headers.getlist("Set-Cookie")
    state = response.location.partition("&state=")[2]
    set_cookies = come_back(client, state, base_url=base).headers.getlist("Set-Cookie")
    *_, session_cookie = [cookie for cookie in set_cookies if not cookie.startswith("session=")]
    for cookie, own in ((login_cookie, {"Max-Age=600"}), (session_cookie, set[str]())):
        name, *found = cookie.split("; ")
        assert name.startswith("__Host-") == ("Secure" in flags)
        assert {flag for flag in found if not flag.startswith("Expires=")} == flags | own


def test_signed_in_users_go_straight_to_next(client: FlaskClient, server: ScriptedServer) -> None:
    sign_in(client)
    response = client.get("/sso/authorize?next=/private")
    assert (response.status_code, response.location) == (303, "/private")
    assert len(server.seen) == 2


def test_several_tabs_each_return_to_their_own_page(client: FlaskClient) -> None:
    tabs = {f"/private?tab={n}": start(client, f"/private?tab={n}")["state"] for n in range(5)}
    for page in sorted(tabs, reverse=True):
        assert come_back(client, tabs[page]).location == page


def test_tabs_that_start_at_the_same_time_all_sign_in(app: Flask) -> None:
    """Both requests are sent before either response arrives."""
    one, two = app.test_client(), app.test_client()
    responses = [client.get("/sso/authorize") for client in (one, two)]
    for response in responses:
        for cookie in response.headers.getlist("Set-Cookie"):
            name, _, value = cookie.partition(";")[0].partition("=")
            one.set_cookie(name, value)
    for response in responses:
        assert come_back(one, response.location.partition("&state=")[2]).status_code == 303


def test_abandoned_logins_do_not_accumulate(client: FlaskClient, tmp_path: Path) -> None:
    """Cookies stay below 4 KB, the oldest is dropped first, and the store is not used."""
    sign_in(client)
    client.post("/sso/logout", headers={"Origin": "http://localhost"})
    before = (tmp_path / "devkit_sso.db").read_bytes()
    states = [start(client, "/private?" + "x" * (40 * n))["state"] for n in range(30)]
    header = "; ".join(f"{c.key}={c.value}" for c in cookies(client))
    assert len(header) < 3500
    assert (tmp_path / "devkit_sso.db").read_bytes() == before
    assert come_back(client, states[-1]).status_code == 303
    assert come_back(client, states[0]).location == SIGNED_IN


def test_the_logins_of_all_applications_on_a_host_leave_few_cookies(make_app: AppMaker) -> None:
    """Many servers refuse a request with 8 KB of cookies, even one for the sign-in."""
    jar: dict[str, str] = {"other_login_20261127": "x" * 100, "devkit_sso_x_login": "y"}
    apps = [
        make_app(redirect_uri=f"https://localhost/{name}/sso/callback").test_client(
            use_cookies=False
        )
        for name in "abcdef"
    ]
    states = {}
    for tab in range(5):
        for number, client in enumerate(apps):
            sent = "; ".join(f"{name}={value}" for name, value in jar.items())
            response = client.get(
                f"/sso/authorize?next=/list%3Fpage={tab}", headers={"Cookie": sent}
            )
            states[number, tab] = response.location.partition("&state=")[2]
            for header in response.headers.getlist("Set-Cookie"):
                name, _, value = header.partition(";")[0].partition("=")
                jar.pop(name, None)
                if value:
                    jar[name] = value
    sent = "; ".join(f"{name}={value}" for name, value in jar.items())
    assert len(sent) < 3500
    assert {"other_login_20261127", "devkit_sso_x_login"} < jar.keys()
    for (number, tab), state in states.items():
        response = apps[number].get(f"/sso/callback?code=C&state={state}", headers={"Cookie": sent})
        # The newest login of each application can be completed.
        assert tab < 4 or response.status_code == 303


@pytest.mark.parametrize(("length", "is_kept"), [(1500, True), (1501, False)])
def test_a_next_url_that_is_too_long_is_dropped(
    client: FlaskClient, length: int, is_kept: bool
) -> None:
    url = "/" + (length - 1) * "x"
    assert come_back(client, start(client, url)["state"]).location == (url if is_kept else "/")


def respelled(signed: str) -> list[str]:
    """Return other spellings of a signed value, which a lenient base64 decoder reads as the same.

    The last of the 43 characters of a signature has two bits that mean nothing.
    """
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    unused_bits = signed[:-1] + alphabet[alphabet.index(signed[-1]) ^ 1]
    inside = [signed[:-3] + junk + signed[-3:] for junk in ("!", " ", "\n", "=", "é")]
    return [unused_bits, *inside, *(signed + junk for junk in ("=", "==", "\n", "!", "%00"))]


# With the binding confirm, the person starts the login.


def test_confirm_starts_a_login_only_by_a_button_of_this_site(
    make_app: AppMaker, server: ScriptedServer
) -> None:
    """A page of this site, such as a front end, may open the route because another site sent the
    browser there. So it does not matter where the request comes from."""
    client = make_app(binding="confirm").test_client()
    for site in ("same-origin", "same-site", "cross-site", "none"):
        page = client.get("/sso/authorize?next=/private", headers={"Sec-Fetch-Site": site})
        assert page.status_code == 200
        assert '<form method="post" action="/sso/authorize?next=/private"' in page.text
        assert "no one is signed in" in page.text
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://evil.example"},
        {},
    ):
        refused = client.post("/sso/authorize?next=/private", headers=headers)
        assert (refused.status_code, reason(refused)) == (403, "cross_site")
    assert cookies(client) == []
    assert reason(client.get("/sso/callback?code=ATTACKER")) == "login_unknown"
    started = client.post("/sso/authorize?next=/private", headers={"Origin": "http://localhost"})
    assert leads_to(started).startswith(f"{server.url}/sso/oauth2/authorize?client_id=")
    question = client.get("/sso/callback?code=C").location
    assert "Account ID: <b><bdi>u-1</bdi></b>" in client.get(question).text
    answered = client.post(
        question, data={"answer": "yes"}, headers={"Sec-Fetch-Site": "same-origin"}
    )
    assert leads_to(answered) == "/private"


def test_confirm_shows_who_is_signed_in_before_another_login(make_app: AppMaker) -> None:
    client = make_app(binding="confirm").test_client()
    login_as(client, "bob", uid="u-7")
    page = client.get("/sso/authorize?next=/private").text
    assert "signed in as <b><bdi>bob</bdi></b> (account ID <b><bdi>u-7</bdi></b>)" in page
    assert '<a class="button primary" href="/private">Continue</a>' in page
    assert '<form method="post" action="/sso/authorize?next=/private"' in page


@pytest.mark.parametrize("binding", ["state", "redirect_uri"])
def test_the_other_bindings_have_no_button(make_app: AppMaker, binding: str) -> None:
    client = make_app(binding=binding).test_client()
    response = client.post("/sso/authorize", headers={"Sec-Fetch-Site": "same-origin"})
    assert response.status_code == 405
    assert cookies(client) == []


def test_a_head_request_does_not_complete_a_login(
    client: FlaskClient, server: ScriptedServer
) -> None:
    query = {"code": CODE, "state": start(client)["state"]}
    response = client.head("/sso/callback", query_string=query)
    assert (response.status_code, set(response.allow)) == (405, {"GET", "POST", "OPTIONS"})
    assert server.seen == []
    assert client.get("/sso/callback", query_string=query).status_code == 303


# A response that does not belong to a login of this browser causes no call to the server.


def test_an_unrequested_code(client: FlaskClient, server: ScriptedServer) -> None:
    for query in ("code=X", "code=X&state=", "code=X&state=made-up", "", "code=X&state=a.b.c"):
        response = client.get(f"/sso/callback?{query}")
        assert (response.status_code, reason(response)) == (400, "login_unknown")
    assert server.seen == []


def test_a_state_from_another_browser(app: Flask, server: ScriptedServer) -> None:
    attacker, victim = app.test_client(), app.test_client()
    state = start(attacker)["state"]
    assert reason(come_back(victim, state)) == "cookie_missing"
    start(victim)
    assert reason(come_back(victim, state)) == "login_unknown"
    assert server.seen == []


@pytest.mark.parametrize("space", ["\x85", "\xa0", "\x1c"], ids=["85", "A0", "1C"])
def test_a_sibling_domain_cannot_plant_our_cookies(
    make_app: AppMaker, server: ScriptedServer, space: str
) -> None:
    """A name after such a byte has no ``__Host-`` prefix for the browser.

    A subdomain may therefore set the cookie for the whole domain (Chromium allows 85 and A0). If
    the byte were stripped as a space, the server would see a ``__Host-`` cookie.
    """
    app = make_app(redirect_uri="https://localhost/sso/callback")
    attacker = app.test_client()
    state = start(attacker, base_url="https://localhost")["state"]
    (cookie,) = cookies(attacker)
    assert cookie.key.startswith("__Host-")
    response = come_back(
        app.test_client(use_cookies=False),
        state,
        base_url="https://localhost",
        headers={"Cookie": f"a=b; {space}{cookie.key}={cookie.value}"},
    )
    assert reason(response) == "cookie_missing"
    assert server.seen == []


def test_an_unrequested_code_does_not_switch_users(app: Flask, server: ScriptedServer) -> None:
    attacker, victim = app.test_client(), app.test_client()
    sign_in(victim)
    state = start(attacker)["state"]
    assert come_back(victim, state, "attackers-code").location == SIGNED_IN
    assert victim.get("/who").json["username"] == "ada"
    assert len(server.seen) == 2


def test_a_session_cookie_has_one_spelling(app: Flask, client: FlaskClient) -> None:
    sign_in(client)
    (cookie,) = cookies(client)
    others = [value for value in respelled(cookie.value) if "\n" not in value]
    for value, expected in [(cookie.value, "ada"), *((other, None) for other in others)]:
        other = app.test_client(use_cookies=False)
        response = other.get("/who", headers={"Cookie": f'{cookie.key}="{value}"'})
        assert response.json["username"] == expected, value


def test_a_login_is_used_once(app: Flask, client: FlaskClient, server: ScriptedServer) -> None:
    state = start(client)["state"]
    # The copy of the browser keeps the cookie that the first use deletes.
    copy = app.test_client()
    carry_cookies(client, copy)
    assert come_back(client, state).status_code == 303
    assert come_back(client, state).location == "/"
    assert reason(come_back(copy, state)) == "login_unknown"
    assert server.paths == [GET_TOKEN, GET_USER_INFO]


@pytest.mark.parametrize("ahead", [0.2, 1, 30, -0.2, -30])
@pytest.mark.parametrize("binding", ["state", "redirect_uri", "confirm"])
def test_the_clocks_of_two_hosts_may_differ(
    make_app: AppMaker, server: ScriptedServer, binding: str, ahead: float
) -> None:
    """The host that starts the login is ahead of the one that completes it, or behind it."""
    client = make_app(binding=binding).test_client()
    sent = start(client)
    advance(-ahead)
    nonce = parse_qs(urlsplit(sent["redirect_uri"]).query).get("s", [])
    response = client.get(
        "/sso/callback", query_string={"code": CODE, "state": sent.get("state", []), "s": nonce}
    )
    assert response.status_code == 303, reason(response)
    assert server.paths == [GET_TOKEN, GET_USER_INFO]


def test_a_login_from_the_future_is_refused(
    client: FlaskClient, server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    state = start(client)["state"]
    advance(-61)
    assert reason(come_back(client, state)) == "login_expired"
    assert "clocks of all hosts" in caplog.text
    assert server.seen == []


def test_a_login_is_used_once_on_hosts_whose_clocks_differ(
    make_app: AppMaker, server: ScriptedServer, any_store: str
) -> None:
    """One host uses the login just before it expires, and one that is a minute behind is asked
    again. Between the two, one that is a minute ahead removes expired records."""
    app = make_app(store_url=any_store)
    client, copy = app.test_client(), app.test_client()
    clock.stop()
    state = start(client)["state"]
    carry_cookies(client, copy)
    advance(599)
    assert come_back(client, state).status_code == 303
    advance(60)
    sign_in(app.test_client())
    advance(-60)
    assert reason(come_back(copy, state)) == "login_unknown"
    advance(1)
    assert reason(come_back(copy, state)) == "login_expired"
    assert server.paths == 2 * [GET_TOKEN, GET_USER_INFO]


def test_two_simultaneous_callbacks_send_the_code_once(app: Flask, server: ScriptedServer) -> None:
    client = app.test_client()
    state = start(client)["state"]
    copies = [app.test_client() for _ in range(8)]
    for copy in copies:
        carry_cookies(client, copy)
    answers = at_once([partial(come_back, copy, state) for copy in copies])
    assert sorted(answer.status_code for answer in answers) == [303] + [400] * 7
    assert server.paths == [GET_TOKEN, GET_USER_INFO]


def test_a_login_is_used_up_even_when_the_server_fails(
    client: FlaskClient, server: ScriptedServer
) -> None:
    state = start(client)["state"]
    server.answers[GET_TOKEN] = fails("8500")
    assert reason(come_back(client, state)) == "server_rejected"
    assert reason(come_back(client, state)) == "login_unknown"
    assert server.paths == [GET_TOKEN]


def test_the_state_must_be_returned(client: FlaskClient, server: ScriptedServer) -> None:
    state = start(client)["state"]
    for query, expected in [
        (f"code={CODE}", "state_missing"),
        (f"code={CODE}&state=", "state_missing"),
        (f"code={CODE}&state={state}x", "state_mismatch"),
        (f"code={CODE}&state={state[1:]}", "state_mismatch"),
        *((f"code={CODE}&state={quote(other)}", "state_mismatch") for other in respelled(state)),
        (f"code={CODE}&state={state}&state={state}", "state_mismatch"),
        (f"code={CODE}&state={state}&state=other", "state_mismatch"),
    ]:
        response = client.get(f"/sso/callback?{query}")
        assert (response.status_code, reason(response)) == (400, expected)
    assert server.seen == []
    assert come_back(client, state).status_code == 303


@pytest.mark.parametrize(
    "query",
    ["", "code=", "code=a&code=a", "code=a&code=b", "code=%00", "code=%E9%AA%8C", "code=a%0Ab"],
)
def test_exactly_one_code_is_required(
    client: FlaskClient, server: ScriptedServer, query: str
) -> None:
    response = client.get(f"/sso/callback?state={start(client)['state']}&{query}")
    assert (response.status_code, reason(response)) == (400, "code_missing")
    assert server.seen == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[" * 30_000,
        b'{"code": "x"}',
        '{"code": ["x"], "state": []}'.encode("utf-16"),
        b'{"code": ["x", null], "state": []}',
        b'{"code": ["x"], "state": ["\\ud800"]}',
        b'{"code": ["\\ud800"], "state": ["x"], "hash": "\\ud800"}',
    ],
)
def test_a_post_from_outside_the_landing_script(
    client: FlaskClient, server: ScriptedServer, body: bytes
) -> None:
    start(client)
    response = client.post(
        "/sso/callback",
        data=body,
        headers={"Origin": "http://localhost", "Content-Type": "application/json"},
    )
    assert response.status_code == 400
    assert response.json["error"] in ("code_missing", "state_missing", "state_mismatch")
    assert server.seen == []


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
@pytest.mark.parametrize(
    "body",
    [
        '{"code": ["x"], "code": ["y"], "state": ["STATE"]}',
        '{"code": ["x"], "state": ["STATE"], "more": {"a": 1, "a": 2}}',
        '{"code": ["x"], "state": ["STATE"], "more": "%s"}' % (32 * 1024 * "x"),
    ],
    ids=["twice", "twice-inside", "too-long"],
)
def test_an_ambiguous_or_long_post_uses_nothing_up(
    client: FlaskClient, server: ScriptedServer, body: str, accept: str
) -> None:
    state = start(client)["state"]
    headers = {
        "Origin": "http://localhost",
        "Content-Type": "application/json",
        "Accept": accept,
    }
    response = client.post("/sso/callback", data=body.replace("STATE", state), headers=headers)
    assert response.status_code == 400
    if accept == "application/json":
        assert response.json["error"] == "code_missing"
    else:
        assert reason(response) == "code_missing"
    assert server.seen == []
    assert come_back(client, state).status_code == 303


def test_a_login_that_took_too_long(make_app: AppMaker, server: ScriptedServer) -> None:
    client = make_app(login_ttl=1).test_client()
    state = start(client)["state"]
    advance(2.1)
    assert reason(come_back(client, state)) == "login_expired"
    assert server.seen == []


@pytest.mark.parametrize(
    ("query", "status", "expected"),
    [
        ("error=access_denied", 403, "denied"),
        ("error=access_denied&error_description=No+%3Cb%3E+for+you&iss=x", 403, "denied"),
        ("error=access_denied&code=abc", 403, "denied"),
        ("error=server_error", 502, "authorize_error"),
        ("error=%3Cscript%3Ealert(1)%3C/script%3E", 502, "authorize_error"),
        ("error=", 502, "authorize_error"),
    ],
)
def test_error_responses_of_authorize(
    client: FlaskClient, server: ScriptedServer, query: str, status: int, expected: str
) -> None:
    response = client.get(f"/sso/callback?state={start(client)['state']}&{query}")
    assert (response.status_code, reason(response)) == (status, expected)
    assert "<b>" not in response.text
    assert "<script" not in response.text
    assert server.seen == []


def test_parameters_added_by_standard_servers_are_ignored(client: FlaskClient) -> None:
    state = start(client)["state"]
    response = client.get(f"/sso/callback?code=x&state={state}&iss=https%3A%2F%2Fa&session_state=1")
    assert response.status_code == 303


@pytest.mark.parametrize("key", ["uid", "username"])
def test_a_login_of_an_invalid_user_is_denied(
    make_app: AppMaker, server: ScriptedServer, key: str
) -> None:
    """The sign-in at the server ends too: otherwise the next login would not ask who it is."""
    path = "/validity"
    app = make_app(validity_url=server.url + path, validity_field="accounts", validity_key=key)
    client = app.test_client()
    for is_valid in (False, True, False):
        server.answers[path] = says({"code": "2000", "data": {"validation_list": [is_valid]}})
        server.seen.clear()
        response = come_back(client, start(client, "/private")["state"])
        asked = [GET_TOKEN, GET_USER_INFO, path]
        assert server.seen[2].json == {
            "client_id": CLIENT_ID,
            "access_token": "canary-access-token-1f6a",
            "accounts": ["u-1" if key == "uid" else "ada"],
        }
        if is_valid:
            assert (response.status_code, server.paths) == (303, asked)
            client.post("/sso/logout", headers={"Origin": "http://localhost"})
        else:
            assert (response.status_code, reason(response)) == (403, "denied")
            assert server.paths == [*asked, LOGOUT]
            assert client.get("/who").json["is_authenticated"] is False


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (fails("8500"), "server_rejected"),
        (closes, "server_unavailable"),
        (says({"code": "2000", "data": {"validation_list": []}}), "server_answer_invalid"),
        (says({"code": "2000", "data": {"validation_list": ["true"]}}), "server_answer_invalid"),
    ],
)
def test_nobody_signs_in_while_their_validity_is_unknown(
    make_app: AppMaker, server: ScriptedServer, answer: Answer, expected: str
) -> None:
    server.answers["/validity"] = answer
    client = make_app(
        validity_url=server.url + "/validity", validity_field="accounts", validity_key="uid"
    ).test_client()
    assert reason(come_back(client, start(client)["state"])) == expected
    assert client.get("/who").json["is_authenticated"] is False


def test_every_login_starts_a_new_session_and_ends_the_old_one(
    app: Flask, server: ScriptedServer
) -> None:
    client = app.test_client()
    first, second = start(client)["state"], start(client)["state"]

    def session_cookie() -> tuple[str, str]:
        (found,) = [c for c in cookies(client) if "_login_" not in c.key]
        return found.key, found.value

    come_back(client, first)
    old = session_cookie()
    come_back(client, second)
    assert session_cookie()[1] != old[1]
    thief = app.test_client()
    thief.set_cookie(*old)
    assert not thief.get("/who").json["is_authenticated"]
    assert server.paths == [GET_TOKEN, GET_USER_INFO] * 2


# The page after a login.

STAYS = [
    "/",
    "/private",
    "/private?x=1&y=%20a",
    "/a/b.c~d;e=f,g",
    "/%E6%8A%A5%E5%91%8A",
    "/#/files?x=1",
    "/search?q=https://evil.example//x",
    "/ssofa",
    "/sso-notes",
]
LEAVES = [
    "",
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "https://evil.example",
    "https:evil.example",
    "evil.example",
    "javascript:alert(1)",
    "/\t/evil.example",
    "/\n/evil.example",
    "/\r\nSet-Cookie: a=b",
    " //evil.example",
    "/%2F/evil.example",
    "/%2f%2fevil.example",
    "/%5cevil.example",
    "/..//evil.example",
    "/a/%2e%2e//evil.example",
    "/./private",
    "/a/../private",
    "/private/..",
    "/a/../sso/authorize",
    "/sso/authorize",
    "/sso/authorize?next=/sso/authorize",
    "/%73so/authorize",
    "/sso%2Fauthorize",
    "/sso/logout",
    "/sso/callback?code=x",
    "/sso/signed-out",
    "/sso/static/devkit_sso.css",
]


ENCODED = {
    "/list?f[]=1&g={a|b}": "/list?f%5B%5D=1&g=%7Ba%7Cb%7D",
    "/报告?q=王小明": "/%E6%8A%A5%E5%91%8A?q=%E7%8E%8B%E5%B0%8F%E6%98%8E",
    "/#/a[1]": "/#/a%5B1%5D",
    "/100%?q=%zz": "/100%25?q=%25zz",
    "/<script>": "/%3Cscript%3E",
    "/a//b": "/a//b",
    "/" + "x" * 1499: "/" + "x" * 1499,
    "http://localhost/private?a[]=1#b": "/private?a%5B%5D=1#b",
    "http://localhost?a=1": "/?a=1",
    "http://localhost": "/",
}
SHORTENED = {
    "/private?a=1#/" + "x" * 1500: "/private?a=1",
    "/private?a=" + "x" * 1500 + "#/b": "/private",
    "/private?" + "报" * 170: "/private",
    "/private?a=\\": "/private",
    "/private#\\": "/private",
    "/private?a=\ufffd#b": "/private",
    "http://localhost/private?\t": "/private",
}
IGNORED = [
    "/" + "x" * 1500,
    "/" + "报" * 170,
    "http://www.localhost/",
    "https://localhost/",
    "http://localhost:8080/",
    "http://evil.example/",
    "http://localhost.evil.example/",
    "http://localhost@evil.example/",
    "http://localhost//evil.example",
    "/a%00",
    "/a%FF",
]


@pytest.mark.parametrize("url", STAYS)
def test_a_local_next_is_kept(
    client: FlaskClient, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert come_back(client, start(client, url)["state"]).location == url
    assert client.get("/sso/authorize", query_string={"next": url}).location == url
    assert "return" not in caplog.text


@pytest.mark.parametrize("url", LEAVES)
def test_a_foreign_next_is_replaced(client: FlaskClient, url: str) -> None:
    assert come_back(client, start(client, url)["state"]).location == "/"
    assert client.get("/sso/authorize", query_string={"next": url}).location == "/"


def test_how_next_is_encoded_and_shortened(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is lost is logged, in one line without query and hash."""
    login_as(client, "ada")

    def next_of(url: str) -> tuple[str, list[str]]:
        caplog.clear()
        location = client.get("/sso/authorize", query_string={"next": url}).location
        return location, [message for message in caplog.messages if "return" in message]

    for url, expected in ENCODED.items():
        assert next_of(url) == (expected, [])
    text = "the address to return to after a login was"
    for url, expected in SHORTENED.items():
        path = url.partition("#")[0].partition("?")[0]
        assert next_of(url) == (expected, [f"{text} shortened: {path!r}"])
    for url in IGNORED:
        assert next_of(url) == ("/", [f"{text} ignored: {url[:200]!r}"])
    assert next_of("/a\r\nfatal: b?secret") == ("/", [f"{text} ignored: '/a\\r\\nfatal: b'"])
    # This site is never what the header Host says.
    caplog.clear()
    query, host = {"next": "http://evil.example/a"}, {"Host": "evil.example"}
    client.get("/sso/authorize", query_string=query, headers=host)
    assert caplog.messages == [f"{text} ignored: 'http://evil.example/a'"]
    # A guarded page's own address, too.
    client.post("/sso/logout", headers={"Origin": "http://localhost"})
    caplog.clear()
    assert client.get("/private?" + "x" * 1600).location == "/sso/authorize?next=/private"
    assert caplog.messages == [f"{text} shortened: '/private'"]


def test_the_origin_of_absolute_addresses_is_the_redirect_uris(make_app: AppMaker) -> None:
    for uri, own, other in [
        ("HTTPS://App.Example:443/#/login", "https://app.example", "https://app.example:443"),
        ("http://localhost:8080/sso/callback", "http://localhost:8080", "http://localhost"),
    ]:
        client = make_app(redirect_uri=uri).test_client()
        login_as(client, "ada")
        for origin, expected in ((own, "/x/y"), (other, "/")):
            query = {"next": f"{origin}/x/y"}
            assert client.get("/sso/authorize", query_string=query).location == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/?code=EVIL", "/"),
        ("/?a=1#/login?code=EVIL", "/?a=1"),
        ("/#/login&error=x", "/"),
        ("/#/login?state=S&code=", "/"),
        ("/#code=x", "/"),
        ("//?code=EVIL", "/"),
        ("/%2F?code=EVIL", "/"),
        ("/?barcode=1&errors=2#/decode=3", "/?barcode=1&errors=2#/decode=3"),
        ("/other?code=1#/login?code=2", "/other?code=1#/login?code=2"),
    ],
)
@pytest.mark.parametrize("mount", ["", "/app"])
def test_no_login_leads_to_an_authorization_response(
    make_app: AppMaker, url: str, expected: str, mount: str
) -> None:
    client = make_app(redirect_uri=f"http://localhost{mount}/#/login").test_client()
    login_as(client, "ada")
    query, base = {"next": mount + url}, f"http://localhost{mount}"
    location = client.get("/sso/authorize", query_string=query, base_url=base).location
    # Only at the very beginning could two slashes lead to another site.
    whole = url.partition("?")[0] if mount else expected
    assert location == mount + (whole if url.startswith(("//", "/%2F")) else expected)


SPELLINGS = [
    "/sso//logout",
    "//sso/logout",
    "///sso//logout",
    "/sso/./logout",
    "/sso/x/../logout",
    "/x/../sso/logout",
    "/sso/logout/",
    "/sso/logout//",
    "/sso/%2e/logout",
    "/sso/%2E%2E/sso/logout",
    "/sso%2F%2Flogout",
    "/%2Fsso/logout",
    "/sso//callback?code=x",
    "/sso//static/devkit_sso.css",
]


@pytest.mark.parametrize("mount", ["", "/app"])
@pytest.mark.parametrize("merges", [True, False])
def test_another_spelling_of_one_of_our_addresses_is_ours(
    make_app: AppMaker, merges: bool, mount: str
) -> None:
    """No view of the application sees it, guarded or not, even one for every path."""
    sso = DevKitSSO()
    app = make_app(sso)
    app.url_map.merge_slashes = merges
    app.add_url_rule("/<path:path>", "any", lambda path: f"any view {path}")
    sso.protect(app, public=["any"])
    client = app.test_client()
    for spelling in SPELLINGS:
        path, _, query = spelling.partition("?")
        environ = {"SCRIPT_NAME": mount, "PATH_INFO": unquote(path), "QUERY_STRING": query}
        response = client.open(environ_overrides=environ)
        assert response.status_code in (303, 308, 404), spelling
        assert "any view" not in response.text
        state = start(client, mount + spelling, base_url=f"http://localhost{mount}")["state"]
        back = come_back(client, state, base_url=f"http://localhost{mount}")
        assert back.location == f"{mount}/", spelling
        client.post("/sso/logout", headers={"Origin": "http://localhost"})
    for path in ("/ssofa//x", "/x//sso/logout"):
        assert client.get(path, follow_redirects=True).text.startswith("any"), path


def test_a_login_returns_to_no_address_below_our_prefix(make_app: AppMaker) -> None:
    """Not even to one for which the application has a view, because no request reaches it."""
    app = make_app()
    app.add_url_rule("/sso/own", "own", lambda: "own")
    client = app.test_client()
    login_as(client, "ada")
    for url in ("/sso/own", "/sso/own?x=1", "/sso/me", "/sso/verify", "/sso/nowhere", "/sso/"):
        assert client.get("/sso/authorize", query_string={"next": url}).location == "/", url
    for url in ("/sso", "/ssofa", "/x/sso/own"):
        assert client.get("/sso/authorize", query_string={"next": url}).location == url


def test_merged_slashes_lead_to_the_landing_page_too(make_app: AppMaker) -> None:
    client = make_app(redirect_uri="http://localhost/a/b#/login").test_client()
    login_as(client, "ada")
    for path in ("/a/b", "/a//b", "/a%2F/b//"):
        query = {"next": f"{path}?code=EVIL#/login"}
        assert client.get("/sso/authorize", query_string=query).location == path


def test_the_mount_point_ends_at_a_slash(make_app: AppMaker) -> None:
    client = make_app().test_client()
    login_as(client, "ada")
    for url, expected in [
        ("/app/sso//logout", "/app/"),
        ("/app%2Fsso/logout", "/app/"),
        ("//app/sso/logout", "/app/"),
        ("/app//x", "/app//x"),
        ("/apps/sso/logout", "/apps/sso/logout"),
        ("/sso/logout", "/sso/logout"),
    ]:
        query, base = {"next": url}, "http://localhost/app"
        assert client.get("/sso/authorize", query_string=query, base_url=base).location == expected


def test_a_login_returns_to_the_guarded_page(client: FlaskClient) -> None:
    for path in ("/private", "/private?a=b&c=%E6%8A%A5", "/private?x=[1]|2"):
        response = client.get(path)
        assert response.status_code == 302
        assert response.location.startswith("/sso/authorize?next=")
        begun = client.get(response.location)
        back = come_back(client, begun.location.partition("&state=")[2]).location
        assert client.get(back).text == "private ada"
        client.post("/sso/logout", headers={"Origin": "http://localhost"})


def test_the_default_page_is_a_setting_and_respects_the_mount(make_app: AppMaker) -> None:
    mounted = make_app().test_client()
    state = start(mounted, base_url="http://localhost/app")["state"]
    response = come_back(mounted, state, base_url="http://localhost/app")
    assert response.location == "/app/"
    elsewhere = make_app(DevKitSSO(), after_login_url="/start").test_client()
    assert sign_in(elsewhere).location == "/start"


# Hooks, signals and error handlers of the application.


def test_on_login_runs_before_there_is_a_session(make_app: AppMaker) -> None:
    sso = DevKitSSO()
    seen: list[tuple[str, bool]] = []

    @sso.on_login
    def create_account(user: object) -> None:
        seen.append((repr(user), current_user.is_authenticated))

    @sso.on_login
    async def and_another(user: object) -> None:
        seen.append(("async", current_user.is_authenticated))

    sign_in(make_app(sso).test_client())
    assert seen == [("User(uid='u-1', username='ada', role='Admin')", False), ("async", False)]


def test_on_login_may_refuse_a_login(make_app: AppMaker) -> None:
    sso = DevKitSSO()

    @sso.on_login
    def refuse(user: object) -> None:
        raise LoginRefused("Not on a Sunday <b>!")

    client = make_app(sso).test_client()
    response = come_back(client, start(client)["state"])
    assert (response.status_code, reason(response)) == (403, "refused")
    assert "Not on a Sunday &lt;b&gt;!" in response.text
    assert not client.get("/who").json["is_authenticated"]


def test_an_error_in_on_login_signs_nobody_in(make_app: AppMaker) -> None:
    sso = DevKitSSO()
    sso.on_login(lambda user: 1 / 0)
    client = make_app(sso).test_client()
    assert come_back(client, start(client)["state"]).status_code == 500
    assert not client.get("/who").json["is_authenticated"]


def test_signals(app: Flask, client: FlaskClient, server: ScriptedServer) -> None:
    received: list[object] = []

    def succeeded(sender: Flask, user: object) -> None:
        received.append((sender, "in", user.uid))  # type: ignore[attr-defined]

    def failed(sender: Flask, reason: str, error: Exception) -> None:
        received.append((sender, reason, type(error.__cause__).__name__))

    with login_succeeded.connected_to(succeeded, app), login_failed.connected_to(failed, app):
        sign_in(client)
        client.post("/sso/logout", headers={"Origin": "http://localhost"})
        server.answers[GET_TOKEN] = fails("8202")
        come_back(client, start(client)["state"])
    assert received == [(app, "in", "u-1"), (app, "server_rejected", "ServerError")]


def test_the_applications_errorhandler_takes_precedence(app: Flask, client: FlaskClient) -> None:
    @app.errorhandler(LoginFailed)
    def own(error: LoginFailed) -> tuple[str, int]:
        return f"own page: {error.reason}", error.code or 0

    response = client.get("/sso/callback?code=x")
    assert (response.status_code, response.text) == (400, "own page: login_unknown")


def test_failures_in_json_on_request(client: FlaskClient) -> None:
    response = client.get("/sso/callback?code=x", headers={"Accept": "application/json"})
    assert response.status_code == 400
    assert response.json["error"] == "login_unknown"
    assert set(response.json or ()) == {"error", "message", "reference", "login_url"}
    assert response.json["login_url"] == "/sso/authorize"


def test_a_failure_page_is_private_and_inert(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    response = client.get("/sso/callback?code=x")
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "<script" not in response.text
    assert "style=" not in response.text
    (reference,) = [line.split("reference ")[1][:8] for line in caplog.messages]
    assert reference in response.text


def test_two_applications_from_one_extension_object(
    make_app: AppMaker, server: ScriptedServer
) -> None:
    sso = DevKitSSO()
    apps = [make_app(sso, client_id=CLIENT_ID), make_app(sso, client_id="the-second")]
    server.answers[GET_TOKEN] = lambda handler: (
        threading.Event().wait(0.05),
        says({"code": "2000", "data": {"access_token": "a", "refresh_token": "r"}})(handler),
    )[-1]
    clients = [app.test_client() for app in apps for _ in range(3)]
    at_once([partial(sign_in, client) for client in clients])
    client_ids = sorted(seen.json["client_id"] for seen in server.seen if seen.path == GET_TOKEN)
    assert client_ids == [CLIENT_ID] * 3 + ["the-second"] * 3
    # A session of one application is not valid in the other.
    stranger = apps[1].test_client()
    carry_cookies(clients[0], stranger)
    assert not stranger.get("/who").json["is_authenticated"]
    assert clients[0].get("/who").json["is_authenticated"]


@pytest.mark.parametrize("host", ["evil.example", "x" * 300, "a b", ""])
def test_an_untrusted_host(make_app: AppMaker, host: str) -> None:
    app = make_app()
    app.config["TRUSTED_HOSTS"] = ["localhost"]
    for path in ("/", "/private", "/sso/authorize", "/sso/callback?code=C", "/nowhere"):
        assert app.test_client().get(path, headers={"Host": host}).status_code == 400
