"""``flask devkit-sso check-server``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

from .. import processes
from ..conftest import CLIENT_ID
from ..processes import Person, free_port
from ..scripted import (
    ADA,
    DONE,
    GET_TOKEN,
    GET_USER_INFO,
    LOGOUT,
    REFRESH_TOKEN,
    TOKEN,
    Handler,
    ScriptedServer,
    closes,
    fails,
    says,
)
from .place import CANARY, REDIRECT_URI, VALIDITY, Place, settings, validity
from .server_check import at_any_server, at_sandbox, check_server
from .terminal import Opener

AUTHORIZE = "/sso/oauth2/authorize"


def findings(text: str) -> list[str]:
    """Return what was found, without the fixes."""
    return [
        line
        for line in text.splitlines()
        if re.match(r"(ok|note|skipped|error|warning) |DEVKIT_SSO_BINDING|Without", line)
    ]


NOTE_ON_HTTP = (
    "note     1. authorize: this test uses http. The vendor's documentation requires https for "
    "every interface"
)


def is_wrong(line: str) -> bool:
    return line.startswith(("error", "warning"))


VALIDITY_REFUSALS = [
    "ok       5. user validity: returns 8101, 8105, 8201, 8205 as required",
    "note     5. user validity: HTTP status of error responses: 200",
]
BEFORE_PERSON = [
    "note     2. getToken: 8202 instead of 8203 if grant_type is invalid; both are allowed",
    "note     2. getToken: 8202 instead of 8204 if client_secret is invalid; both are allowed",
    "note     2. getToken: 8202 instead of 8207 if redirect_uri is invalid; both are allowed",
    "ok       2. getToken: returns 8101, 8103, 8104, 8102, 8107, 8201, 8202 as required",
    "note     2. getToken: HTTP status of error responses: 200",
    "ok       3. getUserInfo: returns 8101, 8105, 8201, 8205 as required",
    "note     3. getUserInfo: HTTP status of error responses: 200",
    "ok       4. refreshToken: returns 8101, 8106, 8201, 8206 as required",
    "note     4. refreshToken: HTTP status of error responses: 200",
    "ok       6. logout: returns 8101, 8105, 8201, 8205 as required",
    "note     6. logout: HTTP status of error responses: 200",
    "ok       1. authorize: starts a login for the registered client (HTTP 200)",
    "ok       1. authorize: refuses an unknown client (HTTP 400)",
    "ok       1. authorize: refuses an unregistered redirect_uri (HTTP 400)",
    "ok       1. authorize: refuses a redirect_uri with one more character (HTTP 400)",
    NOTE_ON_HTTP,
    "ok       1. authorize: redirects back with one code",
]


NOTE_ON_NAME = (
    "note     3. getUserInfo: the vendor's product may refuse this username: it needs 6 to 32 "
    "letters, digits, - and _, with a letter first"
)
WITH_PERSON = [
    "ok       2. getToken: exchanges the code for tokens",
    "ok       2. getToken: expires_in is at most 3600 seconds",
    "ok       3. getUserInfo: returns uid and username",
    "ok       3. getUserInfo: role is Admin",
    NOTE_ON_NAME,
    "ok       4. refreshToken: expires_in is at most 3600 seconds",
    "ok       4. refreshToken: returns an access token of the same user",
    "ok       4. refreshToken: returns another access token",
    "note     4. refreshToken: keeps the refresh token",
    "ok       2. getToken: refuses a used code with 8202",
    "ok       2. getToken: revokes the tokens of a code that is used twice",
    ("skipped  1. authorize: varying_redirect_uri: not tested, because no address was given"),
    "note     2. getToken: checks PKCE: you can switch DEVKIT_SSO_PKCE on",
    "ok       2. getToken: refuses a wrong client_secret with 8204",
    "ok       2. getToken: refuses a wrong grant_type with 8203",
    "ok       2. getToken: refuses a wrong redirect_uri with 8207",
    "ok       6. logout: reports success",
    "ok       6. logout: refuses the access token afterwards with 8205",
    "ok       6. logout: refuses the refresh token afterwards with 8206",
    "ok       6. logout: ends the sign-in",
    "ok       1. authorize: returns access_denied for a cancelled sign-in",
    "ok       3. getUserInfo: refuses a disabled person with 8205",
    "ok       4. refreshToken: refuses a disabled person with 8206",
    "ok       1. authorize: issues no code for a disabled person",
]
ROTATES = [
    "note     4. refreshToken: returns a new refresh token each time",
    (
        "note     4. refreshToken: the vendor's documentation mentions no new refresh token, so "
        "its product may continue to use the old one"
    ),
]
VALIDITY_SKIPPED = (
    "skipped  5. user validity: error_codes, envelope, valid_person, made_up_person, "
    "several_people, disabled_person: not tested, because DEVKIT_SSO_VALIDITY_URL is not set"
)


SANDBOXES = {
    "plain": (
        "http://127.0.0.1:5000/#/login",
        [],
        [
            "ok       1. authorize: the code is at the end of the redirect_uri",
            "ok       1. authorize: returns state",
            *WITH_PERSON,
            "DEVKIT_SSO_BINDING=state fits, because the server returns state (the current value).",
        ],
    ),
    "as a standard product": (
        "http://127.0.0.1:5000/#/login",
        ["--drop-state", "--code-position=query", "--rotate-refresh-tokens", "--issuer"],
        [
            (
                "ok       1. authorize: the code is before the fragment of the redirect_uri, "
                "which is accepted"
            ),
            (
                "note     1. authorize: the vendor's product expects the code at the end of the "
                "redirect_uri"
            ),
            "note     1. authorize: does not return state",
            "note     1. authorize: returns iss too, which the package ignores",
            *WITH_PERSON[:8],
            *ROTATES,
            *WITH_PERSON[9:],
            (
                "DEVKIT_SSO_BINDING=confirm fits, because the server neither returns state nor "
                "accepts a redirect_uri that varies (the current value is state)."
            ),
        ],
    ),
    "without a fragment": (
        "http://127.0.0.1:5000/sso/callback",
        ["--drop-state"],
        [
            (
                "note     1. authorize: this redirect_uri has no fragment. That of the vendor's "
                "product has one, as in https://host:port/#/login: test the server with such a "
                "redirect_uri too"
            ),
            "note     1. authorize: does not return state",
            *WITH_PERSON[:5],
            "ok       5. user validity: returns true for the person who signed in",
            "ok       5. user validity: returns false for a made-up person",
            "ok       5. user validity: returns one boolean for each user, in their order",
            *WITH_PERSON[5:-2],
            "ok       5. user validity: returns false for a disabled person",
            *WITH_PERSON[-2:],
            (
                "DEVKIT_SSO_BINDING=confirm fits, because the server neither returns state nor "
                "accepts a redirect_uri that varies (the current value is state)."
            ),
        ],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SANDBOXES)
def test_on_a_sandbox(place: Place, name: str) -> None:
    """No application is needed: the settings are in the environment."""
    (place.folder / "app.py").unlink()
    uri, switches, expected = SANDBOXES[name]
    before = [*BEFORE_PERSON]
    arguments = [f"--redirect-uri={uri}", f"--client-secret={CANARY}", *switches]
    with processes.sandbox(*arguments) as exported:
        url = exported["SERVER_URL"]
        configured = settings(SERVER_URL=url, REDIRECT_URI=uri)
        if any("user validity" in line for line in expected):
            configured |= settings(SERVER_URL=url, REDIRECT_URI=uri, **validity(url))
            at = before.index("ok       6. logout: returns 8101, 8105, 8201, 8205 as required")
            before[at:at] = VALIDITY_REFUSALS
        else:
            before[11:11] = [VALIDITY_SKIPPED]
        status, shown = check_server(place, at_sandbox(url), **configured)
    assert findings(shown) == [*before, *expected]
    assert status == 0


class WrongServer(ScriptedServer):
    """Signs everybody in without a login page, and accepts every request."""

    def __init__(self) -> None:
        super().__init__()
        self.changes_state = True
        self.answers[AUTHORIZE] = self.authorize
        self.answers[GET_USER_INFO] = says(ADA | {"data": ADA["data"] | {"role": "Root"}})  # type: ignore[operator]
        self.answers[GET_TOKEN] = says(TOKEN | {"data": TOKEN["data"] | {"expires_in": "60"}})  # type: ignore[operator]

    def authorize(self, handler: Handler) -> None:
        query = parse_qs(urlsplit(handler.path).query)
        state = f"&state={query['state'][0]}x" if "state" in query else ""
        handler.send_response(302)
        handler.send_header("Location", f"{query['redirect_uri'][0]}?code=canary-code{state}")
        handler.send_header("Content-Length", "0")
        handler.end_headers()


@pytest.fixture
def wrong_server() -> Iterator[WrongServer]:
    running = WrongServer()
    yield running
    running.stop()


def test_on_a_server_that_accepts_everything(place: Place, wrong_server: WrongServer) -> None:
    browser = Person("ada")
    wrong_server.answers[VALIDITY] = says(DONE | {"data": {"validation_list": [False]}})
    url = wrong_server.url
    status, shown = check_server(
        place, at_any_server(browser), **settings(SERVER_URL=url, **validity(url))
    )
    browser.close()
    found = findings(shown)
    assert status == 1
    by_person = found.index("error    1. authorize: returns state changed or repeated")
    assert [line for line in found[by_person:] if is_wrong(line)] == [
        "error    1. authorize: returns state changed or repeated",
        "error    2. getToken: expires_in is not an integer of at most 3600",
        "error    3. getUserInfo: role is neither Admin nor User",
        "error    5. user validity: returns false for the person who signed in",
        "error    5. user validity: validation_list does not have one boolean for each user",
        "error    2. getToken: accepts a code twice",
        "error    2. getToken: accepts a wrong client_secret",
        "error    6. logout: the access token still works afterwards",
        "warning  6. logout: the refresh token still works afterwards",
        (
            "error    6. logout: the sign-in is still alive afterwards: authorize redirects back "
            "with a code"
        ),
        "error    1. authorize: returns a code for a cancelled sign-in",
        "warning  3. getUserInfo: still returns a disabled person",
        "error    4. refreshToken: still refreshes the tokens of a disabled person",
        "error    1. authorize: issues a code for a disabled person",
    ]
    for text in (
        "note     1. authorize: accepts a redirect_uri that varies at its end",
        "note     2. getToken: does not check PKCE: DEVKIT_SSO_PKCE would have no effect",
        (
            "DEVKIT_SSO_BINDING=redirect_uri fits, because the server does not return state, but "
            "accepts a redirect_uri that varies (the current value is state)."
        ),
    ):
        assert text in found
    before = found[:by_person]
    for text in (
        "error    2. getToken: reports success if client_secret is missing",
        "error    2. getToken: reports success if authorization_code is invalid",
        "error    3. getUserInfo: reports success if access_token is invalid",
        "error    4. refreshToken: reports success if client_id is invalid",
        "error    5. user validity: reports success if access_token is invalid",
        "error    6. logout: reports success if client_id is missing",
        "note     6. logout: reports success for a made-up token, so success proves nothing",
        "error    1. authorize: redirects the registered client back without a login (HTTP 302)",
        "error    1. authorize: redirects to an unregistered redirect_uri",
        "note     1. authorize: redirects back for an unknown client (HTTP 302)",
    ):
        assert text in before
    gets = [seen for seen in wrong_server.seen if seen.path.startswith(AUTHORIZE)]
    assert len(gets) == 13
    assert all(seen.method == "GET" for seen in gets)
    assert all(CANARY not in path for path in wrong_server.paths)


def test_on_responses_that_are_not_envelopes(place: Place, server: ScriptedServer) -> None:
    server.answers |= {
        GET_TOKEN: says({"code": 8101, "data": []}, 400, {"Content-Type": "text/plain"}),
        GET_USER_INFO: says(f"<html>{CANARY}".encode(), 500),
        REFRESH_TOKEN: says({"code": "2000", "message": "", "data": {}}, 400),
        LOGOUT: closes,
        AUTHORIZE: says(b"", 404),
    }
    status, shown = check_server(place, lambda _: "", **settings(SERVER_URL=server.url))
    assert status == 1
    for text in (
        "error    2. getToken: 8101 if client_secret is missing",
        "ok       2. getToken: returns 8101 as required",
        "error    2. getToken: envelope: code is not a string",
        "error    2. getToken: envelope: message is not a string",
        "error    2. getToken: envelope: data is not an object",
        "note     2. getToken: HTTP status of error responses: 400",
        (
            f"error    3. getUserInfo: The response of getUserInfo at {server.url}/sso/oauth2/"
            "getUserInfo (HTTP 500) is not an envelope"
        ),
        "error    4. refreshToken: The server reported success with HTTP status 400",
        (
            "error    6. logout: The connection to the server broke (RemoteDisconnected): does it "
            "use http on this port?"
        ),
        "error    1. authorize: refuses the registered client (HTTP 404)",
        "skipped  1. authorize: sign_in: not tested, because no address was given",
        "Without a login it is unknown which DEVKIT_SSO_BINDING fits.",
    ):
        assert text in findings(shown)
    assert server.paths.count(GET_USER_INFO) == server.paths.count(LOGOUT) == 1


def test_on_json_that_the_package_refuses(place: Place, wrong_server: WrongServer) -> None:
    wrong_server.answers |= {
        GET_TOKEN: says(b'{"code":"2000","data":{"access_token":"a\\n","refresh_token":"r"}}'),
        GET_USER_INFO: says('{"code":"8205","message":"","data":{}}'.encode("utf-16")),
        REFRESH_TOKEN: says(b'{"code":"2000","message":"","data":{},"code":"8206"}'),
        LOGOUT: says(b'\xef\xbb\xbf{"code":"8205","message":"","data":{}}'),
    }
    browser = Person("ada")
    status, shown = check_server(
        place, at_any_server(browser), **settings(SERVER_URL=wrong_server.url)
    )
    browser.close()
    assert status == 1
    at = f"at {wrong_server.url}/sso/oauth2"
    for text in (
        (
            f"error    3. getUserInfo: The response of getUserInfo {at}/getUserInfo (HTTP 200) is "
            "not UTF-8"
        ),
        (
            f"error    4. refreshToken: The response of refreshToken {at}/refreshToken (HTTP 200) "
            "contains a name twice"
        ),
        "ok       6. logout: returns 8205 as required",
        ("error    2. getToken: The access_token in the server's response is not printable ASCII"),
    ):
        assert text in findings(shown)


class StrictServer(ScriptedServer):
    """Uses codes up when it refuses them, ignores PKCE, and gives each token another user."""

    def __init__(self) -> None:
        super().__init__()
        self.codes = 0
        self.used_codes: set[str] = set()
        self.user_info_calls = 0
        self.answers |= {
            AUTHORIZE: self.authorize,
            GET_TOKEN: self.get_token,
            GET_USER_INFO: self.get_user_info,
            LOGOUT: fails("8500"),
        }

    def authorize(self, handler: Handler) -> None:
        query = parse_qs(urlsplit(handler.path).query)
        self.codes += 1
        head, _, fragment = query["redirect_uri"][0].partition("#")
        says(b"", 303, {"Location": f"{head}?code=canary-code-{self.codes}#{fragment}"})(handler)

    def get_token(self, handler: Handler) -> None:
        body = self.seen[-1].json
        code = body.get("authorization_code", "")
        known = code.startswith("canary-code-") and code not in self.used_codes
        self.used_codes.add(code)
        if not known:
            answer = fails("8202")
        elif body["client_secret"] != CANARY:
            answer = fails("8204")
        elif body["redirect_uri"] != "https://app.example.com/#/login":
            answer = fails("8207")
        elif "code_verifier" in body:
            answer = fails("8500")
        else:
            answer = says(TOKEN)
        answer(handler)

    def get_user_info(self, handler: Handler) -> None:
        self.user_info_calls += 1
        data = {"uid": f"u-{self.user_info_calls}", "username": "ada", "role": "User"}
        says({"code": "2000", "message": "", "data": data})(handler)


@pytest.mark.parametrize("body", [b'garbage "2000"', b'["2000"]', b'{"code": "2000"'])
def test_on_responses_that_only_look_like_success(
    place: Place, server: ScriptedServer, body: bytes
) -> None:
    server.answers |= {GET_TOKEN: says(body), GET_USER_INFO: says(body)}
    status, shown = check_server(place, lambda _: "", **settings(SERVER_URL=server.url))
    assert status == 1
    assert "error    2. getToken: The response of getToken at " in shown


@pytest.mark.slow
def test_on_a_server_that_uses_codes_up(place: Place) -> None:
    server, browser = StrictServer(), Person("ada")
    server.answers[VALIDITY] = says(DONE | {"data": {"validation_list": [True, True]}})
    environment = settings(
        SERVER_URL=server.url,
        REDIRECT_URI="https://app.example.com/#/login",
        **validity(server.url),
    )
    try:
        status, shown = check_server(place, at_any_server(browser), **environment)
    finally:
        browser.close()
        server.stop()
    found = findings(shown)
    assert status == 1
    assert [line for line in found if is_wrong(line) and " if " not in line][-10:] == [
        *["error    5. user validity: validation_list does not have one boolean for each user"] * 2,
        ("error    5. user validity: does not return one boolean for each user, in their order"),
        "error    4. refreshToken: the new access token belongs to another user",
        "error    6. logout: The server returned 8500: the server reported an internal error",
        "error    1. authorize: returns a code for a cancelled sign-in",
        "warning  3. getUserInfo: still returns a disabled person",
        "error    5. user validity: returns no envelope for the access token of a disabled person",
        "error    4. refreshToken: still refreshes the tokens of a disabled person",
        "error    1. authorize: issues a code for a disabled person",
    ]
    for text in (
        "ok       2. getToken: refuses a used code with 8202",
        "note     1. authorize: accepts a redirect_uri that varies, but getToken does not (8207)",
        (
            "note     2. getToken: refuses a wrong code_verifier, and then the right one: the "
            "refusal used the code up, or PKCE is unknown. Try DEVKIT_SSO_PKCE with care"
        ),
        "ok       2. getToken: refuses a wrong client_secret with 8204",
        (
            "note     2. getToken: refuses a wrong grant_type with 8202, not 8203: the code may "
            "be used up"
        ),
        (
            "DEVKIT_SSO_BINDING=confirm fits, because the server neither returns state nor "
            "accepts a redirect_uri that varies (the current value is state)."
        ),
    ):
        assert text in found
    (exchanged, *_) = [seen.json for seen in server.seen if b"canary-code-" in seen.body]
    assert exchanged["redirect_uri"] == "https://app.example.com/#/login"


PASTED = {
    "https://app.example.com/#/other?code=canary-code": "the address is not the redirect_uri with",
    f"{REDIRECT_URI}?code=canary-code&code=canary-other": "redirects back with 2 codes",
    f"{REDIRECT_URI}?error=access_denied": "redirects back with an error (access_denied)",
    f"{REDIRECT_URI}?error=%1b[31m": "redirects back with an error",
}


@pytest.mark.slow
@pytest.mark.parametrize("address", PASTED)
def test_on_an_address_that_is_not_the_redirect_uri(
    place: Place, refusing: ScriptedServer, address: str
) -> None:
    refusing.answers[AUTHORIZE] = says(b"", 200)
    status, shown = check_server(place, lambda _: address, **settings(SERVER_URL=refusing.url))
    assert status == 1
    assert any(
        line.startswith(f"error    1. authorize: {PASTED[address]}") for line in findings(shown)
    )
    assert "\x1b" not in shown


def test_at_a_terminal_shows_no_code(
    place: Place, at_terminal: Opener, wrong_server: WrongServer
) -> None:
    place.file.parent.mkdir()
    values = {"client_id": CLIENT_ID, "client_secret": CANARY, "server_url": wrong_server.url}
    values["redirect_uri"] = REDIRECT_URI
    place.file.write_text("".join(f'{name} = "{value}"\n' for name, value in values.items()))
    place.file.chmod(0o600)
    terminal = at_terminal("check-server")
    for number in range(7):
        terminal.expect("redirected to")
        terminal.type(f"{REDIRECT_URI}?code=canary-code\n" if number == 0 else "\n")
    terminal.expect("DEVKIT_SSO_BINDING=")
    assert terminal.close() == 1
    assert "canary-code" not in terminal.shown
    assert CANARY not in terminal.shown


def test_without_settings(place: Place) -> None:
    done = place.run("check-server")
    assert done.returncode == 1
    assert "Missing: DEVKIT_SSO_CLIENT_ID, DEVKIT_SSO_CLIENT_SECRET, DEVKIT_SSO_SERVER_URL, " in (
        done.stderr
    )
    done = place.run("check-server", **settings(SERVER_URL="http://auth.example.com"))
    assert done.returncode == 1
    assert "DEVKIT_SSO_SERVER_URL is plain http" in done.stderr
    port = free_port()
    done = place.run("check-server", **settings(SERVER_URL=f"http://127.0.0.1:{port}"))
    assert done.returncode == 1
    assert "error    2. getToken: Cannot connect to the server" in done.stdout
    assert "could not be loaded" not in done.stderr, "it needs no application"
    assert "Provisional" in place.run("check-server", "--help").stdout
