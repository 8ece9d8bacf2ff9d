"""A failing store causes a prompt 503, and neither a logout nor a lost cookie."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from flask_devkit_sso import DevKitSSO, LoginFailed
from flask_devkit_sso.store.open import open_store
from flask_devkit_sso.store.sqlite import SQLiteStore

from .. import forked
from ..clock import advance
from ..conftest import (
    CLIENT_ID,
    CLIENT_SECRET,
    REDIRECT_URI,
    SECRET_KEY,
    AppMaker,
    come_back,
    cookies,
    reason,
    sign_in,
    start,
    wait_until,
)
from ..processes import ROOT, environment, unprivileged
from ..redis_server import RedisServer
from ..scripted import GET_TOKEN, TOKEN, ScriptedServer, says

JSON = {"Accept": "application/json"}
BOUND = 3 * 2.0
"""Seconds: three times the documented limit."""


def timely(send: Callable[[], TestResponse]) -> TestResponse:
    began = time.monotonic()
    response = send()
    assert time.monotonic() - began < BOUND
    return response


def check_store_unavailable(response: TestResponse) -> None:
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    if response.is_json:
        assert response.json["error"] == "store_unavailable"
    else:
        assert reason(response) == "store_unavailable"


def check_reads_fail(client: FlaskClient) -> None:
    """Check that guarded pages and pages that use current_user fail, as HTML and as JSON."""
    before = cookies(client)
    for path, headers in [("/private", {}), ("/private", JSON), ("/who", {})]:
        response = timely(partial(client.get, path, headers=headers))
        check_store_unavailable(response)
        assert "Set-Cookie" not in response.headers
    assert cookies(client) == before
    assert client.get("/").text == "home", "a page without current_user works"


def check_writes_fail(client: FlaskClient, fresh: FlaskClient) -> None:
    """Check that logins and logouts fail, and that they change nothing."""
    pending = start(fresh)["state"]
    check_store_unavailable(timely(lambda: come_back(fresh, pending)))
    before = cookies(client)
    check_store_unavailable(
        timely(lambda: client.post("/sso/logout", headers={"Sec-Fetch-Site": "same-origin"}))
    )
    assert cookies(client) == before


def check_recovery(client: FlaskClient, fresh: FlaskClient) -> None:
    """Check that everything works again from the next request on."""
    assert client.get("/private").text == "private ada"
    sign_in(fresh)
    assert fresh.get("/private").text == "private ada"


# Redis


@contextmanager
def stopped(server: RedisServer) -> Iterator[None]:
    server.stop(signal.SIGKILL)
    yield
    server.start()


@contextmanager
def hung(server: RedisServer) -> Iterator[None]:
    """Let Redis accept connections and requests without responding."""
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    yield
    server.process.send_signal(signal.SIGCONT)
    # It first processes the requests whose clients have given up.
    with server.admin() as admin:
        admin.ping()


@contextmanager
def wrong_password(server: RedisServer) -> Iterator[None]:
    right = server.password
    server.config(requirepass="another")
    server.password = "another"
    with server.admin() as admin:
        admin.client_kill_filter(_type="normal", skipme=True)
    yield
    server.config(requirepass=right)
    server.password = right


@contextmanager
def loading(server: RedisServer) -> Iterator[None]:
    with server.admin() as admin:
        admin.execute_command("DEBUG", "POPULATE", "3000")
        admin.save()
    server.stop()
    options = {"key-load-delay": "5000", "loading-process-events-interval-bytes": "1024"}
    server.start(wait=False, **options)
    until = time.monotonic() + 60
    with server.admin() as admin:
        while time.monotonic() < until:
            try:
                admin.ping()
            except redis.exceptions.BusyLoadingError:
                break
            except redis.exceptions.ConnectionError:
                time.sleep(0.02)
        else:
            pytest.fail("it is not loading")
    yield
    # Loading the data without a delay takes no time.
    server.restart(signal.SIGKILL)


@pytest.mark.redis
@pytest.mark.parametrize(
    "fault",
    [stopped, hung, wrong_password, pytest.param(loading, marks=pytest.mark.slow)],
)
def test_unusable_redis(
    tmp_path: Path, make_app: AppMaker, fault: Callable[[RedisServer], Any]
) -> None:
    server = RedisServer(tmp_path, appendonly=fault is stopped)
    try:
        app = make_app(store_url=server.url)
        client = app.test_client()
        sign_in(client)
        with fault(server):
            check_reads_fail(client)
            check_writes_fail(client, app.test_client())
        check_recovery(client, app.test_client())
    finally:
        server.stop(signal.SIGKILL)


@contextmanager
def read_only(server: RedisServer) -> Iterator[None]:
    with server.admin() as admin:
        admin.config_set("replica-serve-stale-data", "yes")
        admin.replicaof("127.0.0.1", "1")
        yield
        admin.replicaof("NO", "ONE")


@contextmanager
def misconf(server: RedisServer) -> Iterator[None]:
    """Make Redis refuse writes because it cannot save."""
    with server.admin() as admin:
        name = admin.config_get("dbfilename")["dbfilename"]
        (server.folder / name).unlink(missing_ok=True)
        (server.folder / name).mkdir()
        admin.config_set("save", "3600 1")
        admin.set("something", "new")
        admin.bgsave()
        wait_until(lambda: admin.info("persistence")["rdb_last_bgsave_status"] != "ok")
        yield
        (server.folder / name).rmdir()
        admin.bgsave()
        wait_until(lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "ok")


@contextmanager
def out_of_memory(server: RedisServer) -> Iterator[None]:
    server.config(maxmemory="1")
    yield
    server.config(maxmemory="0")


@contextmanager
def slow_to_write(server: RedisServer) -> Iterator[None]:
    with server.admin() as admin:
        admin.client_pause(60_000, all=False)
        yield
        admin.client_unpause()


@pytest.mark.parametrize("fault", [read_only, misconf, out_of_memory, slow_to_write])
@pytest.mark.own_redis
def test_read_only_redis(
    redis_server: RedisServer, make_app: AppMaker, fault: Callable[[RedisServer], Any]
) -> None:
    app = make_app(store_url=redis_server.url, idle_timeout=12)
    client = app.test_client()
    sign_in(client)
    with fault(redis_server):
        # Long enough that the last use is due to be written.
        advance(3.1)
        assert client.get("/private").text == "private ada"
        check_writes_fail(client, app.test_client())
    check_recovery(client, app.test_client())


@pytest.mark.parametrize(
    "odd",
    [
        {"used": "x"},
        {"expires": "x"},
        {"data": b"\xff\xfe"},
        {"data": '{"version": 1, "uid": 5, "username": "ada", "role": null, "tokens": null}'},
        None,
    ],
    ids=str,
)
def test_foreign_data_in_redis(
    redis_server: RedisServer, make_app: AppMaker, odd: dict[str, Any] | None
) -> None:
    """Foreign data signs nobody in and causes no internal error."""
    app = make_app(store_url=redis_server.url)
    client, fresh = app.test_client(), app.test_client()
    sign_in(client)
    with redis_server.admin() as admin:
        (key,) = admin.keys("devkit_sso:*:session:*")
        if odd is None:
            admin.delete(key)
            admin.rpush(key, "a list")
        else:
            admin.hset(key, mapping=odd)
    response = client.get("/private")
    if response.status_code == 503:
        check_store_unavailable(response)
    else:
        assert response.status_code == 302
    sign_in(fresh)
    assert fresh.get("/private").text == "private ada"


@pytest.mark.own_redis
def test_read_only_redis_prevents_revalidation(
    redis_server: RedisServer, make_app: AppMaker, caplog: pytest.LogCaptureFixture
) -> None:
    """The last verified user counts for OUTAGE_GRACE seconds, as in an outage of the server."""
    settings = {"revalidate_after": 1, "outage_grace": 6}
    client = make_app(store_url=redis_server.url, **settings).test_client()
    sign_in(client)
    with out_of_memory(redis_server):
        advance(1.1)
        assert client.get("/private").text == "private ada"
        # A background thread logs this.
        wait_until(lambda: "kept up to date" in caplog.text)
        record = next(r for r in caplog.records if "kept up to date" in r.getMessage())
        assert (record.levelname, record.exc_info) == ("WARNING", None)
        advance(5)
        check_store_unavailable(timely(partial(client.get, "/private")))
    assert client.get("/private").text == "private ada"


def test_a_damaged_record_does_not_hide_the_others(
    any_store: str, request: pytest.FixtureRequest
) -> None:
    """A pending logout that is not UTF-8 would otherwise keep all others from being reported."""
    store = open_store(any_store, os.curdir)
    for key in ("damaged", "good"):
        assert store.add(key, f"data of {key}", expires=time.time() + 60, owner="o")
    if any_store.startswith("sqlite"):
        with closing(sqlite3.connect(any_store.removeprefix("sqlite:///"))) as connection:
            connection.execute(
                "UPDATE record SET data = CAST(x'ff7b7d' AS text) WHERE key = 'damaged'"
            )
            connection.commit()
    else:
        server: RedisServer = request.getfixturevalue("redis_server")
        with server.admin() as admin:
            admin.hset("devkit_sso:damaged", "data", b"\xff{}")
    rows = store.of_owner("o")
    assert rows["good"].data == "data of good"
    damaged = [rows.get("damaged"), store.read("damaged")]
    for row in filter(None, damaged):
        with pytest.raises(ValueError, match="Expecting value"):
            json.loads(row.data)
    assert "data of good" in store.remove_owner("o")
    assert store.of_owner("o") == {}


@pytest.mark.parametrize("own_handler", [False, True])
@pytest.mark.own_redis
def test_a_store_failure_inside_a_view(
    redis_server: RedisServer, make_app: AppMaker, server: ScriptedServer, own_handler: bool
) -> None:
    """A store that fails in the middle of a view causes a 503 as well."""
    server.answers[GET_TOKEN] = says(TOKEN | {"data": TOKEN["data"] | {"expires_in": 1}})  # type: ignore[operator]
    sso = DevKitSSO()
    app = make_app(sso, store_url=redis_server.url)
    app.add_url_rule("/token", view_func=sso.access_token, endpoint="token")
    app.add_url_rule("/end", view_func=lambda: str(sso.end_sessions("u-1")), endpoint="end")
    if own_handler:
        app.register_error_handler(LoginFailed, lambda error: (f"ours: {error.reason}", 503))
    client = app.test_client()
    sign_in(client)
    advance(1.1)
    with out_of_memory(redis_server):
        answers = [timely(partial(client.get, "/token"))]
    with stopped(redis_server):
        answers.append(timely(partial(client.get, "/end")))
    for answer in answers:
        if own_handler:
            assert (answer.status_code, answer.text) == (503, "ours: store_unavailable")
        else:
            check_store_unavailable(answer)


# SQLite


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.rollback()


def test_sqlite_locked_by_another_process(make_app: AppMaker, tmp_path: Path) -> None:
    app = make_app(idle_timeout=12)
    client = app.test_client()
    sign_in(client)
    with locked(tmp_path / "devkit_sso.db"):
        # Long enough that the last use is due to be written.
        advance(3.1)
        assert timely(lambda: client.get("/private")).text == "private ada"
        check_writes_fail(client, app.test_client())
        # A worker that starts now must open the file.
        late = make_app().test_client()
        pending = start(late)["state"]
        check_store_unavailable(timely(lambda: come_back(late, pending)))
    check_recovery(client, app.test_client())


connections: list[sqlite3.Connection] = []


def _record_connection(event: str, args: tuple[Any, ...]) -> None:
    if event == "sqlite3.connect/handle":
        connections.append(args[0])


sys.addaudithook(_record_connection)


def test_full_sqlite(make_app: AppMaker) -> None:
    app = make_app()
    connections.clear()
    client = app.test_client()
    sign_in(client)
    for connection in connections:
        with suppress(sqlite3.ProgrammingError):  # closed
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages}")
    people = [app.test_client() for _ in range(30)]
    answers = []
    for person in people:
        answers.append(come_back(person, start(person)["state"]))
        if answers[-1].status_code != 303:
            break
    check_store_unavailable(answers[-1])
    assert client.get("/private").text == "private ada"
    check_recovery(client, app.test_client())


def _corrupt(path: Path) -> None:
    path.write_bytes(b"no database at all, but long enough to look like one" * 100)


def _newer_version(path: Path) -> None:
    SQLiteStore(path).read("k")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def _of_the_application(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        # An application may count its versions in the same place.
        connection.executescript("CREATE TABLE record (key TEXT); PRAGMA user_version = 1")


def _of_a_killed_application(path: Path) -> None:
    """Leave a database whose last changes are only in its WAL."""
    with closing(sqlite3.connect(path.with_name("original.db"))) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE invoice (number)")
        for end in ("", "-wal"):
            shutil.copy(path.with_name(f"original.db{end}"), path.with_name(f"{path.name}{end}"))


def _of_another_program(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("PRAGMA application_id = 7; PRAGMA user_version = 1")


def _folder(path: Path) -> None:
    path.mkdir()


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


UNUSABLE = {
    _corrupt: "file is not a database",
    _folder: "it is not a file. Set DEVKIT_SSO_STORE_URL to a file",
    _fifo: "it is not a file. Set DEVKIT_SSO_STORE_URL to a file",
    _link_to_itself: "",
    _newer_version: "it was written by another version of Flask-DevKit-SSO (schema 99, not 1). Use",
    _of_the_application: "it is a database of another program. Set DEVKIT_SSO_STORE_URL to a file",
    _of_a_killed_application: "it is a database of another program. Set DEVKIT_SSO_STORE_URL to a",
    _of_another_program: "it is a database of another program. Set DEVKIT_SSO_STORE_URL to a file",
}


def contents(folder: Path) -> dict[str, object]:
    """Return the name, content and time of every file, without the content of memory that SQLite's
    connections share."""
    return {
        file.name: file.is_file()
        and not file.name.endswith("-shm")
        and (file.read_bytes(), file.stat().st_mtime_ns)
        for file in folder.iterdir()
    }


@pytest.mark.parametrize("fault", UNUSABLE)
def test_unusable_sqlite(
    make_app: AppMaker,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    fault: Callable[[Path], None],
) -> None:
    """A file that is not a session store is left unchanged, and nothing is left beside it."""
    path = tmp_path / "store" / "sessions.db"
    app = make_app(store_url=f"sqlite:///{path}")
    client = app.test_client()
    sign_in(client)
    aside = path.parent.rename(tmp_path / "aside")
    path.parent.mkdir()
    fault(path)
    before = contents(path.parent)
    advance(1)  # A read notices within a second that the file was replaced.
    check_reads_fail(client)
    check_writes_fail(client, app.test_client())
    assert f"The session store {path} cannot be used: {UNUSABLE[fault]}" in caplog.text
    assert contents(path.parent) == before
    path.parent.rename(tmp_path / "foreign")
    aside.rename(path.parent)
    advance(1)
    check_recovery(client, app.test_client())


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter names a system call of it")
def test_a_file_system_without_shared_memory(tmp_path: Path) -> None:
    """On some FUSE file systems, mmap fails with ENODEV for a mapping that others can see."""
    path = tmp_path / "sessions.db"
    program = f"""
import ctypes, errno, struct
from pathlib import Path
from flask_devkit_sso.store.open import open_store
from flask_devkit_sso.store.sqlite import SQLiteStore
MMAP, MAP_SHARED, ALLOW, FAIL = 9, 1, 0x7FFF0000, 0x00050000 | errno.ENODEV
LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
instructions = [
    (LOAD, 0, 0, 0), (EQUAL, 0, 3, MMAP),
    (LOAD, 0, 0, 40), (ANY_BIT, 0, 1, MAP_SHARED), (RETURN, 0, 0, FAIL), (RETURN, 0, 0, ALLOW),
]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in instructions))
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
NO_NEW_PRIVILEGES, SECCOMP = 38, 22
assert libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
filter = Filter(len(instructions), ctypes.cast(code, ctypes.c_void_p).value)
assert libc.prctl(SECCOMP, 2, ctypes.byref(filter), 0, 0) == 0, ctypes.get_errno()
try:
    SQLiteStore(Path({str(path)!r})).read("k")
except Exception as error:
    print(type(error).__name__, error)
"""
    done = forked.run(["-c", program])
    assert done.stdout == (
        f"StoreUnavailable The session store {path} cannot be used: SQLite's WAL mode does not "
        "work on its file system (SQLITE_IOERR_SHMMAP). Put the file on a local disk, or use "
        "Redis: see DEVKIT_SSO_STORE_URL.\n"
    ), done.stderr


def write_below(folder: Path) -> subprocess.CompletedProcess[str]:
    """Try to sign in, in a separate process, with a store below a folder."""
    program = """
from tests.apps import create_app
from tests.conftest import come_back, start
from tests.store.test_store_failures import check_store_unavailable
client = create_app().test_client()
check_store_unavailable(come_back(client, start(client)["state"]))
"""
    settings = {
        "SECRET_KEY": SECRET_KEY,
        "DEVKIT_SSO_CLIENT_ID": CLIENT_ID,
        "DEVKIT_SSO_CLIENT_SECRET": CLIENT_SECRET,
        "DEVKIT_SSO_SERVER_URL": "http://127.0.0.1:9",
        "DEVKIT_SSO_REDIRECT_URI": REDIRECT_URI,
        "DEVKIT_SSO_STORE_URL": f"sqlite:///{folder}/sessions.db",
    }
    return subprocess.run(
        [*unprivileged(), sys.executable, "-c", program],
        cwd=ROOT,
        env=environment(**settings) | {"INSTANCE": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_read_only_folder(make_app: AppMaker, tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    done = write_below(folder)
    assert done.returncode == 0, done.stderr
    assert "store_unavailable" in done.stderr
    assert list(folder.iterdir()) == []
    folder.chmod(0o755)
    client = make_app(store_url=f"sqlite:///{folder}/sessions.db").test_client()
    sign_in(client)
    assert client.get("/private").text == "private ada"
