"""``flask devkit-sso sessions``."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from flask_devkit_sso.testing import login_as

from ..conftest import AppMaker
from ..redis_server import RedisServer
from ..scripted import ScriptedServer
from .place import APP, CANARY, KEY, Place, settings

AUDIT = """
import logging
logging.getLogger("flask_devkit_sso.audit").addHandler(logging.StreamHandler())
"""


def test_of_a_working_application(
    make_app: AppMaker, place: Place, any_store: str, server: ScriptedServer
) -> None:
    place.app(APP)
    app = make_app(store_url=any_store, client_secret=CANARY)
    environment = settings(
        STORE_URL=any_store,
        SERVER_URL=server.url,
        REDIRECT_URI="http://localhost/sso/callback",
    )
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
    assert re.split(r"  +", head) == [*("UID", "NAME", "ROLE", "SIGNED IN", "LAST USE", "SESSION")]
    found = [re.split(r"  +", row) for row in rows]
    assert [row[:3] for row in found] == [
        ["uid-of-ada", "ada", "Admin"],
        ["uid-of-bob", "bob", "User"],
        ["uid-of-ada", "ada", "Admin"],
        ["uid-of-eve", "eve\ufffd[31m", "-"],
    ]
    for row in found:
        for time in row[3:5]:
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
    hint = (
        "The command expects a uid, not a name: the first column of `flask devkit-sso sessions "
        "list` shows them.\n"
    )
    for command, text in (("end", "Ended: 0 sessions. "), ("list", "No sessions. ")):
        assert place.run("sessions", command, "bob", **environment).stdout == text + hint

    name = found[1][5]
    place.app(APP + AUDIT)
    runs = [place.run("sessions", "end", "--session", name, **environment) for _ in range(2)]
    assert runs[0].stdout == "signal uid-of-bob ended\nEnded: 1 session of the uid uid-of-bob.\n"
    assert runs[1].stdout.startswith("Ended: 0 sessions. The command expects a session's name")
    lines = [[json.loads(line) for line in run.stderr.splitlines()] for run in runs]
    assert [(e["event"], e["reason"], e["uid"], e["session"], e["count"]) for e in lines[0]] == [
        ("sessions_ended", "command", "uid-of-bob", name, 1),
        ("session_ended", "ended", "uid-of-bob", name, None),
    ]
    assert lines[1] == []
    inside = [browser.get("/private").status_code == 200 for browser in browsers]
    assert inside == [False, False, False, True]
    assert server.seen == [], "the server is not asked"


@pytest.mark.own_redis
def test_in_an_unusable_store(place: Place, redis_server: RedisServer) -> None:
    redis_server.stop()
    environment = settings(STORE_URL=redis_server.url, SERVER_URL="http://127.0.0.1:9")
    for command in (["list"], ["list", "u-1"], ["end", "u-1"], ["end", "--session", "x"]):
        done = place.run("sessions", *command, **environment)
        assert done.returncode == 1
        assert "Error: The session store in Redis cannot be reached" in done.stderr
        assert redis_server.password not in done.stdout + done.stderr
    file = place.folder / "damaged.db"
    file.write_bytes(b"no database" * 1000)
    done = place.run(
        "sessions",
        "end",
        "u-1",
        **environment | {"FLASK_DEVKIT_SSO_STORE_URL": f"sqlite:///{file}"},
    )
    assert done.returncode == 1
    assert f"Error: The session store {file} cannot be used: file is not a database. Some" in (
        done.stderr
    )


def test_of_an_application_without_a_server(place: Place) -> None:
    assert place.run("sessions", "list", **KEY).stdout == "No sessions.\n", "it needs no server"
    done = place.run("sessions", "list", **settings(STORE_URL="memory://"))
    assert done.returncode == 1
    assert "DEVKIT_SSO_STORE_URL is memory://: each process has its own sessions" in done.stderr
    done = place.run("sessions", "list", FLASK_DEVKIT_SSO_STORE_URL="x")
    assert done.returncode == 1
    assert "DEVKIT_SSO_STORE_URL must be sqlite:///file" in done.stderr
    assert "SECRET_KEY is missing" in done.stderr
    place.app("1 / 0")
    done = place.run("sessions", "end", "u-1", **settings())
    assert done.returncode == 1
    assert "The application could not be loaded: ZeroDivisionError in" in done.stderr


def test_end_needs_either_a_uid_or_a_session(place: Place) -> None:
    for arguments in ([], ["u-1", "--session", "x"]):
        done = place.run("sessions", "end", *arguments, **settings())
        assert done.returncode == 2
        assert "name either a UID, or one session with --session NAME" in done.stderr
