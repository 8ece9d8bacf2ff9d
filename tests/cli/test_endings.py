"""However a command ends, it ends with a status and without a traceback."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
import requests

from flask_devkit_sso.testing import login_as

from .. import forked, processes
from ..conftest import AppMaker, wait_until
from ..scripted import GET_TOKEN, ScriptedServer, hangs, says
from .place import APP, CANARY, KEY, OPTIONS, Place, Running, settings
from .terminal import Opener

COMMANDS = {
    "help": ["--help"],
    "register": ["register", *OPTIONS],
    "show": ["show"],
    "sessions list": ["sessions", "list"],
    "sessions end": ["sessions", "end", "u-1"],
    "doctor": ["doctor"],
    "check-server": ["check-server"],
}
BOUND = 20
"""Seconds: twenty times what a command needs, and less than what it would wait for otherwise."""

# Nothing responds there.
CONFIGURED = settings(SERVER_URL="http://127.0.0.1:9")


# Output and input


@pytest.fixture
def full() -> Iterator[int]:
    with Path("/dev/full").open("wb") as file:
        yield file.fileno()


@pytest.fixture
def without_reader() -> Iterator[int]:
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.mark.parametrize("buffered", ["", pytest.param("1", marks=pytest.mark.slow)])
@pytest.mark.parametrize("command", COMMANDS)
def test_with_an_output_that_fails(
    place: Place, full: int, without_reader: int, command: str, buffered: str
) -> None:
    place.app(APP + "print('the application prints')")
    environment = CONFIGURED | {"PYTHONUNBUFFERED": buffered} if buffered else CONFIGURED
    with place.start(*COMMANDS[command], stdout=full, environment=environment) as running:
        status, shown = running.end()
    assert (status, "No space left on device" in shown) == (1, True), shown
    with place.start(*COMMANDS[command], stdout=without_reader, environment=environment) as running:
        status, shown = running.end()
    assert status == 141, shown


@pytest.mark.parametrize("command", COMMANDS)
def test_with_closed_streams(place: Place, command: str) -> None:
    usual = place.run(*COMMANDS[command], **CONFIGURED)
    for closed in ([0], [1], [0, 1, 2]):
        with place.start(*COMMANDS[command], closed=closed, environment=CONFIGURED) as running:
            status, shown = running.end()
        assert status == usual.returncode
        if closed == [0]:
            assert usual.stdout[-50:] in shown


@pytest.mark.parametrize("given", [b"", b"\n", b"\xff\n"])
def test_without_a_secret(place: Place, given: bytes) -> None:
    place.old_file()
    before = place.file.read_bytes()
    done = place.run("register", *OPTIONS, "--secret-stdin", stdin=given)
    assert done.returncode == 2
    assert "standard input" in done.stderr
    with place.start("register", *OPTIONS, "--secret-stdin", closed=[0], environment={}) as running:
        status, shown = running.end()
    assert (status, "standard input contains no client secret" in shown) == (2, True)
    assert place.file.read_bytes() == before


UIDS = ["", "-x", "\udcff", "\x1b[31m", "\u202e", "\t\r\n", "王小明", "x" * 100_000]


@pytest.mark.parametrize("uid", UIDS, ids=ascii)
def test_with_an_unusual_uid(place: Place, uid: str) -> None:
    for command in ("list", "end"):
        done = place.run("sessions", command, "--", uid, **KEY)
        if uid == "\udcff":
            assert (done.returncode, "not valid UTF-8" in done.stderr) == (2, True)
        else:
            assert done.returncode == 0, done.stderr
            assert done.stdout.startswith("No sessions." if command == "list" else "Ended: 0 ")
        done = place.run("sessions", command, "--", "u-1", uid, **KEY)
        assert done.returncode == 2
        assert all(char.isprintable() or char == "\n" for char in done.stdout + done.stderr)


@pytest.mark.parametrize(
    "source",
    [
        "raise SystemExit",
        "import asyncio; raise asyncio.CancelledError",
        "raise GeneratorExit",
        "import sys; sys.stdout.close(); 1 / 0",
    ],
)
def test_of_an_application_that_fails(place: Place, source: str) -> None:
    place.app(source)
    for command in ("show", "doctor", "register"):
        done = place.run(*COMMANDS[command], **CONFIGURED)
        assert done.returncode in (1, 2)
        assert "could not be loaded" in done.stdout + done.stderr or "stdout" in source


def test_an_unexpected_error(
    make_app: AppMaker, place: Place, server: ScriptedServer, tmp_path: Path
) -> None:
    """Its text is not shown, because it may contain a secret."""
    place.app(APP.replace("print(", "raise ValueError('canary-of-the-error', "))
    store = f"sqlite:///{tmp_path}/sessions.db"
    login_as(make_app(store_url=store, client_secret=CANARY).test_client(), "ada", uid="u-1")
    environment = settings(
        STORE_URL=store, SERVER_URL=server.url, REDIRECT_URI="http://localhost/sso/callback"
    )
    done = place.run("sessions", "end", "u-1", **environment)
    assert done.returncode == 1
    assert "Error: The command failed unexpectedly: ValueError in" in done.stderr
    assert f"{place.folder}/app.py, line " in done.stderr
    assert "canary" not in done.stderr


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "fifo"])
def test_with_an_odd_credentials_file(place: Place, make: Callable[[Path], None]) -> None:
    place.file.parent.mkdir()
    make(place.file)
    for command in ("show", "doctor", "check-server", "sessions list"):
        done = place.run(*COMMANDS[command], **CONFIGURED)
        assert done.returncode == 1
        assert "is not a regular file" in done.stdout + done.stderr
    done = place.register()
    assert done.returncode == 1
    assert "could not be written (it is not a regular file)" in done.stderr


# Ctrl-C


@contextmanager
def timely() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < BOUND


def interrupt(running: Running) -> None:
    """Send SIGINT, and check that the command ends soon and as it should."""
    with timely():
        running.process.send_signal(signal.SIGINT)
        status, _ = running.end()
    assert status == 130


def test_an_interrupt_at_a_prompt(place: Place, at_terminal: Opener) -> None:
    terminal = at_terminal("register")
    terminal.expect("Client id: ")
    with timely():
        terminal.type("\x03")
        assert terminal.close() == 130
    assert "Traceback" not in terminal.shown


@pytest.mark.parametrize("command", ["doctor", "check-server"])
def test_an_interrupt_while_the_server_hangs(
    place: Place, server: ScriptedServer, command: str
) -> None:
    server.answers[GET_TOKEN] = hangs
    environment = settings(SERVER_URL=server.url, TIMEOUT="60")
    with place.start(*COMMANDS[command], environment=environment) as running:
        wait_until(lambda: GET_TOKEN in server.paths)
        interrupt(running)


def test_an_interrupt_while_check_server_waits_for_an_address(
    place: Place, refusing: ScriptedServer
) -> None:
    refusing.answers["/sso/oauth2/authorize"] = says(b"")
    reading, writing = os.pipe()
    try:
        environment = settings(SERVER_URL=refusing.url)
        with place.start("check-server", stdin=reading, environment=environment) as running:
            wait_until(lambda: "redirected to (not shown)" in running.shown())
            interrupt(running)
    finally:
        os.close(reading)
        os.close(writing)


def test_an_interrupt_while_the_store_is_locked(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "sessions.db"
    environment = settings(STORE_URL=f"sqlite:///{file}")
    assert place.run("sessions", "list", **environment).returncode == 0
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with place.start("sessions", "end", "u-1", environment=environment) as running:
            wait_until(lambda: has_opened(running.process.pid, "sessions.db-wal"))
            interrupt(running)


def has_opened(pid: int, name: str) -> bool:
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        # The process may close it at the same time.
        with suppress(FileNotFoundError):
            if descriptor.readlink().name == name:
                return True
    return False


def test_an_interrupt_at_the_end(place: Place) -> None:
    """The process waits for the threads that the application has started."""
    place.app(
        APP + "import threading, time; threading.Thread(target=time.sleep, args=[600]).start()"
    )
    with place.start("show", environment=CONFIGURED) as running:
        wait_until(lambda: "No problems found." in running.shown())
        interrupt(running)


def test_an_interrupt_of_the_sandbox(server: ScriptedServer) -> None:
    """It also ends while a client keeps a connection open."""
    with (
        processes.Person("ada").browser as browser,
        processes.sandbox(end=signal.SIGINT) as exported,
    ):
        browser.get(exported["SERVER_URL"], timeout=60)
        began = time.monotonic()
    assert time.monotonic() - began < BOUND


@contextmanager
def sandbox(stdout: int, errors: Path, begin: str = "", port: int = 0) -> Iterator[forked.Program]:
    lines = ["import os, sys", begin, "from flask_devkit_sso.sandbox.__main__ import main"]
    lines += [f"sys.exit(main(['--port', '{port}']))"]
    with Path("/dev/null").open("rb") as nothing, errors.open("wb") as stderr:
        streams = (nothing.fileno(), stdout, stderr.fileno())
        program = forked.Program(["-c", "\n".join(lines)], streams)
        try:
            yield program
        finally:
            program.kill()
            program.wait()


@pytest.mark.parametrize("fault", ["full", "without_reader"])
def test_a_sandbox_with_an_output_that_fails(
    request: pytest.FixtureRequest, fault: str, tmp_path: Path
) -> None:
    errors = tmp_path / "errors"
    with sandbox(request.getfixturevalue(fault), errors) as program:
        assert program.wait(300) == 1
    assert re.fullmatch(r"The sandbox ended: [\w ]+\n", errors.read_text())


def test_a_sandbox_without_streams(full: int, tmp_path: Path) -> None:
    port = processes.free_port()
    begin = "os.close(1); os.close(2); sys.stdout = sys.stderr = None"
    with sandbox(full, tmp_path / "errors", begin, port) as program:

        def responds() -> bool:
            assert program.is_running()
            with suppress(requests.ConnectionError):
                return requests.get(f"http://127.0.0.1:{port}", timeout=60).status_code == 200
            return False

        wait_until(responds)
        program.send_signal(signal.SIGINT)
        assert program.wait(300) == 0
