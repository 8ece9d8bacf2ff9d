"""The sandbox, over real sockets; these tests do not use the client."""

from __future__ import annotations

import base64
import hashlib
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from flask_devkit_sso.sandbox import SandboxConfig, expiring
from flask_devkit_sso.sandbox.__main__ import main
from flask_devkit_sso.sandbox.authorization_response import authorization_response_url
from flask_devkit_sso.sandbox.serving import SandboxRequestHandler

from .. import clock
from ..clock import advance
from ..conftest import wait_until
from ..processes import sandbox
from ..threads import Background, at_once
from .client import CLIENT_ID, CLIENT_SECRET, JSON, REDIRECT_URI, Client, a_client, answer_in

VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    log = tmp_path_factory.mktemp("sandbox") / "stderr"
    with sandbox("--client-secret", CLIENT_SECRET, log=log) as exported:
        yield exported["SERVER_URL"], log


@pytest.fixture
def client(shared: tuple[str, Path]) -> Iterator[Client]:
    client = Client(shared[0])
    yield client
    requests.delete(client.url + "/_sandbox/fail-next", timeout=60)
    client.browser.close()


# The wire


def test_round_trip(client: Client) -> None:
    back = client.response_url(state="a b&c=d%#é")
    code = answer_in(back)["code"]
    assert back == f"{REDIRECT_URI}?code={code}&state=a+b%26c%3Dd%25%23%C3%A9"

    first = client.exchange(code)
    assert (first["code"], first["message"]) == ("2000", "Success.")
    assert sorted(first["data"]) == ["access_token", "expires_in", "refresh_token"]
    assert first["data"]["expires_in"] == 3600
    assert min(len(first["data"][key]) for key in ("access_token", "refresh_token")) >= 43

    user = {"uid": "1001", "username": "ada", "role": "Admin"}
    assert client.user(first["data"])["data"] == user

    second = client.call("refreshToken", refresh_token=first["data"]["refresh_token"])
    assert sorted(second["data"]) == ["access_token", "expires_in"]
    assert client.user(second["data"])["data"] == user
    again = client.call("refreshToken", refresh_token=first["data"]["refresh_token"])
    assert again["code"] == "2000"

    out = client.call("logout", access_token=second["data"]["access_token"])
    assert (out["code"], out["data"]) == ("2000", {})
    for tokens in (first["data"], second["data"], again["data"]):
        assert client.user(tokens)["code"] == "8205"
    dead = client.call("refreshToken", refresh_token=first["data"]["refresh_token"])
    assert dead["code"] == "8206"
    assert client.authorize().status_code == 200  # the sign-in page again


MESSAGES = {
    "8101": ("The client_id parameter is missing.", "缺少参数client_id"),
    "8102": ("The authorization_code parameter is missing.", "缺少参数authorization_code"),
    "8103": ("The grant_type parameter is missing.", "缺少参数grant_type"),
    "8104": ("The client_secret parameter is missing.", "缺少参数client_secret"),
    "8105": ("The access_token parameter is missing.", "缺少参数access_token"),
    "8106": ("The refresh_token parameter is missing.", "缺少参数refresh_token"),
    "8107": ("The redirect_uri parameter is missing.", "缺少参数redirect_uri"),
    "8201": ("The client_id parameter is invalid.", "参数client_id非法"),
    "8202": ("The authorization_code parameter is invalid.", "参数authorization_code非法"),
    "8203": ("The grant_type parameter is invalid.", "参数grant_type非法"),
    "8204": ("The client_secret parameter is invalid.", "参数client_secret非法"),
    "8205": ("The access_token parameter is invalid.", "参数access_token非法"),
    "8206": ("The refresh_token parameter is invalid.", "参数refresh_token非法"),
    "8207": ("The redirect_uri parameter is invalid.", "参数redirect_uri非法"),
}

ERRORS = [
    ("getToken", "client_id", "8101", "8201"),
    ("getToken", "authorization_code", "8102", "8202"),
    ("getToken", "grant_type", "8103", "8203"),
    ("getToken", "client_secret", "8104", "8204"),
    ("getToken", "redirect_uri", "8107", "8207"),
    ("getUserInfo", "client_id", "8101", "8201"),
    ("getUserInfo", "access_token", "8105", "8205"),
    ("refreshToken", "client_id", "8101", "8201"),
    ("refreshToken", "refresh_token", "8106", "8206"),
    ("/sso/oauth2/checkUsers", "client_id", "8101", "8201"),
    ("/sso/oauth2/checkUsers", "access_token", "8105", "8205"),
    ("logout", "client_id", "8101", "8201"),
    ("logout", "access_token", "8105", "8205"),
]


@pytest.mark.parametrize(("interface", "parameter", "missing", "invalid"), ERRORS)
def test_error_codes(
    client: Client, interface: str, parameter: str, missing: str, invalid: str
) -> None:
    tokens = client.tokens("bob")
    right = {
        "getToken": client.token_request(client.code("bob")),
        "refreshToken": {"client_id": CLIENT_ID, "refresh_token": tokens["refresh_token"]},
    }.get(interface, {"client_id": CLIENT_ID, "access_token": tokens["access_token"], "users": []})
    absent = {name: value for name, value in right.items() if name != parameter}
    cases = [(missing, absent)]
    cases += [(missing, right | {parameter: value}) for value in (None, "")]
    wrong = (right[parameter] + " ", "wrong", "\ud800", 1, 0, True, False, ["x"], {"x": 1})
    cases += [(invalid, right | {parameter: value}) for value in wrong]
    languages = ("en-GB,zh;q=0.5", "zh-CN,zh;q=0.9,en;q=0.8")
    for code, body in cases:
        for language, message in zip(languages, MESSAGES[code], strict=True):
            answer = client.post(interface, body, headers={"Accept-Language": language})
            assert answer.status_code == 200
            assert answer.json() == {
                "code": code,
                "message": message,
                "messageArgs": [],
                "data": {},
            }
    # None of these requests used up the valid values.
    assert client.post(interface, right).json()["code"] == "2000"


def test_missing_is_reported_before_invalid_in_table_order(client: Client) -> None:
    wrong = {
        "redirect_uri": 1,
        "client_secret": 1,
        "grant_type": 1,
        "authorization_code": 1,
        "client_id": 1,
    }
    expected = ["8101", "8102", "8103", "8104", "8107"]
    parameters = ["client_id", "authorization_code", "grant_type", "client_secret", "redirect_uri"]
    body: JSON = {}
    for code, parameter in zip(expected, parameters, strict=True):
        assert client.post("getToken", body).json()["code"] == code
        body[parameter] = 1
    right = client.token_request(client.code())
    body = dict(wrong)
    for code, parameter in zip(["8201", "8202", "8203", "8204", "8207"], parameters, strict=True):
        assert client.post("getToken", body).json()["code"] == code
        body[parameter] = right[parameter]
    assert client.post("getToken", body).json()["code"] == "2000"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"null", b"\xff{}", b"[" * 100_000])
def test_a_body_that_is_not_a_json_object(client: Client, body: bytes) -> None:
    for language in ("en", "zh"):
        answer = requests.post(
            client.url + "/sso/oauth2/getToken",
            data=body,
            headers={"Content-Type": "application/json", "Accept-Language": language},
            timeout=60,
        )
        assert answer.status_code == 400
        assert answer.json() == {
            "code": "8500",
            "message": "There is internal resource error on the server.",
            "messageArgs": [],
            "data": {},
        }


def test_a_wrong_content_type(client: Client) -> None:
    code = client.code()
    answer = requests.post(
        client.url + "/sso/oauth2/getToken", data=client.token_request(code), timeout=60
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "8500")
    assert client.exchange(code)["code"] == "2000"


def test_using_a_code_twice_revokes_its_tokens(client: Client) -> None:
    code = client.code()
    tokens, others = client.exchange(code)["data"], client.tokens()
    assert client.exchange(code, client_secret="guess")["code"] == "8202"
    assert client.user(tokens)["code"] == "2000"
    assert client.exchange(code)["code"] == "8202"
    assert client.user(tokens)["code"] == "8205"
    assert client.call("refreshToken", refresh_token=tokens["refresh_token"])["code"] == "8206"
    assert client.user(others)["code"] == "2000"


def test_only_one_of_many_exchanges_of_a_code_succeeds(client: Client) -> None:
    code = client.code()
    answers = at_once([lambda: client.exchange(code)["code"]] * 8)
    assert sorted(answers) == ["2000"] + ["8202"] * 7


@pytest.mark.parametrize(
    "redirect_uri",
    [
        REDIRECT_URI + "/",
        REDIRECT_URI + " ",
        REDIRECT_URI.upper(),
        REDIRECT_URI.replace("127.0.0.1", "localhost"),
        REDIRECT_URI.replace("callback", "%63allback"),
    ],
)
def test_redirect_uri_is_compared_exactly(client: Client, redirect_uri: str) -> None:
    code = client.code()
    assert client.exchange(code, redirect_uri=redirect_uri)["code"] == "8207"
    if "localhost" not in redirect_uri:
        assert client.authorize(redirect_uri=redirect_uri).status_code == 400


def test_lifetimes() -> None:
    clock.stop()
    with a_client(token_lifetime=120) as client:
        early, late = client.code(), client.code()
        page = client.authorize(client_id=CLIENT_ID)
        assert page.status_code == 302
        advance(59)
        tokens = client.exchange(early)["data"]
        assert tokens["expires_in"] == 120
        advance(1)
        assert client.exchange(late)["code"] == "8202"
        advance(118)
        assert client.user(tokens)["code"] == "2000"
        advance(1)
        assert client.user(tokens)["code"] == "8205"
        assert client.call("logout", access_token=tokens["access_token"])["code"] == "8205"
        refreshed = client.call("refreshToken", refresh_token=tokens["refresh_token"])["data"]
        assert client.user(refreshed)["code"] == "2000"
        advance(86_400)
        dead = client.call("refreshToken", refresh_token=tokens["refresh_token"])
        assert dead["code"] == "8206"

        page = client.authorize()
        assert page.status_code == 200
        advance(600)
        assert "out of date" in client.submit(page, username="ada").text


def test_storage_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1_000_000.0]
    monkeypatch.setattr(expiring, "now", lambda: clock[0])
    monkeypatch.setattr(expiring, "LIMIT", 3)
    store = expiring.ExpiringStore[int](60)
    keys = [store.add(number) for number in range(5)]
    assert [store.get(key) for key in keys] == [None, None, 2, 3, 4]
    clock[0] += 60
    store.add(5)
    assert len(store) == 1


def test_rotated_refresh_tokens() -> None:
    with a_client(rotate_refresh_tokens=True) as client:
        first = client.tokens()
        second = client.call("refreshToken", refresh_token=first["refresh_token"])["data"]
        assert second["refresh_token"] != first["refresh_token"]
        assert client.user(first)["code"] == client.user(second)["code"] == "2000"
        reused = client.call("refreshToken", refresh_token=first["refresh_token"])
        assert reused["code"] == "8206"
        assert client.user(first)["code"] == client.user(second)["code"] == "8205"
        dead = client.call("refreshToken", refresh_token=second["refresh_token"])
        assert dead["code"] == "8206"


def test_logout_revokes_only_the_tokens_of_the_same_sign_in(client: Client) -> None:
    one, two = client.tokens(), client.tokens()
    with requests.Session() as client.browser:
        other = client.tokens()
    assert client.call("logout", access_token=one["access_token"])["code"] == "2000"
    assert client.user(two)["code"] == "8205"
    assert client.user(other)["code"] == "2000"


# PKCE


def test_pkce(client: Client) -> None:
    digest = hashlib.sha256(VERIFIER.encode()).digest()
    assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == CHALLENGE
    code = client.code(code_challenge=CHALLENGE, code_challenge_method="S256")
    for wrong in ({}, {"code_verifier": ""}, {"code_verifier": VERIFIER + "x"}):
        assert client.exchange(code, **wrong)["code"] == "8202"
    assert client.exchange(code, code_verifier=CHALLENGE)["code"] == "8202"
    assert client.exchange(code, code_verifier=1)["code"] == "8202"
    assert client.exchange(code, code_verifier=VERIFIER)["code"] == "2000"


def test_a_verifier_without_a_challenge(client: Client) -> None:
    code = client.code()
    assert client.exchange(code, code_verifier=VERIFIER)["code"] == "8202"
    assert client.exchange(code)["code"] == "2000"


@pytest.mark.parametrize(
    "query",
    [
        {"code_challenge": CHALLENGE},
        {"code_challenge": VERIFIER, "code_challenge_method": "plain"},
        {"code_challenge": "short", "code_challenge_method": "S256"},
        {"code_challenge_method": "S256"},
    ],
)
def test_invalid_pkce_parameters(client: Client, query: dict[str, str]) -> None:
    answer = answer_in(client.response_url(state="s", **query))
    assert (answer["error"], answer["state"]) == ("invalid_request", "s")


# authorize and its response


@pytest.mark.parametrize(
    "query",
    [
        {"client_id": None},
        {"client_id": ""},
        {"client_id": "1"},
        {"redirect_uri": None},
        {"redirect_uri": "https://evil.example/"},
        {"redirect_uri": "https://evil.example/", "response_type": "token"},
        {"state": ["a", "a"]},
        {"client_id": [CLIENT_ID, CLIENT_ID]},
        {"anything": ["", ""]},
    ],
)
def test_errors_shown_by_the_sandbox(client: Client, query: JSON) -> None:
    answer = client.authorize(**query)
    assert answer.status_code == 400
    assert "Location" not in answer.headers
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"


def test_the_error_page_escapes(client: Client) -> None:
    page = client.authorize(redirect_uri='"><script>alert(1)</script>').text
    assert "<script" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("response_type", "error"), [(None, "invalid_request"), ("token", "unsupported_response_type")]
)
def test_errors_returned_to_the_application(
    client: Client, response_type: str | None, error: str
) -> None:
    answer = client.authorize(response_type=response_type, state="s")
    assert answer.status_code == 302
    assert answer.headers["Location"] == (
        f"{REDIRECT_URI}?error={error}&error_description=The+response_type+must+be+code.&state=s"
    )


@pytest.mark.parametrize(
    ("redirect_uri", "position", "expected"),
    [
        ("https://host/#/login", "end", "https://host/#/login?code=c"),
        ("https://host:8443/#/", "end", "https://host:8443/#/?code=c"),
        ("https://host/#/login?x=1", "end", "https://host/#/login?x=1&code=c"),
        ("https://host/a?x=1#/login", "end", "https://host/a?x=1#/login?code=c"),
        ("https://host/#/login", "query", "https://host/?code=c#/login"),
        ("https://host/a?x=1#/login?y=2", "query", "https://host/a?x=1&code=c#/login?y=2"),
        ("https://host/a", "end", "https://host/a?code=c"),
        ("https://host/a", "query", "https://host/a?code=c"),
        ("https://host/a?x=%7e", "end", "https://host/a?x=%7e&code=c"),
    ],
)
def test_where_the_response_parameters_go(redirect_uri: str, position: str, expected: str) -> None:
    assert authorization_response_url(redirect_uri, {"code": "c"}, position) == expected


def test_the_code_in_the_fragment() -> None:
    with a_client("https://host:8443/#/login") as client:
        back = client.response_url(state="s")
        code = answer_in(back)["code"]
        assert back == f"https://host:8443/#/login?code={code}&state=s"
        assert client.exchange(code)["code"] == "2000"
        denied = client.response_url(state="s", response_type="x")
        assert denied.startswith("https://host:8443/#/login?error=unsupported_response_type&")


def test_the_code_before_the_fragment_no_state_and_an_issuer() -> None:
    with sandbox(
        "--redirect-uri=https://host:8443/#/login",
        "--redirect-uri=https://other.example/cb",
        "--code-position=query",
        "--drop-state",
        "--issuer",
        "--rotate-refresh-tokens",
        "--token-lifetime=90",
        "--client-id=20221017000000001",
    ) as exported:
        assert exported["REDIRECT_URI"] == "https://host:8443/#/login"
        client = Client(
            exported["SERVER_URL"], exported["CLIENT_SECRET"], "https://host:8443/#/login"
        )
        with client.browser:
            back = client.response_url(state="s")
            assert sorted(answer_in(back)) == ["code", "iss"]
            assert answer_in(back)["iss"] == client.url
            assert re.fullmatch(r"https://host:8443/\?code=[\w-]{43,}&iss=[^#&]+#/login", back)
            tokens = client.exchange(answer_in(back)["code"])["data"]
            assert tokens["expires_in"] == 90
            renewed = client.call("refreshToken", refresh_token=tokens["refresh_token"])
            assert "refresh_token" in renewed["data"]
            error = answer_in(client.response_url(state="s", response_type="x"))
            assert sorted(error) == ["error", "error_description", "iss"]
            client.redirect_uri = "https://other.example/cb"
            assert client.response_url().startswith("https://other.example/cb?code=")


# The sign-in page


def test_the_sign_in_page(client: Client) -> None:
    page = client.authorize()
    assert page.status_code == 200
    assert page.headers["Cache-Control"] == "no-store"
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'self';")
    assert "form-action" not in policy
    assert "Sandbox: anyone can sign in" in page.text
    assert "http://127.0.0.1:5000" in page.text
    people = re.findall(r'<button name="username" value="([^"]+)">', page.text)
    assert people == ["ada", "bob", "carol", "王小明", "o&#39;neill", "auditor"]
    assert '<li class="person disabled"><span class="name">eve</span>' in page.text
    assert '<label for="typed_username">' in page.text
    assert "<script" not in page.text
    assert not re.search(r"\s(style|on\w+)=", page.text)
    sheet = re.search(r'<link rel="stylesheet" href="([^"]+)">', page.text)
    assert sheet
    css = requests.get(client.url + sheet[1], timeout=60)
    assert css.status_code == 200
    assert css.headers["Content-Type"].startswith("text/css")


@pytest.mark.parametrize(
    ("username", "role"),
    [("ada", "Admin"), ("bob", "User"), ("王小明", "User"), ("auditor", "Auditor")],
)
def test_choosing_a_person(client: Client, username: str, role: str) -> None:
    answer = client.submit(client.authorize(), username=username)
    assert answer.status_code == 303
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("sandbox_")
    assert "; HttpOnly; Path=/; SameSite=Lax" in cookie
    assert "Secure" not in cookie
    tokens = client.exchange(answer_in(answer.headers["Location"])["code"])["data"]
    user = client.user(tokens)["data"]
    assert (user["username"], user["role"]) == (username, role)
    assert client.authorize().status_code == 302  # already signed in: redirected at once


def test_typing_a_name(client: Client) -> None:
    uids = []
    for name in ("  Zoë <b>&'\" ", "Zoë <b>&'\"", "Zoe"):
        with requests.Session() as client.browser:
            answer = client.submit(client.authorize(), typed_username=name)
            tokens = client.exchange(answer_in(answer.headers["Location"])["code"])["data"]
            user = client.user(tokens)["data"]
            assert (user["username"], user["role"]) == (name.strip(), "User")
            uids.append(user["uid"])
    assert uids[0] == uids[1] != uids[2]
    with requests.Session() as client.browser:
        answer = client.submit(client.authorize(), typed_username="ada")
        tokens = client.exchange(answer_in(answer.headers["Location"])["code"])["data"]
        assert client.user(tokens)["data"]["uid"] == "1001"


@pytest.mark.parametrize("name", ["", "   ", "x" * 65, "a\x00b", "a\nb"])
def test_names_that_are_refused(client: Client, name: str) -> None:
    answer = client.submit(client.authorize(), typed_username=name)
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text
    assert client.submit(answer, username="ada").status_code == 303


def test_a_disabled_person(client: Client) -> None:
    for field in ("username", "typed_username"):
        answer = client.submit(client.authorize(), **{field: "eve"})
        assert answer.status_code == 403
        assert "The account eve is disabled." in answer.text
        assert "Set-Cookie" not in answer.headers
    assert client.submit(answer, username="ada").status_code == 303


def test_cancel(client: Client) -> None:
    answer = client.submit(client.authorize(state="s"), cancel="1")
    assert answer.status_code == 303
    assert answer_in(answer.headers["Location"]) == {
        "error": "access_denied",
        "error_description": "The person cancelled the sign-in.",
        "state": "s",
    }
    assert client.authorize().status_code == 200


def test_a_form_without_its_token(client: Client) -> None:
    for data in ({}, {"form_token": "guess"}):
        answer = client.browser.post(
            client.url + "/sign-in", data=data | {"username": "ada"}, timeout=60
        )
        assert answer.status_code == 400
        assert "out of date" in answer.text


def test_two_tabs_return_to_their_own_redirect_uris(client: Client) -> None:
    one, two = client.authorize(state="1"), client.authorize(state="2")
    back = client.submit(two, username="ada").headers["Location"]
    assert answer_in(back)["state"] == "2"
    back = client.submit(one, username="bob").headers["Location"]
    assert answer_in(back)["state"] == "1"
    tokens = client.exchange(answer_in(back)["code"])["data"]
    assert client.user(tokens)["data"]["username"] == "bob"


def test_home(client: Client) -> None:
    assert "Nobody is signed in" in client.browser.get(client.url, timeout=60).text
    client.code("o'neill")
    assert "signed in as <b>o'neill</b>" in unescape(
        client.browser.get(client.url, timeout=60).text
    )


# People and their validity


def test_changing_people_and_checking_their_validity() -> None:
    with a_client() as client:
        tokens = client.tokens("bob")
        with requests.Session() as client.browser:
            typed = client.submit(client.authorize(), typed_username="Zoe")
            data = client.exchange(answer_in(typed.headers["Location"])["code"])["data"]
            zoe = client.user(data)["data"]["uid"]
        users = ["1001", "1002", zoe, "1007", "nobody", "ada", 1]
        token = tokens["access_token"]

        def valid() -> list[bool]:
            answer = client.call("checkUsers", access_token=token, users=users)
            assert list(answer["data"]) == ["validation_list"]
            validity: list[bool] = answer["data"]["validation_list"]
            return validity

        assert valid() == [True, True, True, False, False, False, False]
        changed = client.post("/_sandbox/people", {"username": "bob", "disabled": True})
        assert changed.json() == {
            "username": "bob",
            "role": "User",
            "uid": "1002",
            "disabled": True,
        }
        assert client.user(tokens)["code"] == "8205"
        refused = client.call("refreshToken", refresh_token=tokens["refresh_token"])
        assert refused["code"] == "8206"
        assert valid() == [True, False, True, False, False, False, False]
        with requests.Session() as client.browser:
            assert client.submit(client.authorize(), username="bob").status_code == 403

        body = {"username": "bob", "disabled": False, "role": "Admin", "uid": "2002"}
        assert client.post("/_sandbox/people", body).json() == body
        assert client.user(tokens)["data"] == {"uid": "2002", "username": "bob", "role": "Admin"}
        for wrong in (
            {},
            {"username": "bob", "disabled": 1},
            {"username": "bob", "name": "x"},
            {"username": "\ud800"},
        ):
            assert client.post("/_sandbox/people", wrong).status_code == 400
        unlisted = client.call("checkUsers", access_token=token, users="1001")
        assert unlisted["code"] == "8500"


def test_validity_elsewhere_by_name() -> None:
    with a_client(
        validity_path="/auth/valid", validity_field="names", validity_key="username"
    ) as client:
        tokens = client.tokens("王小明")
        answer = client.call(
            "/auth/valid", access_token=tokens["access_token"], names=["王小明", "eve", "1001"]
        )
        assert answer["data"] == {"validation_list": [True, False, False]}


# Scripted failures

POSTS = ["getToken", "getUserInfo", "refreshToken", "logout", "validity"]


def bodies(client: Client) -> dict[str, tuple[str, JSON]]:
    tokens = client.tokens()
    token = {"client_id": CLIENT_ID, "access_token": tokens["access_token"]}
    return {
        "getToken": ("getToken", client.token_request(client.code())),
        "getUserInfo": ("getUserInfo", token),
        "refreshToken": (
            "refreshToken",
            {"client_id": CLIENT_ID, "refresh_token": tokens["refresh_token"]},
        ),
        "logout": ("logout", token),
        "validity": ("checkUsers", token | {"users": ["1001"]}),
    }


@pytest.mark.parametrize("interface", POSTS)
def test_failing_with_a_code(client: Client, interface: str) -> None:
    path, body = bodies(client)[interface]
    client.fail_next(interface, "8500", times=2)
    client.fail_next(interface, "8201")
    client.forget_calls()
    codes = [client.post(path, body).json()["code"] for _ in range(4)]
    assert codes == ["8500", "8500", "8201", "2000"]
    assert [(c["interface"], c["code"]) for c in client.calls()] == [
        (interface, code) for code in codes
    ]


def test_failing_by_status_garbage_empty_huge_and_redirect(client: Client) -> None:
    tokens = client.tokens()
    body = {"client_id": CLIENT_ID, "access_token": tokens["access_token"]}
    ways = ["http500", "http503", "garbage", "empty", "huge", "redirect"]
    for how in ways:
        client.fail_next("getUserInfo", how)
    client.forget_calls()
    five, unavailable, garbage, empty, huge, redirect = (
        client.post("getUserInfo", body, allow_redirects=False) for _ in ways
    )
    assert (five.status_code, five.json()["code"]) == (500, "2000")
    assert five.json()["data"]["username"] == "ada"
    assert unavailable.status_code == 503
    assert garbage.status_code == 200
    assert garbage.headers["Content-Type"].startswith("text/html")
    with pytest.raises(ValueError, match="Expecting value"):
        garbage.json()
    assert (empty.json()["code"], empty.json()["data"]) == ("2000", {})
    assert len(huge.content) > 2 * 1024 * 1024
    assert huge.json()["data"]["username"] == "ada"
    assert redirect.status_code == 302
    assert [call["code"] for call in client.calls()] == ways
    client.forget_calls()
    elsewhere = requests.get(client.url + redirect.headers["Location"], timeout=60)
    assert elsewhere.json()["code"] == "2000"
    assert [call["interface"] for call in client.calls()] == ["elsewhere"]


def test_failing_by_closing(client: Client) -> None:
    code = client.code()
    client.fail_next("getToken", "close")
    with pytest.raises(requests.ConnectionError):
        client.exchange(code)
    # The request arrived and used up its code.
    assert client.exchange(code)["code"] == "8202"


def test_failing_slowly(client: Client) -> None:
    body = {"client_id": CLIENT_ID}
    client.fail_next("logout", "slow")
    client.fail_next("logout", "slow-headers")
    client.forget_calls()
    start = time.monotonic()
    with client.post("logout", body, stream=True) as answer:
        assert answer.status_code == 200
        assert answer.raw.read(4) == b'{"co'
    assert 0.6 < time.monotonic() - start < 30
    with pytest.raises(requests.ReadTimeout):
        client.post("logout", body, timeout=(60, 0.15))
    wait_until(lambda: [call["code"] for call in client.calls()] == ["8105", "8105"])


def test_failing_by_hanging() -> None:
    with a_client() as client:
        client.fail_next("getUserInfo", "hang", times=2)
        with pytest.raises(requests.ReadTimeout):
            client.post("getUserInfo", {}, timeout=(60, 0.3))
        wait_until(lambda: [call["code"] for call in client.calls()] == ["hang"])
        # Other requests are served, and stopping the sandbox ends the hanging one.
        waiting = Background(lambda: client.post("getUserInfo", {}, timeout=60))
        assert client.tokens()
        wait_until(lambda: len(client.calls()) >= 3)
        stopped = time.monotonic()
    with pytest.raises(requests.ConnectionError):
        waiting.result()
    assert time.monotonic() - stopped < 30


def test_failing_at_authorize(client: Client) -> None:
    for how in ("8500", "http503", "temporarily_unavailable", "close"):
        client.fail_next("authorize", how)
    assert client.authorize().json()["code"] == "8500"
    assert client.authorize().status_code == 503
    assert answer_in(client.authorize(state="s").headers["Location"]) == {
        "error": "temporarily_unavailable",
        "error_description": "The sandbox was told to fail.",
        "state": "s",
    }
    with pytest.raises(requests.ConnectionError):
        client.authorize()
    assert client.authorize().status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"interface": "nothing", "how": "8500"},
        {"interface": ["getToken"], "how": "8500"},
        {"interface": "getToken"},
        {"interface": "getToken", "how": "sulk"},
        {"interface": "getToken", "how": "access_denied"},
        {"interface": "getToken", "how": "http200"},
        {"interface": "getToken", "how": "8500", "times": 0},
        {"interface": "getToken", "how": "8500", "times": True},
    ],
)
def test_unknown_failures(client: Client, body: object) -> None:
    answer = client.post("/_sandbox/fail-next", body)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_the_control_interface_accepts_only_json(client: Client) -> None:
    text = '{"interface": "getToken", "how": "8500"}'
    headers = {"Content-Type": "text/plain"}
    answer = requests.post(
        client.url + "/_sandbox/fail-next", data=text, headers=headers, timeout=60
    )
    assert answer.status_code == 400


# The connection


def receive(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    assert data, "the connection was closed"
    return data


def exchange_raw(connection: socket.socket, request: bytes) -> tuple[bytes, bytes]:
    """Send a request, return the head and the body of the answer."""
    connection.sendall(request)
    data = b""
    while b"\r\n\r\n" not in data:
        data += receive(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    expected = int(length[1]) if length and not request.startswith(b"HEAD") else 0
    while len(body) < expected:
        body += receive(connection)
    return head, body


def test_connections_are_kept_and_counted(client: Client) -> None:
    client.forget_calls()
    address = urlsplit(client.url)
    top = b"POST /sso/oauth2/logout HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    plain = top + b"Content-Length: 2\r\n\r\n{}"
    chunked = top + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"
    unread = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    head_only = b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        for request in (plain, chunked, head_only, unread, plain):
            head, body = exchange_raw(connection, request)
            assert head.startswith(b"HTTP/1.1 404" if request is unread else b"HTTP/1.1 200")
            assert b"connection:" not in head.lower()
            assert (b"8101" in body) == (request in (plain, chunked))
        connection.sendall(plain + plain)  # both at once
        answers = b""
        while answers.count(b"8101") < 2:
            answers += receive(connection)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        last = plain.replace(b"Host: x", b"Host: x\r\nConnection: close")
        head, _ = exchange_raw(connection, last)
        assert b"\r\nConnection: close" in head
        assert connection.recv(1) == b""
    numbers = [call["connection"] for call in client.calls()]
    assert len(set(numbers[:5])) == 1
    assert len(set(numbers)) == 2
    assert sorted(client.calls()[0]) == ["code", "connection", "interface"]


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n" + b"x" * 1048577, b"413"),
    ],
)
def test_malformed_requests(client: Client, request_text: bytes, status: bytes) -> None:
    address = urlsplit(client.url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        head, _ = exchange_raw(connection, request_text)
        assert head.split()[1] == status


def test_idle_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SandboxRequestHandler.timeout == 5
    monkeypatch.setattr(SandboxRequestHandler, "timeout", 0.2)
    with a_client() as client:
        address = urlsplit(client.url)
        with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
            exchange_raw(connection, b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(1) == b""


def test_stopping_the_sandbox_closes_open_connections() -> None:
    with a_client() as client:
        client.authorize()
        session, url = client.browser, client.url
        client.browser = requests.Session()
    with session, pytest.raises(requests.ConnectionError):
        session.get(url, timeout=60)


# The command


def test_the_log_contains_no_secret(client: Client, shared: tuple[str, Path]) -> None:
    code = client.code(state="canary-state")
    tokens = client.exchange(code)["data"]
    client.user(tokens)
    client.browser.get(client.url + "/x%1b[31m?q=canary-query", timeout=60)
    log = shared[1].read_text("utf-8")
    assert "GET /sso/oauth2/authorize 200\n" in log
    assert "POST /sign-in 303\n" in log
    assert "POST /sso/oauth2/getUserInfo 200\n" in log
    assert "Traceback" not in log
    canaries = [CLIENT_SECRET, code, "canary-", *map(str, tokens.values())]
    canaries += [cookie.value or "" for cookie in client.browser.cookies]
    canaries.remove("3600")
    assert len(canaries) >= 6
    assert not [canary for canary in canaries if canary in log]
    assert re.fullmatch(r"([A-Z-]+ /?\S* [\w]+\n)+", log)


def test_the_startup_output() -> None:
    with sandbox() as one, sandbox(end=signal.SIGINT) as two:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", one["SERVER_URL"])
        assert one["CLIENT_ID"] == CLIENT_ID
        assert one["REDIRECT_URI"] == "http://127.0.0.1:5000/#/login"
        assert re.findall(r"Redirect URI +(\S+)", one["text"]) == [
            "http://127.0.0.1:5000/#/login",
            "http://localhost:5000/#/login",
            "http://127.0.0.1:5000/sso/callback",
            "http://localhost:5000/sso/callback",
        ]
        assert "CA_BUNDLE" not in one
        assert one["CLIENT_SECRET"] != two["CLIENT_SECRET"]
        for person in ("ada (Admin)", "bob (User)", "王小明 (User)", "eve (disabled)"):
            assert person in one["text"]


def test_tls(tmp_path: Path) -> None:
    with sandbox("--tls") as exported:
        bundle = exported["CA_BUNDLE"]
        assert exported["SERVER_URL"].startswith("https://127.0.0.1:")
        assert Path(bundle).parent.stat().st_mode & 0o777 == 0o700
        address = urlsplit(exported["SERVER_URL"])
        # A silent client must not block other clients.
        with (
            socket.create_connection((address.hostname, address.port)),
            requests.Session() as session,
        ):
            session.verify = bundle
            client = Client(exported["SERVER_URL"], exported["CLIENT_SECRET"])
            client.browser.close()
            client.browser = session
            answer = client.submit(client.authorize(), username="ada")
            cookie = answer.headers["Set-Cookie"]
            assert cookie.startswith("__Host-sandbox_")
            assert "; Secure;" in cookie
            body = client.token_request(answer_in(answer.headers["Location"])["code"])
            url = client.url + "/sso/oauth2/getToken"
            assert session.post(url, json=body, timeout=60).json()["code"] == "2000"
            localhost = client.url.replace("127.0.0.1", "localhost")
            assert session.get(localhost, timeout=60).status_code == 200
    assert not Path(bundle).exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--token-lifetime", "3601"],
        ["--token-lifetime", "0"],
        ["--redirect-uri", "/sso/callback"],
        ["--redirect-uri", "https://host/#/ "],
        ["--client-id", ""],
        ["--code-position", "middle"],
        ["--port", "65536"],
    ],
)
def test_wrong_options(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2


def test_tls_without_trustme(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as stopped:
        main(["--tls", "--port", "0"])
    assert stopped.value.code == 1
    assert "pip install trustme" in capsys.readouterr().err


def test_another_host_causes_a_warning(tmp_path: Path) -> None:
    log = tmp_path / "stderr"
    with sandbox("--host", "0.0.0.0", log=log) as exported:
        assert exported["SERVER_URL"].startswith("http://127.0.0.1:")
        assert requests.get(exported["SERVER_URL"], timeout=60).status_code == 200
    assert log.read_text().startswith("Warning: listening on 0.0.0.0.")


def test_reprs_do_not_show_the_secret() -> None:
    assert CLIENT_SECRET not in repr(SandboxConfig(client_secret=CLIENT_SECRET))
