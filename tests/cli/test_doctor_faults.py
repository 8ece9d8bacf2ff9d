"""Faults that are planted one at a time: ``doctor`` finds each by name, and invents none.

Everything else works, so there is no other error or warning.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import WSGIRequestHandler, make_server

from .. import processes
from ..conftest import CLIENT_ID, REDIRECT_URI, new_app
from ..processes import unprivileged
from ..redis_server import RedisServer
from ..scripted import (
    AUTHORIZE,
    DONE,
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
from .place import APP, CANARY, KEY, VALIDITY, Place, settings, validity

NOBODYS = "https://made-up-by-doctor.invalid/callback"


def findings(place: Place, *levels: str, **environment: str) -> list[str]:
    """Return the findings of some levels, by default errors and warnings, without their fixes."""
    done = place.run("doctor", **environment)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert done.returncode == any(line.startswith("error ") for line in lines)
    return [line for line in lines if line.startswith(levels or ("error ", "warning "))]


# What authorize does


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
    "forbidden": (says(b"", 403), f"{OURS} (HTTP 403)"),
    "8207": (
        fails("8207"),
        (
            f"{OURS} (8207: the redirect_uri was refused: DEVKIT_SSO_REDIRECT_URI must be the value "
            "registered at the server, byte for byte)"
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
        "The connection to the server broke (ProtocolError): does it use http on this port?",
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
    assert findings(place, **configured) == [f"error    authorize: {expected}"]


BOTH = "because it responds alike to one that nobody has registered"
UNKNOWN = {
    "signs everybody in": (SIGN_IN, f"{BOTH} (sign-in page, HTTP 200)"),
    "a page for all": (PAGE, f"{BOTH} (HTTP 200)"),
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
    assert findings(
        place, "error ", "warning ", "note     auth", **settings(SERVER_URL=refusing.url)
    ) == [
        (
            f"note     authorize: cannot tell whether it accepts the redirect_uri, {why}. Sign in to "
            "find out"
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
    assert findings(
        place, "error ", "warning ", "ok       auth", **settings(SERVER_URL=refusing.url)
    ) == [
        (
            f"ok       authorize: accepts the redirect_uri ({ours}), and not one that nobody has "
            f"registered ({nobodys})"
        )
    ]


def test_nobody_is_signed_in_and_nothing_reaches_the_application(
    place: Place, refusing: ScriptedServer
) -> None:
    application = ScriptedServer()
    uri = f"{application.url}/#/login"
    refusing.answers[AUTHORIZE] = back("?code=c-1&state=made-up-by-doctor")
    place.app(APP)
    try:
        configured = settings(SERVER_URL=refusing.url, REDIRECT_URI=uri)
        assert len(findings(place, **configured)) == 1
        # An application at the origin of the server.
        shared = settings(SERVER_URL=refusing.url, REDIRECT_URI=f"{refusing.url}/#/login")
        refusing.answers[AUTHORIZE] = redirects("/in")
        assert findings(place, **shared) == []
        assert application.seen == []
    finally:
        application.stop()
    assert {seen.path.partition("?")[0] for seen in refusing.seen} == {
        AUTHORIZE,
        GET_TOKEN,
        GET_USER_INFO,
        REFRESH_TOKEN,
        LOGOUT,
    }
    for seen in refusing.seen:
        assert (seen.method == "GET") is seen.path.startswith(AUTHORIZE)
        assert "cookie" not in seen.headers
        assert b"c-1" not in seen.body


def test_authorize_is_asked_what_a_login_asks(place: Place, refusing: ScriptedServer) -> None:
    nonce = f"{REDIRECT_URI}?s=made-up-by-doctor"
    refusing.answers[AUTHORIZE] = registers(lambda uri: uri == REDIRECT_URI)
    configured = settings(SERVER_URL=refusing.url, BINDING="redirect_uri", PKCE="true")
    assert findings(place, **configured) == [
        (
            "error    authorize: refuses the redirect_uri with the nonce of "
            "DEVKIT_SSO_BINDING=redirect_uri (HTTP 400), but not without it (sign-in page, HTTP 200)"
        )
    ]
    queries = [parse_qs(urlsplit(seen.path).query) for seen in refusing.seen if "?" in seen.path]
    assert [query["redirect_uri"] for query in queries] == [[nonce], [REDIRECT_URI]]
    assert all(query["code_challenge_method"] == ["S256"] for query in queries)
    assert all("state" not in query for query in queries)
    refusing.answers[AUTHORIZE] = registers(lambda uri: uri == nonce)
    assert findings(place, **configured) == []


def test_only_browsers_reach_authorize(place: Place, refusing: ScriptedServer) -> None:
    elsewhere = settings(SERVER_URL=refusing.url, AUTHORIZE_URL="http://127.0.0.1:1/authorize")
    notes = findings(place, "error ", "warning ", "note     auth", **elsewhere)
    assert len(notes) == 1
    assert "cannot tell whether it accepts the redirect_uri, because it gave this" in notes[0]


def test_the_sandbox_with_another_redirect_uri(place: Place) -> None:
    with processes.sandbox("--client-secret", CANARY, "--redirect-uri", REDIRECT_URI) as exported:
        url = exported["SERVER_URL"]
        assert findings(place, **settings(SERVER_URL=url)) == []
        other = settings(SERVER_URL=url, REDIRECT_URI="http://localhost:81/sso/callback")
        done = place.run("doctor", **other)
    assert done.returncode == 1
    assert (
        "error    authorize: refuses this client_id or redirect_uri (HTTP 400)\n"
        f"         Fix: Have the client id {CLIENT_ID} and the redirect_uri "
        "http://localhost:81/sso/callback registered at the server, byte for byte. "
    ) in done.stdout


# The other interfaces


def test_every_interface_reports_an_internal_error(place: Place, refusing: ScriptedServer) -> None:
    names = {
        "getToken": (GET_TOKEN, "8202"),
        "getUserInfo": (GET_USER_INFO, "8205"),
        "refreshToken": (REFRESH_TOKEN, "8206"),
    }
    # A logout that reports success proves nothing.
    refusing.answers |= {path: fails("8500") for path, _ in names.values()} | {LOGOUT: says(DONE)}
    configured = settings(SERVER_URL=refusing.url)
    warnings = [
        f"warning  {name}: 8500 instead of {code}: the server reported an internal error"
        for name, (_, code) in names.items()
    ]
    assert findings(place, **configured) == [
        *warnings,
        (
            "error    server: no interface refuses a made-up code or token as it has to (8500), so "
            "nobody can sign in"
        ),
    ]
    refusing.answers[GET_TOKEN] = fails("8202")
    assert findings(place, **configured) == warnings[1:]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (says(DONE), "error    user validity: reports success for a made-up token"),
        (
            fails("8105"),
            "warning  user validity: 8105 instead of 8205: the access_token parameter is missing",
        ),
        (
            fails("8500"),
            "warning  user validity: 8500 instead of 8205: the server reported an internal error",
        ),
        (
            says(b"", 404),
            (
                "error    user validity: The response of user validity at {} (HTTP 404) is not an "
                "envelope: check the URL, including its path"
            ),
        ),
        (fails("8205"), None),
    ],
    ids=["success", "8105", "8500", "404", "right"],
)
def test_user_validity(
    place: Place, refusing: ScriptedServer, answer: Answer, expected: str | None
) -> None:
    refusing.answers |= {VALIDITY: answer, LOGOUT: fails("8205")}
    configured = settings(SERVER_URL=refusing.url, **validity(refusing.url))
    lines = [expected.format(refusing.url + VALIDITY)] if expected else []
    assert findings(place, **configured) == lines


# Settings that are set but not in force

DEAF_APP = """
from flask import Flask
from flask_devkit_sso import DevKitSSO
app = Flask(__name__)
app.config.update(
    SECRET_KEY="{key}",
    DEVKIT_SSO_CLIENT_ID=20221017000000001,
    DEVKIT_SSO_CLIENT_SECRET="{secret}",
    DEVKIT_SSO_SERVER_URL="{url}",
    DEVKIT_SSO_REDIRECT_URI="{uri}",
    DEVKIT_SSO_TIMEOUT=5,
)
DevKitSSO(app)
"""


def test_settings_that_were_set_but_not_read(place: Place, refusing: ScriptedServer) -> None:
    place.app(
        DEAF_APP.format(
            key=KEY["FLASK_SECRET_KEY"], secret=CANARY, url=refusing.url, uri=REDIRECT_URI
        )
    )
    same = settings(SERVER_URL=refusing.url, TIMEOUT="5.0", CA_BUNDLE="", UNKNOWN="1")
    assert findings(place, **same) == []
    ignored = {
        "FLASK_DEVKIT_SSO_REVALIDATE_AFTER": "60",
        "FLASK_DEVKIT_SSO_TIMEOUT": "7",
        "FLASK_DEVKIT_SSO_CLIENT_SECRET": "canary-of-another-secret",
        "DEVKIT_SSO_IDLE_TIMEOUT": "60",
    }
    expected = [
        "FLASK_DEVKIT_SSO_CLIENT_SECRET is set, but the application assigns another value",
        "FLASK_DEVKIT_SSO_REVALIDATE_AFTER is set but was not read",
        "FLASK_DEVKIT_SSO_TIMEOUT is set, but the application assigns another value",
        "DEVKIT_SSO_IDLE_TIMEOUT is set in the environment, but no variable of this name is read",
    ]
    found = findings(place, **same | ignored)
    assert sorted(found) == sorted(f"warning  settings: {text}" for text in expected)
    shown = place.run("show", **same | ignored).stdout
    assert all(f"  - {text}\n" in shown for text in expected)
    assert "another-secret" not in shown


def test_a_missing_setting_is_in_the_environment(place: Place, refusing: ScriptedServer) -> None:
    place.app("""
from flask import Flask
from flask_devkit_sso import DevKitSSO
app = Flask(__name__)
DevKitSSO(app)
""")
    configured = {
        "FLASK_DEVKIT_SSO_CLIENT_ID": CLIENT_ID,
        "DEVKIT_SSO_CLIENT_SECRET": CANARY,
        "DEVKIT_SSO_REDIRECT_URI": REDIRECT_URI,
    }
    found = findings(place, **configured)
    prefix = "error    settings: DEVKIT_SSO_"
    for text in (
        (
            f"{prefix}CLIENT_ID is missing, because FLASK_DEVKIT_SSO_CLIENT_ID is set but was not read "
            "(call app.config.from_prefixed_env() before init_app)"
        ),
        (
            f"{prefix}CLIENT_SECRET is missing, because the variable must be called "
            "FLASK_DEVKIT_SSO_CLIENT_SECRET"
        ),
        f"{prefix}SERVER_URL is missing",
        (
            "warning  settings: DEVKIT_SSO_REDIRECT_URI is set in the environment, but no variable of "
            "this name is read"
        ),
    ):
        assert text in found


# The path below which the application is


MOUNTED_APP = (
    APP
    + """
from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
app.wsgi_app = ProxyFix(DispatcherMiddleware(NotFound(), {"/portal": app.wsgi_app}))
"""
)


def test_a_prefix_that_the_application_knows(place: Place, refusing: ScriptedServer) -> None:
    place.app(MOUNTED_APP)

    def find(path: str) -> list[str]:
        uri = f"http://127.0.0.1:1{path}"
        lines = findings(place, **settings(SERVER_URL=refusing.url, REDIRECT_URI=uri))
        return [line.replace(uri, "URI") for line in lines]

    for path in ("/portal/sso/callback", "/portal/sso/callback#/login", "/portal/#/login"):
        assert find(path) == []
    for path, mount in (("/wrong/sso/callback", "/wrong"), ("/sso/callback", "/")):
        assert find(path) == [
            (
                "error    redirect_uri: URI points to the callback only if the application is mounted "
                f"at {mount}, but it is mounted at /portal"
            )
        ]
    (warning,) = find("/wrong/#/login")
    assert warning.startswith("warning  redirect_uri: URI points to no page of the application")


@contextmanager
def proxy(app: Any, strips: str) -> Iterator[str]:
    """Run an application behind a proxy that strips a path; yield its address."""
    mounted = DispatcherMiddleware(NotFound(), {strips: without_script_name(app)})
    server = make_server("127.0.0.1", 0, mounted, threaded=True, request_handler=Quiet)
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()


class Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:
        pass


def without_script_name(app: Any) -> Any:
    return lambda environ, start: app(environ | {"SCRIPT_NAME": ""}, start)


class Behind:
    """A proxy's application, which a test sets when it knows the proxy's address."""

    app: Any = None

    def __call__(self, environ: Any, start: Any) -> Any:
        return self.app(environ, start)


RIGHT = {
    "callback": ("/portal/sso/callback", {}),
    "landing at the callback": ("/portal/sso/callback#/login", {}),
    "page": ("/portal/#/login", {"APPLICATION_ROOT": "/portal"}),
}
WRONG = {
    "other": ("/other/sso/callback", {}, "does not lead to the application's callback (HTTP 404)"),
    "none": (
        "/sso/callback",
        {"APPLICATION_ROOT": "/portal"},
        "does not lead to the application's callback (HTTP 404)",
    ),
    "twice": (
        "/portal/sso/callback",
        {"DEVKIT_SSO_URL_PREFIX": "/portal/sso"},
        "does not lead to the application's callback (HTTP 404)",
    ),
    "page": (
        "/other/#/login",
        {},
        "points to no page of the application, and does not lead to the landing page (HTTP 404)",
    ),
    "page without a root": (
        "/portal/#/login",
        {},
        "points to no page of the application, and does not lead to the landing page (HTTP 200)",
    ),
}


def run_behind_a_proxy(
    place: Place, refusing: ScriptedServer, path: str, options: dict[str, str]
) -> tuple[list[str], list[str]]:
    """Return the findings about the redirect URI while the application runs, and while not."""
    behind = Behind()
    place.app(APP)
    with proxy(behind, "/portal") as url:
        uri = url + path
        behind.app = new_app(refusing.url, place.folder, uri, **options)
        behind.app.add_url_rule("/", view_func=lambda: "home")
        configured = settings(SERVER_URL=refusing.url, REDIRECT_URI=uri)
        configured |= {f"FLASK_{name}": value for name, value in options.items()}
        running = findings(place, "error ", "warning ", "ok       redirect_uri", **configured)
    stopped = findings(place, **configured)
    running, stopped = (
        [line.replace(uri, "URI") for line in lines] for lines in (running, stopped)
    )
    return running, stopped


@pytest.mark.parametrize("case", RIGHT)
def test_the_right_prefix_behind_a_proxy(place: Place, refusing: ScriptedServer, case: str) -> None:
    running, _ = run_behind_a_proxy(place, refusing, *RIGHT[case])
    assert len(running) == 1
    assert running[0].startswith("ok       redirect_uri: URI ")


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_prefix_behind_a_proxy(place: Place, refusing: ScriptedServer, case: str) -> None:
    path, options, expected = WRONG[case]
    running, stopped = run_behind_a_proxy(place, refusing, path, options)
    assert running == [f"error    redirect_uri: URI {expected}"]
    assert all(line.startswith("warning  redirect_uri: URI points to ") for line in stopped)


# The store


def test_a_folder_that_cannot_be_written(place: Place, refusing: ScriptedServer) -> None:
    folder = place.folder / "stores"
    folder.mkdir(mode=0o700)
    configured = settings(
        SERVER_URL=refusing.url, STORE_URL=f"sqlite:///{folder}/below/sessions.db"
    )
    assert findings(place, **configured) == []
    assert list(folder.iterdir()) == [], "doctor leaves nothing behind"
    folder.chmod(0o500)
    command = [*unprivileged(), sys.executable, "-m", "flask", "devkit-sso", "doctor"]

    def run() -> str:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=place.folder,
            env=place.environment(**configured),
            check=False,
        ).stdout

    error = f"error    store: this user may not write to the folder {folder}, so SQLite cannot "
    assert f"{error}create {folder}/below/sessions.db\n         Fix: Run this command as" in run()
    assert not list(folder.iterdir())
    folder.chmod(0o700)
    place.run("sessions", "list", **configured)
    (folder / "below").chmod(0o500)
    error = error.replace(str(folder), f"{folder}/below")
    assert f"{error}use {folder}/below/sessions.db\n" in run()


def test_the_eviction_policy_of_redis(
    place: Place, refusing: ScriptedServer, redis_server: RedisServer
) -> None:
    configured = settings(SERVER_URL=refusing.url, STORE_URL=redis_server.url)
    assert findings(place, **configured) == []
    redis_server.config(maxmemory_policy="volatile-ttl")
    try:
        assert findings(place, **configured) == [
            (
                "warning  maxmemory-policy: volatile-ttl: if its memory is full, Redis deletes valid "
                "sessions, and `end_sessions` may miss some"
            )
        ]
    finally:
        redis_server.config(maxmemory_policy="noeviction")
