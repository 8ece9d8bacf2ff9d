"""The commands that look after a running application and its server, by the real ``flask``."""

from __future__ import annotations

import json
import re
import shlex
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme

from flask_devkit_sso.testing import login_as

from .. import forked, processes
from ..conftest import CLIENT_ID, REDIRECT_URI, AppMaker
from ..documents import blocks
from ..processes import Person, free_port
from ..redis_server import RedisServer
from ..scripted import (
    ADA,
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
from .test_register import CANARY, KEY, Opener, Place, at_terminal, place

__all__ = ["at_terminal", "place"]

AUTHORIZE = "/sso/oauth2/authorize"

APP = """
from flask import Flask
from flask_devkit_sso import DevKitSSO, session_ended
app = Flask(__name__)
app.config.from_prefixed_env()
DevKitSSO(app)

@app.get("/")
def home():
    return "home"

@session_ended.connect_via(app)
def tell(sender, uid, why):
    print("signal", uid, why)
"""


def settings(**values: str) -> dict[str, str]:
    """Return the environment of an application that is set up, values given by their key."""
    given = {
        "CLIENT_ID": CLIENT_ID,
        "CLIENT_SECRET": CANARY,
        "REDIRECT_URI": REDIRECT_URI,
    } | values
    return KEY | {f"FLASK_DEVKIT_SSO_{key}": value for key, value in given.items()}


def findings(text: str) -> list[str]:
    """Return what was found, without the mends."""
    return [
        line
        for line in text.splitlines()
        if re.match(r"(ok|note|wrong|warning) |DEVKIT_SSO_BINDING|Which", line)
    ]


# sessions


def test_sessions_of_an_application_that_serves(
    make_app: AppMaker, place: Place, any_store: str, server: ScriptedServer
) -> None:
    place.app(APP)
    app = make_app(store_url=any_store, client_secret=CANARY)
    environment = settings(STORE_URL=any_store, SERVER_URL=server.url)
    assert place.run("sessions", "list", **environment).stdout == "No sessions.\n"

    browsers = [app.test_client() for _ in range(4)]
    people = [("ada", "Admin"), ("bob", "User"), ("ada", "Admin"), ("eve\x1b[31m", None)]
    cookies = [
        login_as(browser, name, role, uid=f"uid-of-{name[:3]}")  # type: ignore[arg-type]
        for browser, (name, role) in zip(browsers, people, strict=True)
    ]
    done = place.run("sessions", "list", **environment)
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    assert re.split(r"  +", head) == ["UID", "NAME", "ROLE", "SIGNED IN", "LAST USE"]
    found = [re.split(r"  +", row) for row in rows]
    assert [row[:3] for row in found] == [
        ["uid-of-ada", "ada", "Admin"],
        ["uid-of-bob", "bob", "User"],
        ["uid-of-ada", "ada", "Admin"],
        ["uid-of-eve", "eve\ufffd[31m", "-"],
    ]
    for row in found:
        for time in row[3:]:
            age = datetime.now(UTC) - datetime.fromisoformat(time)
            assert timedelta(seconds=-1) < age < timedelta(minutes=2)
    assert all(cookie.value not in done.stdout for cookie in cookies)

    plain = place.run("sessions", "list", **environment, PYTHONIOENCODING="ascii")
    assert plain.stdout == done.stdout.replace("\ufffd", "?")

    one = place.run("sessions", "list", "uid-of-bob", **environment)
    assert [re.split(r"  +", row) for row in one.stdout.splitlines()[1:]] == [found[1]]

    ended = place.run("sessions", "end", "uid-of-ada", **environment)
    assert (ended.returncode, ended.stdout) == (0, "signal uid-of-ada ended\nEnded: 2 sessions.\n")
    inside = [browser.get("/private").status_code == 200 for browser in browsers]
    assert inside == [False, True, False, True]
    assert place.run("sessions", "end", "ada", **environment).stdout == (
        "Ended: 0 sessions (is it a UID, as `flask devkit-sso sessions list` shows them?).\n"
    )
    assert server.seen == [], "the server is not asked"


def test_sessions_in_a_store_that_cannot_be_used(place: Place, redis_server: RedisServer) -> None:
    redis_server.stop()
    environment = settings(STORE_URL=redis_server.url, SERVER_URL="http://127.0.0.1:9")
    for command in (["list"], ["list", "u-1"], ["end", "u-1"]):
        done = place.run("sessions", *command, **environment)
        assert done.returncode == 1
        assert "Error: The session store in Redis can't be reached" in done.stderr
        assert redis_server.password not in done.stdout + done.stderr
    file = place.folder / "damaged.db"
    file.write_bytes(b"no database" * 1000)
    done = place.run(
        "sessions", "list", **environment | {"FLASK_DEVKIT_SSO_STORE_URL": f"sqlite:///{file}"}
    )
    assert done.returncode == 1
    assert f"Error: The session store {file} cannot be used" in done.stderr


def test_sessions_of_an_application_that_serves_nobody(place: Place) -> None:
    done = place.run("sessions", "list", **settings(STORE_URL="memory://"))
    assert done.returncode == 1
    assert "DEVKIT_SSO_STORE_URL is memory://: each process has sessions of its own" in done.stderr
    done = place.run("sessions", "list", FLASK_DEVKIT_SSO_STORE_URL="x")
    assert done.returncode == 1
    assert "DEVKIT_SSO_STORE_URL must be sqlite:///file" in done.stderr
    assert "SECRET_KEY is missing" in done.stderr
    place.app("1 / 0")
    done = place.run("sessions", "end", "u-1", **settings())
    assert done.returncode == 1
    assert "The application could not be loaded: ZeroDivisionError in" in done.stderr


# doctor


@pytest.mark.slow
def test_doctor_where_all_is_well(place: Place) -> None:
    place.app(APP)
    place.register("--redirect-uri", "https://app.example.com/#/login")
    with processes.sandbox(
        "--tls", "--client-secret", CANARY, "--redirect-uri", "https://app.example.com/#/login"
    ) as exported:
        done = place.run(
            "doctor",
            HTTPS_PROXY=f"http://user:{CANARY}@127.0.0.1:9",
            FLASK_DEVKIT_SSO_SERVER_URL=exported["SERVER_URL"],
            FLASK_DEVKIT_SSO_CA_BUNDLE=exported["CA_BUNDLE"],
            **KEY,
        )
    assert (done.returncode, done.stderr) == (0, "")
    port, ca_bundle = exported["SERVER_URL"].rpartition(":")[2], exported["CA_BUNDLE"]
    text = re.sub(r"TLSv1\.\d", "TLSv1.x", done.stdout)
    text = re.sub(r"good until \d{4}-\d\d-\d\d", "good until then", text)
    assert text.splitlines() == [
        (
            "ok       settings: nothing is wrong or missing; they come from app.config and "
            "credentials file"
        ),
        f"ok       credentials file: {place.file}, mode 0600",
        "ok       SECRET_KEY: set, and long enough",
        (
            "ok       redirect_uri: https://app.example.com/#/login leads to a page of the "
            "application, so to the landing page"
        ),
        f"ok       store: {place.folder}/instance/devkit_sso.db can be written and read",
        f"ok       mode of {place.folder}/instance/devkit_sso.db: 0600",
        f"ok       mode of {place.folder}/instance: 0700",
        "ok       proxies: HTTPS_PROXY: set, and ignored; the server is called directly",
        "ok       name 127.0.0.1: is 127.0.0.1",
        f"ok       connection to 127.0.0.1, port {port}: open",
        (
            f"ok       TLS of 127.0.0.1, port {port}: TLSv1.x, the certificate is good until then "
            f"(trusted are {ca_bundle})"
        ),
        "ok       getToken: answers as it should to what is made up (8202)",
        (
            "note     not asked: whether the client secret and the redirect URI are right, if the "
            "server looks at the code first: a login shows it, or flask devkit-sso check-server"
        ),
        "ok       clock: the server's is the same, give or take a minute",
        "ok       getUserInfo: answers as it should to what is made up (8205)",
        "ok       refreshToken: answers as it should to what is made up (8206)",
        "ok       logout: answers as it should to what is made up (8205)",
    ]


@pytest.fixture
def refusing(server: ScriptedServer) -> ScriptedServer:
    """A server that refuses what is made up, as it has to."""
    server.answers |= {
        GET_TOKEN: fails("8202"),
        GET_USER_INFO: fails("8205"),
        REFRESH_TOKEN: fails("8206"),
    }
    return server


def test_doctor_on_settings_that_are_wrong_or_missing(place: Place) -> None:
    done = place.run("doctor", FLASK_DEVKIT_SSO_TIMEOUT="0")
    assert done.returncode == 1
    for text in (
        "wrong    settings: DEVKIT_SSO_TIMEOUT must be above zero",
        "wrong    settings: DEVKIT_SSO_CLIENT_SECRET is missing\n         Mend: run `flask ",
        "wrong    settings: SECRET_KEY is missing: make one with",
        "warning  server: not looked at",
    ):
        assert text in done.stdout
    place.app("1 / 0")
    done = place.run("doctor")
    assert done.returncode == 1
    assert "wrong    application: could not be loaded: ZeroDivisionError in" in done.stdout


def test_doctor_on_a_machine_for_development(place: Place, refusing: ScriptedServer) -> None:
    environment = settings(SERVER_URL=refusing.url, STORE_URL="memory://") | {
        "FLASK_SECRET_KEY": "dev"
    }
    done = place.run("doctor", FLASK_DEBUG="1", **environment)
    assert done.returncode == 0, done.stdout
    assert "warning  SECRET_KEY: is weak, which only debug and testing put up with" in done.stdout
    assert "warning  store: in memory, for tests" in done.stdout
    assert f"ok       redirect_uri: {REDIRECT_URI} leads to the callback" in done.stdout
    done = place.run("doctor", **environment)
    assert done.returncode == 1
    assert "wrong    settings: SECRET_KEY is shorter than 16 bytes" in done.stdout


URIS = {
    "https://app.example.com/auth/callback": "wrong    redirect_uri: {} leads to no page of the",
    "https://app.example.com/portal/sso/callback": "warning  redirect_uri: {} leads to the "
    "callback only if the application is mounted at /portal",
    "https://localhost:5000/#/login": "warning  redirect_uri: {} is https on this machine",
    "https://app.example.com/app/#/login": "warning  redirect_uri: {} leads to no page of the",
    "https://app.example.com": "ok       redirect_uri: {} leads to a page of the application",
}


@pytest.mark.slow
@pytest.mark.parametrize("uri", URIS)
def test_doctor_on_a_redirect_uri(place: Place, refusing: ScriptedServer, uri: str) -> None:
    place.app(APP)
    done = place.run("doctor", **settings(SERVER_URL=refusing.url, REDIRECT_URI=uri))
    assert URIS[uri].format(uri) in done.stdout
    assert done.returncode == (1 if URIS[uri].startswith("wrong") else 0), done.stdout


def test_doctor_on_stores(
    place: Place, refusing: ScriptedServer, redis_server: RedisServer
) -> None:
    on_redis = settings(SERVER_URL=refusing.url, STORE_URL=redis_server.url)
    done = place.run("doctor", **on_redis)
    assert done.returncode == 0, done.stdout
    assert "ok       store: Redis can be written and read" in done.stdout
    assert [key for key in redis_server.all_keys() if ":removed:" not in key] == []
    redis_server.stop()
    done = place.run("doctor", **on_redis)
    assert done.returncode == 1
    assert "wrong    store: The session store in Redis can't be reached" in done.stdout
    assert redis_server.password not in done.stdout

    folder = place.folder / "stores"
    folder.mkdir()
    folder.chmod(0o770)
    file = folder / "open.db"
    on_file = settings(SERVER_URL=refusing.url, STORE_URL=f"sqlite:///{file}")
    for mode, told in (
        (0o666, "wrong    mode of {}: 0666: every user can change sessions"),
        (0o644, "warning  mode of {}: 0644: others can read who is signed in"),
    ):
        file.touch()
        file.chmod(mode)
        done = place.run("doctor", **on_file)
        assert told.format(file) in done.stdout
        assert f"warning  mode of {folder}: 0770: other users can change sessions" in done.stdout
        assert done.returncode == (1 if told.startswith("wrong") else 0)
    file.write_bytes(b"no database" * 1000)
    done = place.run("doctor", **on_file)
    assert f"wrong    store: The session store {file} cannot be used" in done.stdout


def test_doctor_on_a_folder_where_all_may_put_a_credentials_file(place: Place) -> None:
    place.register()
    place.file.parent.chmod(0o777)
    done = place.run("doctor", **settings(STORE_URL="redis://127.0.0.1:1"))
    assert done.returncode == 1
    told = (
        f"wrong    mode of {place.file.parent}: 0777: every user can put another credentials file"
    )
    assert told in done.stdout


@pytest.mark.parametrize("date", ["soon", "Mon, 01 Jan 2024 00:00:00 +9999999999999999"])
def test_doctor_on_dates_that_are_none(place: Place, server: ScriptedServer, date: str) -> None:
    server.answers[GET_TOKEN] = refuses_at(date)
    done = place.run("doctor", **settings(SERVER_URL=server.url))
    assert "ok       clock: the server does not tell its time" in done.stdout, done.stderr


def refuses_at(date: str) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        body = json.dumps({"code": "8204", "message": "no", "data": {}}).encode()
        handler.send_response_only(200)
        handler.send_header("Date", date)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def test_doctor_on_what_the_server_answers(place: Place, server: ScriptedServer) -> None:
    past = datetime.now(UTC) - timedelta(hours=1)
    server.answers |= {
        GET_TOKEN: refuses_at(past.strftime("%a, %d %b %Y %H:%M:%S GMT")),
        GET_USER_INFO: says(b"<html>" + CANARY.encode(), 404),
        LOGOUT: closes,
    }
    done = place.run("doctor", **settings(SERVER_URL=server.url))
    assert done.returncode == 1
    found = done.stdout.partition("TLS of 127.0.0.1")[2].splitlines()[1:]
    assert [re.sub(r"\d+(?= seconds)", "N", line) for line in found] == [
        "wrong    getToken: 8204, the client_secret was refused: check DEVKIT_SSO_CLIENT_SECRET",
        (
            "         Mend: run `flask devkit-sso register` with the secret that is registered at "
            "the server"
        ),
        "warning  clock: N seconds ahead of the server's",
        "         Mend: let both machines set their clocks by NTP",
        (
            f"wrong    getUserInfo: The answer of getUserInfo at {server.url}/sso/oauth2/"
            "getUserInfo (HTTP 404) is not an envelope: check the address, its path too"
        ),
        (
            f"         Mend: does {server.url}/sso/oauth2/getUserInfo lead to the authentication "
            "server? `flask devkit-sso show` tells where each setting comes from"
        ),
        "wrong    refreshToken: says yes to what is made up",
        "         Mend: this is no server to sign people in at",
        (
            "wrong    logout: The connection to the server broke (ProtocolError): does it speak "
            "http on this port?"
        ),
        (
            f"         Mend: is {server.url}/sso/oauth2/logout right, its scheme and port too? If "
            "so, look at the server's own log"
        ),
    ]
    assert server.paths == [GET_TOKEN, GET_USER_INFO, REFRESH_TOKEN, LOGOUT]
    server.answers |= {GET_TOKEN: fails("8201"), GET_USER_INFO: fails("8500"), LOGOUT: says(TOKEN)}
    done = place.run("doctor", **settings(SERVER_URL=server.url))
    for text in (
        "wrong    getToken: 8201, the client_id is not known at the server",
        "Mend: run `flask devkit-sso register`, or have this client registered at the server",
        "warning  getUserInfo: 8500, the server has an internal error; to be expected was 8205",
        "ok       logout: answers as it should to what is made up (2000)",
    ):
        assert text in done.stdout


def test_doctor_on_the_way_to_the_server(place: Place) -> None:
    # A label of 64 characters is no name: no resolver is asked.
    done = place.run("doctor", **settings(SERVER_URL=f"https://{'x' * 64}.example"))
    assert done.returncode == 1
    assert f"wrong    name {'x' * 64}.example: DNS does not know it" in done.stdout
    assert "connection" not in done.stdout.partition("wrong ")[2].splitlines()[0]
    port = free_port()
    done = place.run("doctor", **settings(SERVER_URL=f"http://127.0.0.1:{port}"))
    assert done.returncode == 1
    assert f"wrong    connection to 127.0.0.1, port {port}: Connection refused" in done.stdout
    assert "getToken" not in done.stdout


AUTHORITY = trustme.CA()


def _in(**time: int) -> datetime:
    return datetime.now(UTC) + timedelta(**time)


CERTIFICATES: dict[str, tuple[Callable[[], trustme.LeafCert], str]] = {
    "another name": (
        lambda: AUTHORITY.issue_cert("auth.example.com"),
        "wrong    {}: the certificate is for another address",
    ),
    "expired": (
        lambda: AUTHORITY.issue_cert("127.0.0.1", not_after=_in(days=-1)),
        "wrong    {}: the certificate has expired",
    ),
    "not yet": (
        lambda: AUTHORITY.issue_cert("127.0.0.1", not_before=_in(days=1), not_after=_in(days=9)),
        "wrong    {}: the certificate is not valid yet",
    ),
    "another CA": (
        lambda: trustme.CA().issue_cert("127.0.0.1"),
        "wrong    {}: the certificate is of a CA that is not trusted here",
    ),
    "soon": (
        lambda: AUTHORITY.issue_cert("127.0.0.1", not_after=_in(days=5)),
        "warning  {}: the certificate expires on ",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CERTIFICATES)
def test_doctor_on_certificates(place: Place, name: str) -> None:
    issue, told = CERTIFICATES[name]
    bundle = place.folder / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(str(bundle))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issue().configure_cert(context)
    server = ScriptedServer(context)
    try:
        done = place.run("doctor", **settings(SERVER_URL=server.url, CA_BUNDLE=str(bundle)))
    finally:
        server.stop()
    what = f"TLS of 127.0.0.1, port {server.server_port}"
    assert told.format(what) in done.stdout
    assert done.returncode == 1
    assert (server.seen == []) is told.startswith("wrong"), "nothing is sent without trust"


@pytest.mark.slow
def test_doctor_on_a_server_without_tls(place: Place, refusing: ScriptedServer) -> None:
    url = refusing.url.replace("http:", "https:")
    done = place.run("doctor", **settings(SERVER_URL=url))
    assert done.returncode == 1
    assert "the handshake failed" in done.stdout


# check-server


def check_server(place: Place, person: Callable[[str], str], **environment: str) -> tuple[int, str]:
    """Run the command with a person who opens what it asks for; return what it shows."""
    command = ["-m", "flask", "devkit-sso", "check-server"]
    env = place.environment(**environment)
    with forked.piped(command, cwd=place.folder, env=env) as (process, stdin, stdout):
        shown, opened = "", []
        for line in stdout:
            shown += line
            if line.startswith("  http"):
                opened.append(person(line.strip()))
                stdin.write(opened[-1] + "\n")
                stdin.flush()
        status = process.wait(300)
    codes = [code for address in opened for code in re.findall(r"code=([\w-]+)", address)]
    assert all(code not in shown for code in codes)
    assert CANARY not in shown
    assert "Traceback" not in shown
    return status, shown


def at_sandbox(url: str) -> Callable[[str], str]:
    """Somebody who signs in at a sandbox, and presses Enter at an error page."""
    browser = Person("ada")

    def go(address: str) -> str:
        uri = parse_qs(urlsplit(address).query)["redirect_uri"][0]
        return "" if "s=" in uri else browser.way_back(address)

    return go


BEFORE_PERSON = [
    "note     2. getToken: 8202 when grant_type is invalid, not 8203: the order is left open",
    "note     2. getToken: 8202 when client_secret is invalid, not 8204: the order is left open",
    "note     2. getToken: 8202 when redirect_uri is invalid, not 8207: the order is left open",
    (
        "ok       2. getToken: refuses with 8101, 8103, 8104, 8102, 8107, 8201, 8202, each where "
        "it should"
    ),
    "note     2. getToken: HTTP status of refusals: 200",
    "ok       3. getUserInfo: refuses with 8101, 8105, 8201, 8205, each where it should",
    "note     3. getUserInfo: HTTP status of refusals: 200",
    "ok       4. refreshToken: refuses with 8101, 8106, 8201, 8206, each where it should",
    "note     4. refreshToken: HTTP status of refusals: 200",
    "ok       6. logout: refuses with 8101, 8105, 8201, 8205, each where it should",
    "note     6. logout: HTTP status of refusals: 200",
    "ok       1. authorize: lets the registered client begin a login (HTTP 200)",
    "ok       1. authorize: an unknown client is refused (HTTP 400)",
    "ok       1. authorize: a redirect_uri that is not registered is refused (HTTP 400)",
    "ok       1. authorize: a redirect_uri with something behind it is refused (HTTP 400)",
]
WITH_PERSON = [
    "ok       2. getToken: exchanges the code; the access token lasts 3600 seconds",
    "ok       3. getUserInfo: tells uid, username and role (Admin)",
    "ok       4. refreshToken: gives another access token, of the same user",
    "note     4. refreshToken: the refresh token stays",
    "ok       6. logout: the token afterwards is refused with 8205",
    "ok       2. getToken: a code that was used is refused with 8202",
    "note     1. authorize: no address given for a redirect_uri that varies",
    "note     2. getToken: checks PKCE: DEVKIT_SSO_PKCE can be switched on",
    "ok       2. getToken: a wrong client_secret is refused with 8204",
    "ok       2. getToken: a wrong grant_type is refused with 8203",
    "ok       2. getToken: a wrong redirect_uri is refused with 8207",
]

SANDBOXES = {
    "plain": (
        "http://127.0.0.1:5000/#/login",
        [],
        [
            "ok       1. authorize: the code is at the end of the redirect_uri; both are accepted",
            "ok       1. authorize: state comes back",
            *WITH_PERSON,
            "DEVKIT_SSO_BINDING=state, since state comes back (as it is).",
        ],
    ),
    "as a standard product": (
        "http://127.0.0.1:5000/#/login",
        ["--drop-state", "--code-position=query", "--rotate-refresh-tokens", "--issuer"],
        [
            (
                "ok       1. authorize: the code is before the fragment of the redirect_uri; both "
                "are accepted"
            ),
            "note     1. authorize: state does not come back",
            "note     1. authorize: iss comes too, which is passed over",
            *WITH_PERSON[:3],
            "note     4. refreshToken: a new refresh token comes each time",
            *WITH_PERSON[4:],
            (
                "DEVKIT_SSO_BINDING=confirm, since state does not come back, and a redirect_uri "
                "may not vary (it is state now)."
            ),
        ],
    ),
    "without a fragment": (
        "http://127.0.0.1:5000/sso/callback",
        ["--drop-state"],
        [
            "note     1. authorize: state does not come back",
            *WITH_PERSON,
            (
                "DEVKIT_SSO_BINDING=confirm, since state does not come back, and a redirect_uri "
                "may not vary (it is state now)."
            ),
        ],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SANDBOXES)
def test_check_server_on_a_sandbox(place: Place, name: str) -> None:
    """Without any application: the settings are the environment's."""
    (place.folder / "app.py").unlink()
    uri, switches, expected = SANDBOXES[name]
    arguments = [f"--redirect-uri={uri}", f"--client-secret={CANARY}", *switches]
    with processes.sandbox(*arguments) as exported:
        url = exported["SERVER_URL"]
        status, shown = check_server(
            place, at_sandbox(url), **settings(SERVER_URL=url, REDIRECT_URI=uri)
        )
    assert findings(shown) == [*BEFORE_PERSON, *expected]
    assert status == 0


class WrongServer(ScriptedServer):
    """It signs everybody in at once, wherever they come from, and takes whatever it gets."""

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


def test_check_server_on_a_server_that_says_yes_to_everything(
    place: Place, wrong_server: WrongServer
) -> None:
    browser = Person("ada")
    status, shown = check_server(place, browser.way_back, **settings(SERVER_URL=wrong_server.url))
    browser.close()
    found = findings(shown)
    assert status == 1
    by_person = found.index("wrong    1. authorize: state comes back changed, or twice")
    assert found[by_person:] == [
        "wrong    1. authorize: state comes back changed, or twice",
        "wrong    2. getToken: expires_in is not an integer of at most 3600",
        "wrong    3. getUserInfo: role is neither Admin nor User",
        "ok       4. refreshToken: gives another access token, of the same user",
        "note     4. refreshToken: the refresh token stays",
        "wrong    6. logout: the access token still works afterwards",
        "warning  2. getToken: takes a code twice",
        "note     1. authorize: a redirect_uri that varies at its end is accepted",
        "note     2. getToken: does not check PKCE: leave DEVKIT_SSO_PKCE off, it would do nothing",
        "wrong    2. getToken: takes a wrong client_secret",
        (
            "DEVKIT_SSO_BINDING=redirect_uri, since state does not come back, but a redirect_uri "
            "may vary (it is state now)."
        ),
    ]
    before = found[:by_person]
    for text in (
        "wrong    2. getToken: says yes when client_secret is missing",
        "wrong    2. getToken: says yes when authorization_code is invalid",
        "wrong    3. getUserInfo: says yes when access_token is invalid",
        "wrong    4. refreshToken: says yes when client_id is invalid",
        "wrong    6. logout: says yes when client_id is missing",
        "note     6. logout: says yes when the token is none: then it may not end anything",
        "wrong    1. authorize: sends the registered client back at once, with HTTP 302",
        "wrong    1. authorize: sends the browser to a redirect_uri that is not registered",
        "note     1. authorize: an unknown client: the browser is sent back (HTTP 302)",
    ):
        assert text in before
    gets = [seen for seen in wrong_server.seen if seen.path.startswith(AUTHORIZE)]
    assert len(gets) == 8
    assert all(seen.method == "GET" for seen in gets)
    assert all(CANARY not in path for path in wrong_server.paths)


def test_check_server_on_answers_that_are_no_envelopes(
    place: Place, server: ScriptedServer
) -> None:
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
        "wrong    2. getToken: 8101 when client_secret is missing",
        "ok       2. getToken: refuses with 8101, each where it should",
        "wrong    2. getToken: envelope: code is not a string",
        "wrong    2. getToken: envelope: message is not a string",
        "wrong    2. getToken: envelope: data is not an object",
        "note     2. getToken: HTTP status of refusals: 400",
        (
            f"wrong    3. getUserInfo: The answer of getUserInfo at {server.url}/sso/oauth2/"
            "getUserInfo (HTTP 500) is not an envelope"
        ),
        "wrong    4. refreshToken: The server's answer says success under HTTP status 400",
        (
            "wrong    6. logout: The connection to the server broke (ProtocolError): does it speak "
            "http on this port?"
        ),
        "wrong    1. authorize: refuses the registered client (HTTP 404)",
        "note     1. authorize: no address given for a login",
        "Which DEVKIT_SSO_BINDING fits can't be said without a login.",
    ):
        assert text in findings(shown)
    assert server.paths.count(GET_USER_INFO) == server.paths.count(LOGOUT) == 1


class StrictServer(ScriptedServer):
    """It uses a code up by a refusal too, and knows neither PKCE nor its own tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.codes = 0
        self.spent: set[str] = set()
        self.asked = 0
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
        known = code.startswith("canary-code-") and code not in self.spent
        self.spent.add(code)
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
        self.asked += 1
        data = {"uid": f"u-{self.asked}", "username": "ada", "role": "User"}
        says({"code": "2000", "message": "", "data": data})(handler)


@pytest.mark.parametrize("body", [b'garbage "2000"', b'["2000"]', b'{"code": "2000"'])
def test_answers_that_only_look_like_success(
    place: Place, server: ScriptedServer, body: bytes
) -> None:
    server.answers |= {GET_TOKEN: says(body), GET_USER_INFO: says(body)}
    status, shown = check_server(place, lambda _: "", **settings(SERVER_URL=server.url))
    assert status == 1
    assert "wrong    2. getToken: The answer of getToken at " in shown


@pytest.mark.slow
def test_check_server_on_a_server_that_uses_codes_up(place: Place) -> None:
    server, browser = StrictServer(), Person("ada")
    environment = settings(SERVER_URL=server.url, REDIRECT_URI="https://app.example.com/#/login")
    try:
        status, shown = check_server(place, browser.way_back, **environment)
    finally:
        browser.close()
        server.stop()
    found = findings(shown)
    assert status == 1
    assert found[found.index("note     1. authorize: state does not come back") - 1 :] == [
        (
            "ok       1. authorize: the code is before the fragment of the redirect_uri; both are "
            "accepted"
        ),
        "note     1. authorize: state does not come back",
        "ok       2. getToken: exchanges the code; the access token lasts 3600 seconds",
        "ok       3. getUserInfo: tells uid, username and role (User)",
        "wrong    4. refreshToken: the new access token is another user's",
        "note     4. refreshToken: the refresh token stays",
        "wrong    6. logout: The server answered 8500: the server has an internal error",
        "ok       2. getToken: a code that was used is refused with 8202",
        "note     1. authorize: a redirect_uri that varies is accepted, but not by getToken (8207)",
        (
            "note     2. getToken: refuses a wrong code_verifier, and then the right one: either "
            "the refusal used the code up, or PKCE is unknown; try DEVKIT_SSO_PKCE with care"
        ),
        "ok       2. getToken: a wrong client_secret is refused with 8204",
        (
            "note     2. getToken: a wrong grant_type is refused with 8202, not 8203: the code may "
            "be used up"
        ),
        (
            "note     2. getToken: a wrong redirect_uri is refused with 8202, not 8207: the code "
            "may be used up"
        ),
        (
            "DEVKIT_SSO_BINDING=confirm, since state does not come back, and a redirect_uri may "
            "not vary (it is state now)."
        ),
    ]
    (exchanged, *_) = [seen.json for seen in server.seen if b"canary-code-" in seen.body]
    assert exchanged["redirect_uri"] == "https://app.example.com/#/login"


PASTED = {
    "https://app.example.com/#/other?code=canary-code": "the address is not the redirect_uri with",
    f"{REDIRECT_URI}?code=canary-code&code=canary-other": "the person comes back with 2 codes",
    f"{REDIRECT_URI}?error=access_denied": "the person comes back with an error (access_denied)",
    f"{REDIRECT_URI}?error=%1b[31m": "the person comes back with an error",
}


@pytest.mark.slow
@pytest.mark.parametrize("address", PASTED)
def test_check_server_on_an_address_that_is_no_way_back(
    place: Place, refusing: ScriptedServer, address: str
) -> None:
    refusing.answers[AUTHORIZE] = says(b"", 200)
    status, shown = check_server(place, lambda _: address, **settings(SERVER_URL=refusing.url))
    assert status == 1
    assert any(
        line.startswith(f"wrong    1. authorize: {PASTED[address]}") for line in findings(shown)
    )
    assert "\x1b" not in shown


def test_check_server_at_a_terminal_shows_no_code(
    place: Place, at_terminal: Opener, wrong_server: WrongServer
) -> None:
    place.file.parent.mkdir()
    values = {"client_id": CLIENT_ID, "client_secret": CANARY, "server_url": wrong_server.url}
    values["redirect_uri"] = REDIRECT_URI
    place.file.write_text("".join(f'{name} = "{value}"\n' for name, value in values.items()))
    place.file.chmod(0o600)
    terminal = at_terminal("check-server")
    for number in range(4):
        terminal.expect("sent back to (not shown)")
        terminal.type(f"{REDIRECT_URI}?code=canary-code\n" if number == 0 else "\n")
    terminal.expect("DEVKIT_SSO_BINDING=")
    assert terminal.close() == 1
    assert "canary-code" not in terminal.shown
    assert CANARY not in terminal.shown


def test_check_server_without_settings(place: Place) -> None:
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
    assert "wrong    2. getToken: No connection to the server" in done.stdout
    assert "could not be loaded" not in done.stderr, "it needs no application"
    assert "Provisional" in place.run("check-server", "--help").stdout


def alike(text: str) -> str:
    """Leave out what differs from run to run."""
    for pattern, shown in (
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d", "then"),
        (r"(state|code_challenge)=[\w-]+", r"\1=…"),
        (r"s%3D[\w.%-]+", "s%3D…"),
        (r"for \S+ alone", "for its owner alone"),
    ):
        text = re.sub(pattern, shown, text)
    return text


@pytest.mark.checkout
@pytest.mark.slow
def test_the_examples_of_the_documentation(make_app: AppMaker, place: Place) -> None:
    """Each command of docs/commands.md, in its order, prints what is written below it."""
    place.app(APP.partition("@session_ended")[0])
    uri = "http://127.0.0.1:5000/#/login"
    with processes.sandbox(f"--client-secret={CANARY}") as exported:
        url = exported["SERVER_URL"]
        app = make_app(
            server_url=url,
            redirect_uri=uri,
            client_secret=CANARY,
            store_url=f"sqlite:///{place.folder}/instance/devkit_sso.db",
        )
        for uid, name, role in (("1042", "ada", "Admin"), ("1043", "bob", "User")):
            login_as(app.test_client(), name, role, uid=uid)  # type: ignore[arg-type]
        for block in blocks("docs/commands.md", "console"):
            parts = re.fullmatch(r"\$ ((?:[^\n]*\\\n)*[^\n]*\n)(.*)", block, re.DOTALL)
            assert parts
            command, expected = parts.groups()
            arguments = shlex.split(command.partition(" <")[0].replace("\\\n", ""))
            arguments = [text.replace("http://127.0.0.1:9000", url) for text in arguments]
            assert arguments[:2] == ["flask", "devkit-sso"]
            if arguments[2] == "check-server":
                _, shown = check_server(place, at_sandbox(url), **KEY)
            else:
                done = place.run(*arguments[2:], stdin=CANARY, **KEY)
                assert done.returncode == 0, done.stderr
                shown = done.stdout
            shown = shown.replace(url.partition("//")[2], "127.0.0.1:9000")
            shown = shown.replace(f"port {url.rpartition(':')[2]}", "port 9000")
            shown = shown.replace(str(place.folder), "/srv/app")
            assert alike(shown) == alike(expected), command
