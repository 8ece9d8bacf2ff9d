"""What ``flask devkit-sso doctor`` says about authorize."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from .. import processes
from ..conftest import CLIENT_ID
from ..scripted import (
    AUTHORIZE,
    GET_TOKEN,
    GET_USER_INFO,
    LOGOUT,
    REFRESH_TOKEN,
    Answer,
    Handler,
    ScriptedServer,
    closes,
    fails,
    redirect_uri_of,
    redirects,
    registers,
    says,
)
from .place import APP, CANARY, REDIRECT_URI, Place, settings

pytestmark = pytest.mark.slow

NOBODYS = "https://made-up-by-doctor.invalid/callback"


def only_ours(handler: Handler) -> bool:
    return redirect_uri_of(handler) != NOBODYS


def by_uri(ours: Answer, nobodys: Answer) -> Answer:
    """Respond to the configured redirect URI, and differently to any other."""
    return lambda handler: (ours if only_ours(handler) else nobodys)(handler)


SIGN_IN = says(b"<FORM action='/x' method = 'POST'>")
REFUSAL = says(b"<p>no</p>", 400)
PAGE = says(b"<p>a script does everything</p>")


def back(parameters: str) -> Answer:
    return lambda handler: redirects(redirect_uri_of(handler) + parameters)(handler)


OURS = "refuses this client_id or redirect_uri"
REFUSED = {
    "not registered": (registers(lambda uri: False), f"{OURS} (HTTP 400)"),
    "8207": (
        fails("8207"),
        (
            f"{OURS} (8207: the redirect_uri was refused: DEVKIT_SSO_REDIRECT_URI must be the "
            "value registered at the server, byte for byte)"
        ),
    ),
    "8201": (
        fails("8201"),
        f"{OURS} (8201: the server does not know the client_id: check DEVKIT_SSO_CLIENT_ID)",
    ),
    "8500": (fails("8500"), "8500: the server reported an internal error"),
    "wrong path": (says(b"", 404), "is not at its URL (HTTP 404)"),
    "broken": (says(b"", 500), "fails (HTTP 500)"),
    "closes": (
        closes,
        "The connection to the server broke (RemoteDisconnected): does it use http on this port?",
    ),
    "error": (
        back("?error=invalid_request&state=made-up-by-doctor"),
        "accepts the redirect_uri, but refuses the request (invalid_request)",
    ),
    "another error": (
        back(f"?error={CANARY}"),
        "accepts the redirect_uri, but refuses the request (an unknown error)",
    ),
    "no sign-in": (back("?code=c-1"), "redirects back although nobody has signed in"),
    "open redirect": (
        by_uri(SIGN_IN, back("?error=invalid_request")),
        "redirects to a redirect_uri that nobody has registered",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_authorize_does_not_let_people_sign_in(
    place: Place, refusing: ScriptedServer, fault: str
) -> None:
    refusing.answers[AUTHORIZE], expected = REFUSED[fault]
    configured = settings(SERVER_URL=refusing.url)
    assert place.findings(**configured) == [f"error    authorize: {expected}"]


BOTH = "because it responds in the same way to one that nobody has registered"
UNKNOWN = {
    "signs everybody in": (SIGN_IN, f"{BOTH} (sign-in page, HTTP 200)"),
    "another host for all": (
        redirects("https://login.example.com/"),
        f"{BOTH} (HTTP 302 to another page)",
    ),
    "a broken redirect": (redirects("http://[x/"), f"{BOTH} (HTTP 302 to another page)"),
    "a loop": (redirects(AUTHORIZE + "?redirect_uri="), f"{BOTH} (more than 5 redirects)"),
    "an error page that only looks like a difference": (
        by_uri(PAGE, SIGN_IN),
        f"{BOTH} (sign-in page, HTTP 200)",
    ),
    "a cookie is missing": (redirects("/none"), f"{BOTH} (HTTP 400)"),
    "HTTP 401 for all": (says(b"", 401), f"{BOTH} (HTTP 401)"),
    "busy": (says(b"", 429), "because it gave this host no usable response: HTTP 429"),
    "busy then": (
        by_uri(SIGN_IN, says(b"", 429)),
        "because it gave no usable response to another one: HTTP 429",
    ),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_doctor_does_not_claim_that_authorize_accepts_the_redirect_uri(
    place: Place, refusing: ScriptedServer, case: str
) -> None:
    refusing.answers[AUTHORIZE], why = UNKNOWN[case]
    refusing.answers["/none"] = REFUSAL
    levels = ("error ", "warning ", "note     auth")
    assert place.findings(*levels, **settings(SERVER_URL=refusing.url)) == [
        (
            f"note     authorize: cannot tell whether it accepts the redirect_uri, {why}. Sign in "
            "to find out, or run `flask devkit-sso check-server --as NAME`"
        )
    ]


ACCEPTED = {
    "a page with a script": (by_uri(PAGE, REFUSAL), "HTTP 200", "HTTP 400"),
    "an error page with HTTP 200": (by_uri(SIGN_IN, PAGE), "sign-in page, HTTP 200", "HTTP 200"),
    "pages of their own": (
        by_uri(redirects("/in"), redirects("/error?uri=made-up")),
        "sign-in page, HTTP 200",
        "HTTP 200",
    ),
    "another host": (
        by_uri(redirects("https://login.example.com/"), REFUSAL),
        "HTTP 302 to another page",
        "HTTP 400",
    ),
    "HTTP authentication": (
        by_uri(says(b"", 401, {"WWW-Authenticate": "Negotiate"}), REFUSAL),
        "HTTP 401",
        "HTTP 400",
    ),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_authorize_accepts_the_redirect_uri(
    place: Place, refusing: ScriptedServer, case: str
) -> None:
    refusing.answers[AUTHORIZE], ours, nobodys = ACCEPTED[case]
    refusing.answers |= {"/in": SIGN_IN, "/error": PAGE}
    levels = ("error ", "warning ", "ok       auth")
    assert place.findings(*levels, **settings(SERVER_URL=refusing.url)) == [
        (
            f"ok       authorize: accepts the redirect_uri ({ours}), but not one that nobody has "
            f"registered ({nobodys})"
        )
    ]


def test_nobody_is_signed_in_and_no_code_reaches_the_application(
    place: Place, refusing: ScriptedServer
) -> None:
    application = ScriptedServer()
    uri = f"{application.url}/#/login"
    refusing.answers[AUTHORIZE] = back("?code=c-1&state=made-up-by-doctor")
    place.app(APP)
    try:
        configured = settings(SERVER_URL=refusing.url, REDIRECT_URI=uri)
        assert len(place.findings(**configured)) == 1
        # An application at the origin of the server.
        shared = settings(SERVER_URL=refusing.url, REDIRECT_URI=f"{refusing.url}/#/login")
        refusing.answers[AUTHORIZE] = redirects("/in")
        assert place.findings(**shared) == []
        # This is the check of the redirect URI.
        assert [(seen.method, seen.path) for seen in application.seen] == [("GET", "/")]
    finally:
        application.stop()
    assert {seen.path.partition("?")[0] for seen in refusing.seen} == {
        "/",
        AUTHORIZE,
        GET_TOKEN,
        GET_USER_INFO,
        REFRESH_TOKEN,
        LOGOUT,
    }
    for seen in refusing.seen:
        assert (seen.method == "GET") is (seen.path == "/" or seen.path.startswith(AUTHORIZE))
        assert "cookie" not in seen.headers
        assert b"c-1" not in seen.body


def test_authorize_is_asked_what_a_login_asks(place: Place, refusing: ScriptedServer) -> None:
    nonce = f"{REDIRECT_URI}?s=made-up-by-doctor"
    refusing.answers[AUTHORIZE] = registers(lambda uri: uri == REDIRECT_URI)
    configured = settings(SERVER_URL=refusing.url, BINDING="redirect_uri", PKCE="true")
    assert place.findings(**configured) == [
        (
            "error    authorize: refuses the redirect_uri with the nonce of DEVKIT_SSO_BINDING="
            "redirect_uri (HTTP 400), but not without it (sign-in page, HTTP 200)"
        )
    ]
    queries = [parse_qs(urlsplit(seen.path).query) for seen in refusing.seen if "?" in seen.path]
    assert [query["redirect_uri"] for query in queries] == [[nonce], [REDIRECT_URI]]
    assert all(query["code_challenge_method"] == ["S256"] for query in queries)
    assert all("state" not in query for query in queries)
    refusing.answers[AUTHORIZE] = registers(lambda uri: uri == nonce)
    assert place.findings(**configured) == []


def test_only_browsers_reach_authorize(place: Place, refusing: ScriptedServer) -> None:
    elsewhere = settings(SERVER_URL=refusing.url, AUTHORIZE_URL="http://127.0.0.1:1/authorize")
    notes = place.findings("error ", "warning ", "note     auth", **elsewhere)
    assert len(notes) == 1
    assert "cannot tell whether it accepts the redirect_uri, because it gave this" in notes[0]


def test_the_sandbox_with_another_redirect_uri(place: Place) -> None:
    with processes.sandbox("--client-secret", CANARY, "--redirect-uri", REDIRECT_URI) as exported:
        url = exported["SERVER_URL"]
        assert place.findings(**settings(SERVER_URL=url)) == []
        other = settings(SERVER_URL=url, REDIRECT_URI="http://localhost:81/sso/callback")
        done = place.run("doctor", **other)
    assert done.returncode == 1
    assert (
        "error    authorize: refuses this client_id or redirect_uri (HTTP 400)\n"
        f"         Fix: Have the client id {CLIENT_ID} and the redirect_uri "
        "http://localhost:81/sso/callback registered at the server, byte for byte. "
    ) in done.stdout
