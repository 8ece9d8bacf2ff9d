"""``flask devkit-sso doctor``."""

from __future__ import annotations

import json
import re
import sqlite3
import ssl
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from .. import processes
from ..conftest import CLIENT_ID
from ..processes import free_port
from ..redis_server import RedisServer
from ..scripted import (
    AUTHORIZE,
    GET_TOKEN,
    GET_USER_INFO,
    LOGOUT,
    REFRESH_TOKEN,
    TOKEN,
    Handler,
    ScriptedServer,
    closes,
    fails,
    registers,
    says,
)
from .place import APP, CANARY, KEY, NOWHERE, REDIRECT_URI, VALIDITY, Place, settings, validity


@pytest.mark.slow
def test_without_any_problem(place: Place) -> None:
    place.app(APP)
    place.register("--redirect-uri", "https://app.example.com/#/login")
    with processes.sandbox(
        "--tls", "--client-secret", CANARY, "--redirect-uri", "https://app.example.com/#/login"
    ) as exported:
        interface = validity(exported["SERVER_URL"])
        done = place.run(
            "doctor",
            HTTPS_PROXY=f"http://user:{CANARY}@127.0.0.1:9",
            FLASK_DEVKIT_SSO_SERVER_URL=exported["SERVER_URL"],
            FLASK_DEVKIT_SSO_CA_BUNDLE=exported["CA_BUNDLE"],
            **{f"FLASK_DEVKIT_SSO_{key}": value for key, value in interface.items()},
            **KEY,
        )
    assert (done.returncode, done.stderr) == (0, "")
    port, ca_bundle = exported["SERVER_URL"].rpartition(":")[2], exported["CA_BUNDLE"]
    text = re.sub(r"TLSv1\.\d", "TLSv1.x", done.stdout)
    text = re.sub(r"valid until \d{4}-\d\d-\d\d", "valid until then", text)
    assert text.splitlines() == [
        ("ok       settings: complete and valid, from app.config and credentials file"),
        f"ok       credentials file: {place.file}, mode 0600",
        "ok       SECRET_KEY: set and long enough",
        (
            "note     redirect_uri: https://app.example.com/#/login points to a page of the "
            "application; cannot tell whether requests get there, because there is no usable "
            "response now"
        ),
        (
            f"ok       store: {place.folder}/instance/devkit_sso.db does not exist yet, and can be "
            "created"
        ),
        f"ok       mode of {place.folder}/instance: 0700",
        "ok       proxies: ignored (HTTPS_PROXY); the server is called directly",
        "ok       name 127.0.0.1: resolves to 127.0.0.1",
        f"ok       connection to 127.0.0.1, port {port}: open",
        (
            f"ok       TLS of 127.0.0.1, port {port}: TLSv1.x, the certificate is valid until then "
            f"(trusted CAs: {ca_bundle})"
        ),
        (
            "ok       authorize: accepts the redirect_uri (sign-in page, HTTP 200), but not one "
            "that nobody has registered (HTTP 400)"
        ),
        "ok       getToken: right response to a made-up code (8202)",
        (
            "note     not checked: the client secret, if the server checks the code first: sign in "
            "to find out, or run `flask devkit-sso check-server`"
        ),
        "ok       clock: differs from the server's by less than a minute",
        "ok       getUserInfo: right response to a made-up token (8205)",
        "ok       refreshToken: right response to a made-up token (8206)",
        "ok       logout: right response to a made-up token (8205)",
        "ok       user validity: right response to a made-up token (8205)",
        (
            "note     not checked: DEVKIT_SSO_VALIDITY_FIELD and DEVKIT_SSO_VALIDITY_KEY, if the "
            "server checks the token first: sign in to find out"
        ),
    ]
    assert [path.name for path in place.file.parent.iterdir()] == [place.file.name]


def test_on_invalid_or_missing_settings(place: Place) -> None:
    done = place.run("doctor", FLASK_DEVKIT_SSO_TIMEOUT="0")
    assert done.returncode == 1
    for text in (
        "error    settings: DEVKIT_SSO_TIMEOUT must be greater than zero",
        "error    settings: DEVKIT_SSO_CLIENT_SECRET is missing\n",
        "error    settings: DEVKIT_SSO_REDIRECT_URI is missing",
        "host works without it\n         Fix: Run `flask devkit-sso register`, which writes ",
        "error    settings: SECRET_KEY is missing\n         Fix: Create one with python -c ",
        "ok       store: ",
        "warning  server: not checked",
    ):
        assert text in done.stdout
    place.app("1 / 0")
    done = place.run("doctor")
    assert done.returncode == 1
    assert "error    application: could not be loaded: ZeroDivisionError in" in done.stdout


def test_without_an_application(place: Place, refusing: ScriptedServer) -> None:
    (place.folder / "app.py").unlink()
    done = place.run("doctor", **settings(SERVER_URL=refusing.url))
    assert done.returncode == 1
    assert "ok       settings: complete and valid, from the environment\n" in done.stdout
    assert "ok       getToken: right response" in done.stdout


def test_on_a_development_machine(place: Place, refusing: ScriptedServer) -> None:
    environment = settings(SERVER_URL=refusing.url, STORE_URL="memory://") | {
        "FLASK_SECRET_KEY": "dev"
    }
    done = place.run("doctor", FLASK_DEBUG="1", **environment)
    assert done.returncode == 0, done.stdout
    assert "warning  SECRET_KEY: weak, which is accepted only with debug or testing" in done.stdout
    assert "warning  store: in memory, for tests" in done.stdout
    assert f"note     redirect_uri: {REDIRECT_URI} points to the callback" in done.stdout
    done = place.run("doctor", **environment)
    assert done.returncode == 1
    assert (
        "error    settings: SECRET_KEY, or one of SECRET_KEY_FALLBACKS, is shorter than 16 bytes"
        in done.stdout
    )


URIS = {
    "https://app.example.com/auth/callback": "error    redirect_uri: {} points to no page of the",
    f"{NOWHERE}/portal/sso/callback": "warning  redirect_uri: {} points to the "
    "callback only if the application is mounted at /portal",
    "https://localhost:5000/#/login": "warning  redirect_uri: {} uses https on this machine",
    f"{NOWHERE}/app/#/login": "warning  redirect_uri: {} points to no page of the",
    NOWHERE: "note     redirect_uri: {} points to a page of the application",
}


@pytest.mark.slow
@pytest.mark.parametrize("uri", URIS)
def test_on_a_redirect_uri(place: Place, refusing: ScriptedServer, uri: str) -> None:
    place.app(APP)
    done = place.run("doctor", **settings(SERVER_URL=refusing.url, REDIRECT_URI=uri))
    assert URIS[uri].format(uri) in done.stdout
    assert done.returncode == (1 if URIS[uri].startswith("error") else 0), done.stdout


@pytest.mark.own_redis
def test_on_stores(place: Place, refusing: ScriptedServer, redis_server: RedisServer) -> None:
    on_redis = settings(SERVER_URL=refusing.url, STORE_URL=redis_server.url)
    done = place.run("doctor", **on_redis)
    assert done.returncode == 0, done.stdout
    assert "ok       store: Redis is readable and writable" in done.stdout
    assert "ok       maxmemory-policy: noeviction" in done.stdout
    assert [key for key in redis_server.all_keys() if ":removed:" not in key] == []
    redis_server.stop()
    done = place.run("doctor", **on_redis)
    assert done.returncode == 1
    assert "error    store: The session store in Redis cannot be reached" in done.stdout
    assert redis_server.password not in done.stdout

    folder = place.folder / "stores"
    folder.mkdir()
    folder.chmod(0o770)
    file = folder / "open.db"
    on_file = settings(SERVER_URL=refusing.url, STORE_URL=f"sqlite:///{file}")
    for mode, expected in (
        (0o666, "error    mode of {}: 0666: every user can change sessions"),
        (0o644, "warning  mode of {}: 0644: other users can read who is signed in"),
    ):
        file.touch()
        file.chmod(mode)
        done = place.run("doctor", **on_file)
        assert expected.format(file) in done.stdout
        assert f"warning  mode of {folder}: 0770: other users can change sessions" in done.stdout
        assert done.returncode == (1 if expected.startswith("error") else 0)
    file.write_bytes(b"no database" * 1000)
    done = place.run("doctor", **on_file)
    assert f"error    store: The session store {file} cannot be used" in done.stdout
    file.unlink()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE invoice (number)")
    done = place.run("doctor", **on_file)
    assert (
        f"error    store: The session store {file} cannot be used: it is a database of another "
        "program\n         Fix: Set DEVKIT_SSO_STORE_URL to a file of its own\n"
    ) in done.stdout
    file.unlink()
    place.run("doctor", **on_file)
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        done = place.run("doctor", **on_file)
    assert (
        f"error    store: The session store {file} cannot be used: database is locked\n"
        "         Fix: Find the process that keeps the file locked"
    ) in done.stdout


@pytest.mark.parametrize(
    "invalid", [{"STORE_URL": "sqlite:/x.db"}, {"STORE_URI": "redis://127.0.0.1/"}], ids=str
)
def test_on_an_invalid_store_url(place: Place, invalid: dict[str, str]) -> None:
    done = place.run("doctor", **settings(SERVER_URL="http://127.0.0.1:9", **invalid))
    assert done.returncode == 1
    assert "error    settings: DEVKIT_SSO_STORE_UR" in done.stdout
    assert "warning  store: not checked, because of the settings" in done.stdout
    assert not (place.folder / "instance").exists()


def test_on_a_world_writable_folder(place: Place) -> None:
    place.register()
    place.file.parent.chmod(0o777)
    done = place.run("doctor", **settings(STORE_URL="redis://127.0.0.1:1"))
    assert done.returncode == 1
    expected = (
        f"error    mode of {place.file.parent}: 0777: every user can replace the credentials file"
    )
    assert expected in done.stdout


@pytest.mark.parametrize("date", ["soon", "Mon, 01 Jan 2024 00:00:00 +9999999999999999"])
def test_on_invalid_dates(place: Place, server: ScriptedServer, date: str) -> None:
    server.answers[GET_TOKEN] = refuses_at(date)
    done = place.run("doctor", **settings(SERVER_URL=server.url))
    assert (
        "ok       clock: not checked, because the server sends no valid Date header" in done.stdout
    ), done.stderr


def refuses_at(date: str) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        body = json.dumps({"code": "8204", "message": "no", "data": {}}).encode()
        handler.send_response_only(200)
        handler.send_header("Date", date)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def test_on_responses_of_the_server(place: Place, server: ScriptedServer) -> None:
    past = datetime.now(UTC) - timedelta(hours=1)
    server.answers |= {
        AUTHORIZE: registers(lambda uri: uri == REDIRECT_URI),
        GET_TOKEN: refuses_at(past.strftime("%a, %d %b %Y %H:%M:%S GMT")),
        GET_USER_INFO: says(b"<html>" + CANARY.encode(), 404),
        LOGOUT: closes,
        VALIDITY: says(b"true"),
    }
    configured = settings(SERVER_URL=server.url, **validity(server.url))
    done = place.run("doctor", **configured)
    assert done.returncode == 1
    found = done.stdout.partition("authorize: ")[2].splitlines()[1:]
    assert [re.sub(r"\d+(?= seconds)", "N", line) for line in found] == [
        "error    getToken: 8204: the client_secret was refused: check DEVKIT_SSO_CLIENT_SECRET",
        (
            "         Fix: Run `flask devkit-sso register` with the secret that is registered at "
            "the server"
        ),
        "warning  clock: N seconds ahead of the server's",
        "         Fix: Synchronise the clocks of both machines by NTP",
        (
            f"error    getUserInfo: The response of getUserInfo at {server.url}/sso/oauth2/"
            "getUserInfo (HTTP 404) is not an envelope: check the URL, including its path"
        ),
        (
            f"         Fix: Check that {server.url}/sso/oauth2/getUserInfo belongs to the "
            "authentication server. `flask devkit-sso show` shows where each setting comes from"
        ),
        "error    refreshToken: reports success for a made-up token",
        "         Fix: Do not use this server before it refuses made-up codes and tokens",
        (
            "error    logout: The connection to the server broke (RemoteDisconnected): does it use "
            "http on this port?"
        ),
        (
            f"         Fix: Check {server.url}/sso/oauth2/logout, its scheme and port too. If it "
            "is right, read the server's log"
        ),
        (
            f"error    user validity: The response of user validity at {server.url}{VALIDITY} "
            "(HTTP 200) is not an envelope: check the URL, including its path"
        ),
        (
            f"         Fix: Check that {server.url}{VALIDITY} belongs to the authentication "
            "server. `flask devkit-sso show` shows where each setting comes from"
        ),
    ]
    assert server.paths[2:] == [GET_TOKEN, GET_USER_INFO, REFRESH_TOKEN, LOGOUT, VALIDITY]
    asked = server.seen[-1].json
    assert asked.pop("access_token") == "made-up-by-doctor"
    assert asked == {"client_id": CLIENT_ID, "users": ["made-up-by-doctor"]}
    server.answers |= {
        GET_TOKEN: fails("8201"),
        GET_USER_INFO: fails("8500"),
        LOGOUT: says(TOKEN),
        VALIDITY: fails("8105"),
    }
    done = place.run("doctor", **configured)
    for text in (
        "error    getToken: 8201: the server does not know the client_id",
        "Fix: Run `flask devkit-sso register`, or have this client registered at the server",
        "warning  getUserInfo: 8500 instead of 8205: the server reported an internal error",
        "ok       logout: right response to a made-up token (2000)",
        "warning  user validity: 8105 instead of 8205: the access_token parameter is missing",
        "Fix: Check DEVKIT_SSO_VALIDITY_URL and DEVKIT_SSO_VALIDITY_FIELD. Run `flask",
    ):
        assert text in done.stdout
    unfinished = {key: value for key, value in configured.items() if not key.endswith("_FIELD")}
    done = place.run("doctor", **unfinished)
    assert "error    settings: DEVKIT_SSO_VALIDITY_FIELD must be set as well" in done.stdout


def test_on_the_connection_to_the_server(place: Place) -> None:
    done = place.run("doctor", **settings(SERVER_URL="https://nobody.invalid"))
    assert done.returncode == 1
    assert "error    name nobody.invalid: DNS does not know it" in done.stdout
    assert "authorize" not in done.stdout
    assert "connection" not in done.stdout.partition("error ")[2].splitlines()[0]
    port = free_port()
    done = place.run("doctor", **settings(SERVER_URL=f"http://127.0.0.1:{port}"))
    assert done.returncode == 1
    assert f"error    connection to 127.0.0.1, port {port}: Connection refused" in done.stdout
    assert "getToken" not in done.stdout


AUTHORITY = trustme.CA()


def _in(**time: int) -> datetime:
    return datetime.now(UTC) + timedelta(**time)


CERTIFICATES: dict[str, tuple[Callable[[], trustme.LeafCert], str]] = {
    "another name": (
        lambda: AUTHORITY.issue_cert("auth.example.com"),
        "error    {}: the certificate is for another address",
    ),
    "expired": (
        lambda: AUTHORITY.issue_cert("127.0.0.1", not_after=_in(days=-1)),
        "error    {}: the certificate has expired",
    ),
    "not yet": (
        lambda: AUTHORITY.issue_cert("127.0.0.1", not_before=_in(days=1), not_after=_in(days=9)),
        "error    {}: the certificate is not valid yet",
    ),
    "another CA": (
        lambda: trustme.CA().issue_cert("127.0.0.1"),
        "error    {}: the certificate is from a CA that is not in DEVKIT_SSO_CA_BUNDLE",
    ),
    "soon": (
        lambda: AUTHORITY.issue_cert("127.0.0.1", not_after=_in(days=5)),
        "warning  {}: the certificate expires on ",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CERTIFICATES)
def test_on_certificates(place: Place, name: str) -> None:
    issue, expected = CERTIFICATES[name]
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
    assert expected.format(what) in done.stdout
    assert done.returncode == 1
    assert (server.seen == []) is expected.startswith("error"), "nothing is sent without trust"


@pytest.mark.slow
def test_on_a_server_that_is_reached_by_another_name(place: Place) -> None:
    bundle = place.folder / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(str(bundle))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("auth.example.com").configure_cert(context)
    server = ScriptedServer(context)
    given = {"SERVER_URL": server.url, "CA_BUNDLE": str(bundle)}
    try:
        done = place.run("doctor", **settings(**given, TLS_HOSTNAME="auth.example.com"))
    finally:
        server.stop()
    assert f"ok       TLS of 127.0.0.1, port {server.server_port}: TLS" in done.stdout
    assert f"(for auth.example.com, trusted CAs: {bundle})" in done.stdout
    assert server.seen


ADDRESSES = """
import socket
real = socket.getaddrinfo
def getaddrinfo(host, *args, **kwargs):
    hosts = ["127.0.0.2", "127.0.0.1"] if host == "auth.example.com" else [host]
    return [found for host in hosts for found in real(host, *args, **kwargs)]
socket.getaddrinfo = getaddrinfo
"""


@pytest.mark.slow
def test_on_a_host_with_an_address_that_does_not_work(
    place: Place, refusing: ScriptedServer
) -> None:
    url = f"http://auth.example.com:{refusing.server_port}"
    done = place.run("doctor", before=ADDRESSES, **settings(SERVER_URL=url, INSECURE_HTTP="true"))
    assert "auth.example.com: resolves to 127.0.0.2, 127.0.0.1\n" in done.stdout
    assert "open, but not at each of its addresses: 127.0.0.2 Connection refused" in done.stdout
    assert refusing.seen


@pytest.mark.slow
def test_on_a_server_without_tls(place: Place, refusing: ScriptedServer) -> None:
    url = refusing.url.replace("http:", "https:")
    done = place.run("doctor", **settings(SERVER_URL=url))
    assert done.returncode == 1
    assert "the handshake failed" in done.stdout


HOSTS_APP = """
import functools
from flask import Flask
from flask_devkit_sso import DevKitSSO, login_required
app = Flask(__name__, host_matching=True, static_host="www.example.com")
app.config.from_prefixed_env()
app.config["TRUSTED_HOSTS"] = ["www.example.com"]
app.config["APPLICATION_ROOT"] = "/app"
app.add_url_rule("/sso/logout", "own", lambda: "own", host="example.invalid")
DevKitSSO(app)

@app.get("/", host="www.example.com")
@login_required
def home():
    return "home"

@app.get("/cached", host="example.invalid")
@functools.cache
@login_required
def cached():
    return "cached"
"""


@pytest.mark.slow
def test_on_an_application_with_hosts(place: Place, refusing: ScriptedServer) -> None:
    place.app(HOSTS_APP)
    uri = "https://example.invalid/app/sso/callback"
    done = place.run("doctor", **settings(SERVER_URL=refusing.url, REDIRECT_URI=uri))
    assert done.returncode == 1
    for text in (
        "shown to others: app.cached (endpoint cached)\n         Fix: Write @login_required",
        "where nobody can be signed in: app.home (endpoint home)\n         Fix: Serve",
        "error    settings: /sso/logout leads to the application's view own\n",
        f"note     redirect_uri: {uri} points to the callback; ",
        "warning  TRUSTED_HOSTS: does not contain example.invalid, the redirect URI's host",
    ):
        assert text in done.stdout
    place.app(APP.replace("(__name__)", "(__name__, subdomain_matching=True)"))
    done = place.run(
        "doctor",
        FLASK_SERVER_NAME="example.org",
        **settings(SERVER_URL=refusing.url, REDIRECT_URI=uri),
    )
    assert "error    settings: DEVKIT_SSO_REDIRECT_URI is at example.invalid," in done.stdout
