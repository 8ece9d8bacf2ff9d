"""Faults that are planted one at a time: ``doctor`` finds each by name, and invents none.

Everything else works, so there is no other error or warning.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from ..conftest import CLIENT_ID
from ..processes import unprivileged
from ..redis_server import RedisServer
from ..scripted import (
    DONE,
    GET_TOKEN,
    GET_USER_INFO,
    LOGOUT,
    REFRESH_TOKEN,
    Answer,
    ScriptedServer,
    fails,
    says,
)
from .place import CANARY, KEY, REDIRECT_URI, VALIDITY, Place, settings, validity

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
    assert place.findings(**configured) == [
        *warnings,
        (
            "error    server: no interface refuses a made-up code or token as it has to (8500), so "
            "nobody can sign in"
        ),
    ]
    refusing.answers[GET_TOKEN] = fails("8202")
    assert place.findings(**configured) == warnings[1:]


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
    assert place.findings(**configured) == lines


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
    assert place.findings(**same) == []
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
    found = place.findings(**same | ignored)
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
    found = place.findings(**configured)
    prefix = "error    settings: DEVKIT_SSO_"
    for text in (
        (
            f"{prefix}CLIENT_ID is missing, because FLASK_DEVKIT_SSO_CLIENT_ID is set but was not "
            "read (call app.config.from_prefixed_env() before init_app)"
        ),
        (
            f"{prefix}CLIENT_SECRET is missing, because the variable must be called "
            "FLASK_DEVKIT_SSO_CLIENT_SECRET"
        ),
        f"{prefix}SERVER_URL is missing",
        (
            "warning  settings: DEVKIT_SSO_REDIRECT_URI is set in the environment, but no variable "
            "of this name is read"
        ),
    ):
        assert text in found


# The store


def test_a_folder_that_cannot_be_written(place: Place, refusing: ScriptedServer) -> None:
    folder = place.folder / "stores"
    folder.mkdir(mode=0o700)
    configured = settings(
        SERVER_URL=refusing.url, STORE_URL=f"sqlite:///{folder}/below/sessions.db"
    )
    assert place.findings(**configured) == []
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
    assert place.findings(**configured) == []
    redis_server.config(maxmemory_policy="volatile-ttl")
    try:
        assert place.findings(**configured) == [
            (
                "warning  maxmemory-policy: volatile-ttl: if its memory is full, Redis deletes "
                "valid sessions, and `end_sessions` may miss some"
            )
        ]
    finally:
        redis_server.config(maxmemory_policy="noeviction")
