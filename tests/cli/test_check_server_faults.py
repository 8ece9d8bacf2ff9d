"""``flask devkit-sso check-server --as``: each fault of a server is found, and none is invented."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from .. import processes
from .faulty_server import PASSWORD, SIGN_IN, TEXT, URI, FaultyServer
from .place import CANARY, Place, settings, validity
from .server_check import check_server

pytestmark = pytest.mark.slow

FAULTS = {
    "code used twice": [("error", "getToken", "code_used_twice")],
    "sign-in after logout": [("error", "logout", "sign_in_ends")],
    "access token after logout": [("error", "logout", "access_token_ends")],
    "refresh token after logout": [("warning", "logout", "refresh_token_ends")],
    "same access token": [("error", "refreshToken", "new_access_token")],
    "refresh token works once": [("error", "refreshToken", "refresh_token")],
    "text as expires_in of getToken": [("error", "getToken", "expires_in")],
    "large expires_in of getToken": [("error", "getToken", "expires_in")],
    "text as expires_in of refreshToken": [("error", "refreshToken", "expires_in")],
    "large expires_in of refreshToken": [("error", "refreshToken", "expires_in")],
    "made-up person is valid": [
        ("error", "user validity", "made_up_person"),
        ("error", "user validity", "several_people"),
    ],
    "person is not valid": [
        ("error", "user validity", "several_people"),
        ("error", "user validity", "valid_person"),
    ],
    "other order": [("error", "user validity", "several_people")],
    "one boolean for all": [("error", "user validity", "several_people")],
    "code after cancelling": [("error", "authorize", "cancelled_sign_in")],
    "page after cancelling": [("warning", "authorize", "cancelled_sign_in")],
    "other error after cancelling": [("warning", "authorize", "cancelled_sign_in")],
    "error without state": [("error", "authorize", "cancelled_sign_in")],
    "changed state": [("error", "authorize", "state")],
    "unknown role": [("error", "getUserInfo", "role")],
    "wrong client_secret": [("error", "getToken", "wrong_parameters")],
    "wrong redirect_uri": [("error", "getToken", "wrong_parameters")],
    "no uid": [("error", "getUserInfo", "user")],
    "8500 of getUserInfo": [("error", "getUserInfo", "user")],
    "8500 of getToken": [("error", "getToken", "exchange")],
    "HTTP 500 of authorize": [
        ("error", "authorize", "login_page"),
        ("error", "authorize", "sign_in"),
        ("warning", "authorize", "longer_redirect_uri"),
        ("warning", "authorize", "unknown_client"),
        ("warning", "authorize", "unregistered_redirect_uri"),
    ],
    "HTTP 500 for unknown clients": [("warning", "authorize", "unknown_client")],
    "any client": [("error", "authorize", "unknown_client")],
    "any redirect_uri": [
        ("error", "authorize", "unregistered_redirect_uri"),
        ("warning", "authorize", "longer_redirect_uri"),
    ],
    "redirects anywhere": [("error", "authorize", "unregistered_redirect_uri")],
}
DISABLED = {
    "": [],
    "code for a disabled person": [("error", "authorize", "disabled_person")],
    "user info of a disabled person": [("warning", "getUserInfo", "disabled_person")],
    "refresh of a disabled person": [("error", "refreshToken", "disabled_person")],
    "disabled person is valid": [
        ("error", "user validity", "disabled_person"),
        ("error", "user validity", "made_up_person"),
        ("error", "user validity", "several_people"),
    ],
}
STOPPED = {
    "password by GET": "has a sign-in form that sends the password by GET",
    "form of another origin": "leads to another host, scheme or port than authorize's, where --as "
    "sends nothing",
    "button of another origin": "leads to another host, scheme or port than authorize's, where "
    "--as sends nothing",
    "page of another origin": "leads to another host, scheme or port than authorize's, where --as "
    "sends nothing",
    "307": "redirects with HTTP 307, which makes a browser send the sign-in form to the "
    "redirect_uri",
    "201 fields": "shows a page with more than 200 fields",
    "more than a MiB": "The server's response is larger than 1 MiB",
    "loop": "does not redirect back within 10 responses",
    "unclosed tags": "shows a page so malformed that it takes too long to read",
    "script": "shows a page (HTTP 200) without a form that --as could fill in",
}
ARGUMENTS = ["--as=ada", "--field", "password=-"]


@pytest.fixture(scope="module")
def faulty() -> Iterator[FaultyServer]:
    running = FaultyServer()
    yield running
    running.stop()


def environment(url: str) -> dict[str, str]:
    return settings(SERVER_URL=url, REDIRECT_URI=URI, **validity(url))


def run_json(
    place: Place, url: str, *arguments: str, stdin: str = f"{PASSWORD}\n", **more: str
) -> tuple[int, dict[str, Any]]:
    given = environment(url) | more
    done = place.run("check-server", "--json", *arguments, stdin=stdin, **given)
    for secret in (TEXT, PASSWORD, "canary-code", "canary-access", "canary-refresh"):
        assert secret not in done.stdout + done.stderr
    assert "Section" not in done.stderr, "its findings are in the report"
    return done.returncode, json.loads(done.stdout)


def of(report: dict[str, Any], check: str) -> list[dict[str, Any]]:
    """Return the findings of a check."""
    return [item for item in report["findings"] if item["check"] == check]


def wrong(report: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return which errors and warnings a report contains."""
    return sorted(
        (found["level"], found["interface"], found["check"])
        for found in report["findings"]
        if found["level"] in ("error", "warning")
    )


def test_nothing_is_wrong_with_a_server_that_is_right(place: Place, faulty: FaultyServer) -> None:
    faulty.reset("")
    status, report = run_json(place, faulty.url, *ARGUMENTS)
    assert wrong(report) == []
    assert (status, report["passed"], report["binding"]) == (0, True, "state")
    skipped = [found for found in report["findings"] if found["level"] == "skipped"]
    # Nothing that was not tested looks like success.
    assert {found["check"] for found in skipped} == {"disabled_person"}
    assert faulty.signed_in == set()


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found(place: Place, faulty: FaultyServer, fault: str) -> None:
    faulty.reset(fault)
    status, report = run_json(place, faulty.url, *ARGUMENTS)
    assert wrong(report) == FAULTS[fault]
    is_error = FAULTS[fault][0][0] == "error"
    assert (status, report["passed"]) == (int(is_error), not is_error)


@pytest.mark.parametrize("fault", DISABLED)
def test_a_disabled_person(place: Place, faulty: FaultyServer, fault: str) -> None:
    """Only somebody at the server can disable an account, so this part is attended."""
    faulty.reset(fault)
    browser = processes.Person("ada")

    def person(text: str) -> str:
        if text.startswith("Now "):
            faulty.disabled = "disable" in text
            return "done"
        url = text.splitlines()[-1].strip()
        answer = browser.get(url, follow=False)
        if "varies" in text:
            return ""
        if answer.status_code == 200 and "do not sign in" in text:
            return "page"
        if answer.status_code == 200:
            query = {k: v[0] for k, v in parse_qs(urlsplit(url).query).items()}
            faulty.requests["by-hand"] = query
            form = {"request": "by-hand", "account": "ada", "password": PASSWORD}
            if "cancel" in text:
                form["cancel"] = "1"
            answer = browser.browser.post(
                f"{faulty.url}{SIGN_IN}", data=form, allow_redirects=False, timeout=60
            )
            if "session" in answer.cookies:
                # requests does not send a Secure cookie over http.
                browser.browser.headers["Cookie"] = f"session={answer.cookies['session']}"
        return answer.headers["Location"]

    status, shown = check_server(place, person, "--json", **environment(faulty.url))
    browser.close()
    report = json.loads(shown[shown.index("{\n") :])
    assert wrong(report) == DISABLED[fault]
    skipped = {found["check"] for found in report["findings"] if found["level"] == "skipped"}
    assert skipped == {"varying_redirect_uri"}
    assert status == bool([found for found in DISABLED[fault] if found[0] == "error"])


@pytest.mark.parametrize("fault", STOPPED)
def test_a_sign_in_page_that_is_not_used(place: Place, faulty: FaultyServer, fault: str) -> None:
    faulty.reset(fault)
    status, report = run_json(place, faulty.url, *ARGUMENTS)
    assert status == 1
    (sign_in,) = [found for found in report["findings"] if found["check"] == "sign_in"]
    assert (sign_in["level"], sign_in["text"]) == ("error", STOPPED[fault])
    posts = [seen for seen in faulty.seen if seen.path == SIGN_IN]
    assert len(posts) == (fault == "307"), "the password is sent nowhere"
    assert faulty.paths.count("/loop") in (0, 9)
    skipped = {found["check"] for found in report["findings"] if found["level"] == "skipped"}
    assert {"code_used_twice", "sign_in_ends", "cancelled_sign_in"} <= skipped


@pytest.mark.parametrize("arguments", [["--as=ada"], ["--as=ada", "--field=password=wrong"]])
def test_a_person_who_is_refused_is_tried_once(
    place: Place, faulty: FaultyServer, arguments: list[str]
) -> None:
    faulty.reset("")
    status, report = run_json(place, faulty.url, *arguments)
    assert status == 1
    (sign_in,) = [found for found in report["findings"] if found["check"] == "sign_in"]
    has_password = len(arguments) == 2
    text = "shows its sign-in form again (HTTP 200), so it refuses this person"
    assert sign_in["text"] == (
        text if has_password else "asks for a password in a field that no --field names"
    )
    assert [seen.path for seen in faulty.seen].count(SIGN_IN) == has_password


@pytest.mark.parametrize(("fault", "fix"), [("403", "Check the name"), ("429", "Wait until")])
def test_a_person_who_is_refused_by_another_page(
    place: Place, faulty: FaultyServer, fault: str, fix: str
) -> None:
    faulty.reset(fault)
    status, report = run_json(place, faulty.url, *ARGUMENTS)
    assert (status, wrong(report)) == (1, [("error", "authorize", "sign_in")])
    (sign_in,) = of(report, "sign_in")
    text = f"shows a page (HTTP {fault}) after the sign-in form, so it refuses this person"
    assert sign_in["text"] == text
    assert sign_in["fix"].startswith(fix)
    assert [seen.path for seen in faulty.seen].count(SIGN_IN) == 1


def test_a_refusal_with_a_success_status_is_recognized(place: Place, faulty: FaultyServer) -> None:
    """Without ``--as``, only a person can see it."""
    faulty.reset("refusals with HTTP 200")
    _, report = run_json(place, faulty.url, *ARGUMENTS)
    assert wrong(report) == []
    for check in ("unknown_client", "unregistered_redirect_uri", "longer_redirect_uri"):
        assert [item["level"] for item in of(report, check)] == ["ok"]
    done = place.run("check-server", stdin="", **environment(faulty.url))
    assert done.stdout.count("only a person can see if it is a refusal") == 3


def test_nothing_is_said_about_what_needs_tokens(place: Place, faulty: FaultyServer) -> None:
    faulty.reset("8500 of getToken")
    _, report = run_json(place, faulty.url, *ARGUMENTS)
    for check in ("pkce", "wrong_parameters", "logout", "varying_redirect_uri", "revocation"):
        assert [item["level"] for item in of(report, check)] == ["skipped"]
    assert [item["level"] for item in of(report, "cancelled_sign_in")] == ["ok"]
    assert report["binding"] == "state"


@pytest.mark.parametrize(
    ("fault", "level"), [("HTTP 404 with a code_verifier", "skipped"), ("stops for PKCE", "error")]
)
def test_a_failure_is_no_verdict_on_pkce(
    place: Place, faulty: FaultyServer, fault: str, level: str
) -> None:
    faulty.reset(fault)
    _, report = run_json(place, faulty.url, *ARGUMENTS)
    (pkce,) = of(report, "pkce")
    assert pkce["level"] == level
    assert "PKCE must be off" not in pkce["text"]


def test_errors_about_responses_say_what_to_return(place: Place, faulty: FaultyServer) -> None:
    faulty.reset("no uid")
    _, report = run_json(place, faulty.url, *ARGUMENTS)
    (user,) = of(report, "user")
    assert user["fix"] == (
        'Return {"code": "2000", "message": "…", "data": '
        '{"uid": "…", "username": "…", "role": "User"}}'
    )
    # Without a user, nothing shows whether the tokens of a used code still work.
    assert [item["level"] for item in of(report, "revocation")] == ["skipped"]


def test_what_a_report_on_a_server_that_does_not_respond_says(place: Place) -> None:
    """Nobody is asked to sign in there."""
    url = f"http://127.0.0.1:{processes.free_port()}"
    done = place.run("check-server", stdin="", **environment(url))
    assert done.returncode == 1
    assert "skipped  1. authorize: sign_in: not tested, because authorize or" in done.stdout
    assert "Open this URL" not in done.stdout
    assert "Fix: Check that the server is running." in done.stdout


def test_plain_http_beyond_loopback_is_not_used(place: Place, faulty: FaultyServer) -> None:
    """Not even if DEVKIT_SSO_INSECURE_HTTP allows it."""
    faulty.reset("")
    # Linux connects to this machine, but it is not a loopback address.
    url = faulty.url.replace("127.0.0.1", "0.0.0.0")
    insecure = {"FLASK_DEVKIT_SSO_INSECURE_HTTP": "true"}
    status, report = run_json(place, url, *ARGUMENTS, **insecure)
    assert (status, wrong(report)) == (1, [("error", "authorize", "sign_in")])
    (sign_in,) = [found for found in report["findings"] if found["check"] == "sign_in"]
    assert sign_in["text"].startswith("uses http, so others could read")
    assert SIGN_IN not in faulty.paths


@pytest.mark.parametrize("fields", [["=x"], ["secret-canary"], ["a=1", "a=2"], ["a=-"]])
def test_options_that_are_wrong(place: Place, faulty: FaultyServer, fields: list[str]) -> None:
    given = [argument for field in fields for argument in ("--field", field)]
    for arguments in (given, ["--as=ada", *given]):
        done = place.run("check-server", *arguments, **environment(faulty.url))
        assert done.returncode == 2
        assert "secret-canary" not in done.stderr


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_nothing_is_wrong_with_the_sandbox(place: Place, tmp_path: Path, scheme: str) -> None:
    arguments = ["--tls"] if scheme == "https" else []
    with processes.sandbox(f"--client-secret={CANARY}", *arguments) as exported:
        url = exported["SERVER_URL"]
        assert url.startswith(f"{scheme}://")
        more = {}
        if scheme == "https":
            more["FLASK_DEVKIT_SSO_CA_BUNDLE"] = exported["CA_BUNDLE"]
        for name in ("ada", "somebody"):
            status, report = run_json(place, url, f"--as={name}", **more)
            assert (status, wrong(report), report["binding"]) == (0, [], "state")
        status, report = run_json(place, url, "--as=eve", **more)
        assert (status, wrong(report)) == (1, [("error", "authorize", "sign_in")])


@pytest.mark.checkout
def test_the_documentation_names_every_check(place: Place, faulty: FaultyServer) -> None:
    faulty.reset("")
    _, report = run_json(place, faulty.url, *ARGUMENTS)
    text = (processes.ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    table = text[text.index("| interface | check |") :].partition("\n\n")[0]
    named = set(re.findall(r"`(\w+)`", "".join(row.split("|")[2] for row in table.splitlines())))
    # This server returns no iss.
    assert named == {found["check"] for found in report["findings"]} | {"iss"}
