"""What needs much time or memory is imported when it is first needed, and works then too.

Each program runs in a new interpreter, in which nothing has been imported yet.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import (
    CLIENT_ID,
    CLIENT_SECRET,
    REDIRECT_URI,
    SECRET_KEY,
    AppMaker,
    cookies,
    start,
)
from .forked import ROOT
from .redis_server import RedisServer
from .scripted import GET_TOKEN, ScriptedServer

APP = f"""
import sys
from urllib.parse import parse_qs, urlsplit

import flask

of_flask = set(sys.modules)

def imported():
    # What was imported since then, and is neither ours nor cheap.
    new = {{name.partition(".")[0] for name in set(sys.modules) - of_flask}}
    cheap = sys.stdlib_module_names - {{"asyncio", "sqlite3", "sysconfig"}}
    return sorted(new - cheap - {{"flask_devkit_sso"}})

def create_app(folder, **settings):
    app = flask.Flask("tests", instance_path=folder)
    app.config.update({{f"DEVKIT_SSO_{{key.upper()}}": value for key, value in settings.items()}})
    app.config.update(
        SECRET_KEY={SECRET_KEY!r},
        DEVKIT_SSO_CLIENT_ID={CLIENT_ID!r},
        DEVKIT_SSO_CLIENT_SECRET={CLIENT_SECRET!r},
        DEVKIT_SSO_REDIRECT_URI={REDIRECT_URI!r},
    )
    DevKitSSO(app)

    @app.get("/private")
    @login_required
    def private():
        return f"private {{current_user.username}}"

    return app

def sign_in(app):
    client = app.test_client()
    location = client.get("/sso/authorize").location
    (state,) = parse_qs(urlsplit(location).query)["state"]
    response = client.get("/sso/callback", query_string={{"code": "code-1", "state": state}})
    assert response.status_code == 303, response.text
    return client.get("/private").text
"""


def run(program: str, *arguments: object) -> Any:
    """Run a program in a new interpreter, and return the JSON in its last line."""
    done = subprocess.run(
        [sys.executable, "-c", APP + program, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


READS = """
import json

from flask_devkit_sso import DevKitSSO, current_user, login_required

found = {"package": imported()}
app = create_app(sys.argv[1], server_url="https://auth.example.com", **json.loads(sys.argv[2]))
found["init_app"] = imported()
from flask_devkit_sso.testing import login_as

client = app.test_client()
assert client.get("/private").location.startswith("/sso/authorize")
login_as(client, "ada")
assert client.get("/private").text == "private ada"
found["request"] = imported()
print(json.dumps(found))
"""


def test_a_worker_that_reads_sessions_imports_no_other_library(tmp_path: Path) -> None:
    found = run(READS, tmp_path, "{}")
    assert found["package"] == []
    assert found["init_app"] == ["sqlite3"]
    assert {"authlib", "cryptography"}.isdisjoint(found["request"])


def test_only_a_worker_with_redis_imports_it(tmp_path: Path, redis_server: RedisServer) -> None:
    found = run(READS, tmp_path, json.dumps({"store_url": redis_server.url}))
    assert found["package"] == []
    assert "redis" in found["init_app"]
    assert "sqlite3" not in found["request"]


LOGIN = """
import json
from importlib.abc import MetaPathFinder

from flask_devkit_sso import DevKitSSO, current_user, login_required
from tests import clock

clock.install()

class Slow(MetaPathFinder):
    # Each of these takes twelve times as long to import as a call to the server may take.
    def find_spec(self, name, path, target=None):
        if name in ("authlib", "cryptography"):
            clock.advance(60)
            slow.append(name)
        return None

slow = []
sys.meta_path.insert(0, Slow())
app = create_app(sys.argv[1], server_url=sys.argv[2], timeout=5.0)
print(json.dumps([sign_in(app), sorted(slow)]))
"""


def test_the_first_login_does_not_fail_because_imports_take_long(
    tmp_path: Path, server: ScriptedServer
) -> None:
    page, slow = run(LOGIN, tmp_path, server.url)
    assert slow == ["authlib", "cryptography"]
    assert page == "private ada"


BROKEN = """
import json
from importlib.abc import MetaPathFinder

from flask_devkit_sso import DevKitSSO, current_user, login_required

class Broken(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == sys.argv[3]:
            raise ImportError("the library is broken", name=name)

app = create_app(sys.argv[1], server_url=sys.argv[2])
# As if another worker had started the login.
starting, completing = create_app(sys.argv[1], server_url=sys.argv[2]), app
client = starting.test_client()
"""


BROKEN = """
import json
from importlib.abc import MetaPathFinder

from flask_devkit_sso import DevKitSSO, current_user, login_required

class Broken(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == sys.argv[3]:
            raise ImportError

client = create_app(sys.argv[1], server_url=sys.argv[2]).test_client()
name, value, state = sys.argv[4:]
client.set_cookie(name, value)

def come_back():
    query = {"code": "code-1", "state": state}
    return client.get("/sso/callback", query_string=query).status_code

broken = Broken()
sys.meta_path.insert(0, broken)
statuses = [come_back()]
sys.meta_path.remove(broken)
statuses.append(come_back())
print(json.dumps(statuses))
"""


@pytest.mark.parametrize(("library", "status"), [("authlib", 503), ("cryptography", 500)])
def test_a_library_that_cannot_be_imported_does_not_use_up_a_login(
    library: str, status: int, make_app: AppMaker, server: ScriptedServer, tmp_path: Path
) -> None:
    client = make_app().test_client()
    state = start(client)["state"]
    (cookie,) = [found for found in cookies(client) if "_login_" in found.key]
    given = (tmp_path, server.url, library, cookie.key, cookie.value, state)
    assert run(BROKEN, *given) == [status, 303]
    assert server.paths.count(GET_TOKEN) == 1


FORK = """
import json
import os
import signal
import threading
from importlib.abc import MetaPathFinder

from flask_devkit_sso import DevKitSSO, current_user, login_required

class Interrupted(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == sys.argv[3] and not forking.is_set():
            importing.set()
            forking.wait()
        return None

importing, forking = threading.Event(), threading.Event()
os.register_at_fork(before=forking.set)
sys.meta_path.insert(0, Interrupted())
app = create_app(sys.argv[1], server_url=sys.argv[2], store_url=sys.argv[4])
pages = []
thread = threading.Thread(target=lambda: pages.append(sign_in(app)))
thread.start()
importing.wait()
pid = os.fork()
if pid == 0:
    # End the process if it waits for ever.
    signal.alarm(60)
    os._exit(0 if sign_in(app) == "private ada" else 1)
thread.join()
print(json.dumps([pages, os.waitpid(pid, 0)[1]]))
"""


# redis-py imports the package cryptography itself, but not Fernet.
@pytest.mark.parametrize("library", ["authlib", "cryptography.fernet"])
def test_a_process_that_forks_during_the_first_login(
    tmp_path: Path, server: ScriptedServer, redis_server: RedisServer, library: str
) -> None:
    assert run(FORK, tmp_path, server.url, library, redis_server.url) == [["private ada"], 0]


COMMANDS = """
import json

from flask_devkit_sso.cli.group import group

def loaded():
    modules = {name.rpartition(".")[2] for name in sys.modules if "flask_devkit_sso.cli." in name}
    return sorted(modules & {"check_server", "doctor", "register", "sessions", "show"})

found = [loaded()]
for name in ("show", "register", "sessions", "doctor", "check-server"):
    assert group.main([name, "--help"], "flask devkit-sso", standalone_mode=False) == 0
    found.append(loaded())
print(json.dumps([found, imported()]))
"""


def test_a_command_is_imported_when_it_is_used() -> None:
    found, others = run(COMMANDS)
    assert found == [
        [],
        ["show"],
        ["register", "show"],
        ["register", "sessions", "show"],
        ["doctor", "register", "sessions", "show"],
        ["check_server", "doctor", "register", "sessions", "show"],
    ]
    assert {"authlib", "cryptography"}.isdisjoint(others)
