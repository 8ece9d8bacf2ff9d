"""The stores: what each of them guarantees, and the cost of each call."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import trustme
from flask import Flask
from flask.testing import FlaskClient

from flask_devkit_sso import ConfigError, DevKitSSO
from flask_devkit_sso.errors import StoreUnavailable
from flask_devkit_sso.store.base import Store
from flask_devkit_sso.store.redis import RedisStore
from flask_devkit_sso.store.sqlite import MemoryStore, SQLiteStore
from flask_devkit_sso.testing import login_as

from .. import clock, forked
from ..clock import advance
from ..conftest import CLIENT_SECRET, CODE, AppMaker, carry_cookies, cookies, sign_in, start
from ..processes import free_port
from ..redis_server import Proxy, RedisServer
from ..scripted import LOGOUT, ScriptedServer, fails
from ..threads import at_once


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return MemoryStore()
    if request.param == "sqlite":
        return SQLiteStore(tmp_path / "records.db")
    return RedisStore(request.getfixturevalue("redis_server").url)


def in_a_minute() -> float:
    return time.time() + 60


def data_of(store: Store, key: str) -> str | None:
    row = store.read(key)
    return row.data if row else None


# Guarantees of every store


def test_a_record(store: Store) -> None:
    before = time.time()
    assert store.read("k") is None
    assert store.add("k", "größe", expires=in_a_minute())
    assert not store.add("k", "other", expires=in_a_minute())
    row = store.read("k")
    assert row is not None
    assert row.data == "größe"
    assert before <= row.used <= time.time()
    assert store.update("k", "new")
    assert data_of(store, "k") == "new"
    assert store.remove("k") == "new"
    assert store.remove("k") is None
    assert not store.update("k", "newer")
    assert store.read("k") is None


def test_a_record_expires(store: Store) -> None:
    store.add("k", "1", expires=time.time() + 0.3, owner="o")
    advance(0.4)
    store.touch("k", used=time.time(), expires=in_a_minute())
    assert store.read("k") is None
    assert not store.update("k", "2")
    assert store.remove("k") is None
    assert store.of_owner("o") == {}
    assert store.remove_owner("o") == []
    store.add("k", "1", expires=time.time() + 0.3)
    advance(0.4)
    assert store.add("k", "2", expires=in_a_minute()), "an expired record can be replaced"
    assert data_of(store, "k") == "2"


def test_an_expired_record_behind_many_others_can_be_replaced(store: Store) -> None:
    for number in range(60):
        store.add(f"{number}", "old", expires=time.time() + 0.5)
    advance(0.6)
    assert store.add("59", "new", expires=in_a_minute())
    assert data_of(store, "59") == "new"


def test_a_touch_extends_a_record_and_its_owners_index(store: Store) -> None:
    clock.stop()
    now = time.time()
    store.add("k", "1", expires=now + 0.5, owner="o")
    store.touch("k", used=now + 0.4, expires=in_a_minute())
    advance(0.6)
    row = store.read("k")
    assert row is not None
    assert row.used == now + 0.4
    assert list(store.of_owner("o")) == ["k"]
    # With a clock that is slow.
    store.touch("k", used=now - 3, expires=now + 0.1)
    assert store.read("k") == row
    store.touch("none", used=now, expires=in_a_minute())
    assert store.read("none") is None


def test_only_its_owner_releases_a_lock(store: Store) -> None:
    assert store.add("lock", "mine", expires=in_a_minute())
    assert store.remove("lock", data="yours") is None
    assert data_of(store, "lock") == "mine"
    assert store.remove("lock", data="mine") == "mine"
    assert store.read("lock") is None


def test_an_owners_records(store: Store) -> None:
    for key, owner in [("a", "one"), ("b", "one"), ("c", "two"), ("d", None)]:
        store.add(key, f"data-{key}", expires=in_a_minute(), owner=owner)
    assert {key: row.data for key, row in store.of_owner("one").items()} == {
        "a": "data-a",
        "b": "data-b",
    }
    store.remove("b")
    assert list(store.of_owner("one")) == ["a"]
    store.add("b", "again", expires=in_a_minute(), owner="two")
    assert sorted(store.remove_owner("two")) == ["again", "data-c"]
    assert store.remove_owner("two") == []
    assert [data_of(store, key) for key in "abcd"] == ["data-a", None, None, "data-d"]


def test_records_below_a_prefix(store: Store) -> None:
    for key in ("x:1", "x:2", "xy", "y:1"):
        store.add(key, key, expires=in_a_minute())
    assert sorted(store.below("x:")) == ["x:1", "x:2"]


_DROP = """
import gc
import os
import sys
import time
import warnings
from flask_devkit_sso.store.open import open_store

gc.disable()
# From Python 3.12 on, a fork with other threads causes a warning.
warnings.simplefilter("ignore", DeprecationWarning)


def descriptors():
    return {name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")}


store = open_store(sys.argv[1], ".")
first = descriptors()
assert store.add("k", "1", expires=time.time() + 60)
assert store.read("k")
used = descriptors() - first
assert used
pid = os.fork()
if pid == 0:
    del store
    print("child", used - descriptors(), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
assert store.read("k")
del store
until = time.monotonic() + 60
while used & descriptors() and time.monotonic() < until:
    time.sleep(0.01)
print("parent", used & descriptors())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_dropped_store_closes_its_connections(any_store: str) -> None:
    """It does so before the garbage collector runs, and only in the process that opened them."""
    done = forked.run(["-c", _DROP, any_store])
    assert (done.stdout, done.stderr) == ("child set()\nparent set()\n", "")


def test_only_one_of_many_callers_adds_or_removes(store: Store) -> None:
    def race(what: str) -> list[object]:
        def run() -> object:
            if what == "add":
                return store.add("k", "data", expires=in_a_minute()) or None
            return store.remove("k")

        return [result for result in at_once([run] * 8) if result is not None]

    for _ in range(10):
        assert race("add") == [True]
        assert race("remove") == ["data"]


# SQLite


def test_many_processes_create_the_file_at_the_same_time(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    gate, answers = context.Barrier(6), context.Queue()

    def first_use() -> None:
        for turn in range(10):
            gate.wait()
            try:
                store = SQLiteStore(tmp_path / f"{turn}.db")
                answers.put((turn, store.add("k", "1", expires=in_a_minute())))
            except StoreUnavailable as error:
                answers.put((turn, str(error)))

    processes = [context.Process(target=first_use) for _ in range(6)]
    for process in processes:
        process.start()
    got = [answers.get(timeout=60) for _ in range(60)]
    for process in processes:
        process.join()
    for turn in range(10):
        assert sorted(answer for number, answer in got if number == turn) == [False] * 5 + [True]


def test_many_threads_of_several_processes_create_the_file(tmp_path: Path) -> None:
    """A thread that creates the file releases no lock of another thread of its process."""
    context = multiprocessing.get_context("fork")
    turns, gate, answers = 15, context.Barrier(3), context.Queue()

    def first_use() -> None:
        for turn in range(turns):
            store = SQLiteStore(tmp_path / f"{turn}.db")

            def write(number: int, store: SQLiteStore = store) -> str:
                try:
                    return str(store.add(f"{os.getpid()} {number}", "1", expires=in_a_minute()))
                except StoreUnavailable as error:
                    # On a slow machine it may be locked for too long, but it is not damaged.
                    return str(error)

            gate.wait()
            answers.put(at_once([partial(write, number) for number in range(8)]))

    processes = [context.Process(target=first_use) for _ in range(3)]
    for process in processes:
        process.start()
    got = [answer for _ in range(3 * turns) for answer in answers.get(timeout=60)]
    for process in processes:
        process.join()
    assert got.count("True") >= turns
    assert [answer for answer in got if "I/O" in answer] == []


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_deleted_file_is_not_written_to(
    client: FlaskClient, make_app: AppMaker, tmp_path: Path, how: str
) -> None:
    """A connection to the deleted file is not used again."""
    login_as(client, "bob")
    for name in ("devkit_sso.db", "devkit_sso.db-wal", "devkit_sso.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    if how == "replaced":
        login_as(make_app().test_client(), "carol")
    advance(1)  # A read notices it within a second.
    assert client.get("/private").status_code == 302
    login_as(client, "bob")
    with closing(sqlite3.connect(tmp_path / "devkit_sso.db")) as connection:
        (count,) = connection.execute("SELECT count(*) FROM record").fetchone()
    assert count == (2 if how == "replaced" else 1)


# Redis


@pytest.mark.own_redis
def test_an_authenticated_read_is_one_command(
    redis_server: RedisServer, make_app: AppMaker
) -> None:
    client = make_app(store_url=redis_server.url).test_client()
    login_as(client, "bob")
    client.get("/private")
    with redis_server.admin() as admin:
        before = admin.info("stats")["total_commands_processed"]
        for _ in range(5):
            assert client.get("/private").status_code == 200
        after = admin.info("stats")["total_commands_processed"]
        calls = admin.info("commandstats")
    assert after - before == 5 + 1, "five reads, and one for the statistics"
    assert calls["cmdstat_hmget"]["calls"] >= 6


def test_redis_expires_records_and_indexes(redis_server: RedisServer) -> None:
    store = RedisStore(redis_server.url)
    store.add("k", "1", expires=time.time() + 100, owner="o")
    store.touch("k", used=time.time() + 5, expires=time.time() + 300)
    with redis_server.admin() as admin:
        for key in ("devkit_sso:k", "devkit_sso:owner:o"):
            # A little longer than the session, because clocks differ.
            assert 300 < admin.ttl(key) <= 361
        # A shorter record does not shorten the index.
        store.add("l", "1", expires=time.time() + 10, owner="o")
        assert 300 < admin.ttl("devkit_sso:owner:o") <= 361
        # Expired keys leave the index when the owner gets another record.
        admin.zadd("devkit_sso:owner:o", {"devkit_sso:gone": time.time() - 100})
        store.add("m", "1", expires=time.time() + 10, owner="o")
        assert admin.zrange("devkit_sso:owner:o", 0, -1) == [
            "devkit_sso:l",
            "devkit_sso:m",
            "devkit_sso:k",
        ]
        store.remove_owner("o")
        assert not admin.exists("devkit_sso:owner:o")
        assert admin.keys("devkit_sso:[klm]") == []


def test_a_repeated_call_returns_the_lost_result(proxy: Proxy) -> None:
    """Redis executed the first call; the repeated one must not report that the key exists."""
    store = RedisStore(proxy.url)
    assert store.add("warm", "up", expires=in_a_minute())

    proxy.lose.set()
    assert store.add("k", "1", expires=in_a_minute(), owner="o")
    assert not store.add("k", "2", expires=in_a_minute(), owner="o")
    store.add("l", "2", expires=in_a_minute(), owner="o")

    proxy.lose.set()
    assert store.update("k", "3")
    proxy.lose.set()
    assert data_of(store, "k") == "3"
    proxy.lose.set()
    assert store.remove("k") == "3"
    assert store.remove("k") is None
    store.add("k", "4", expires=in_a_minute(), owner="o")
    proxy.lose.set()
    assert sorted(store.remove_owner("o")) == ["2", "4"]
    assert proxy.lost == 5


def check_restart(app: Flask, *restarts: Callable[[], object]) -> None:
    """Check that restarts of the store fail no request."""
    clients = [app.test_client() for _ in range(4)]
    for client in clients:
        login_as(client, "bob")
    for restart in restarts:
        # Concurrently, so that several connections break.
        read = [partial(client.get, "/private") for client in clients]
        before = at_once(read)
        restart()
        answers = before + at_once(read)
        assert [answer.status_code for answer in answers] == [200] * 8


def check_refused_url(make_app: AppMaker, url: str) -> None:
    """Check that an application with a store's invalid URL does not start, and that the error leads
    to nothing that quotes the URL."""
    with pytest.raises(ConfigError, match="DEVKIT_SSO_STORE_URL") as caught:
        make_app(store_url=url)
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.redis
def test_a_redis_restart_fails_no_request(tmp_path: Path, make_app: AppMaker) -> None:
    redis = RedisServer(tmp_path, appendonly=True)
    try:
        app = make_app(store_url=redis.url)
        ways = (signal.SIGTERM, signal.SIGKILL)
        check_restart(app, *[partial(redis.restart, how) for how in ways])
    finally:
        redis.stop()


@pytest.mark.redis
def test_tls(tmp_path: Path, make_app: AppMaker) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    files = {name: str(tmp_path / f"{name}.pem") for name in ("ca", "stranger", "cert", "key")}
    authority.cert_pem.write_to_path(files["ca"])
    stranger.cert_pem.write_to_path(files["stranger"])
    certificate.cert_chain_pems[0].write_to_path(files["cert"])
    certificate.private_key_pem.write_to_path(files["key"])
    port = free_port()
    redis = RedisServer(
        tmp_path,
        tls_port=str(port),
        tls_cert_file=files["cert"],
        tls_key_file=files["key"],
        tls_ca_cert_file=files["ca"],
        tls_auth_clients="no",
    )
    url = f"rediss://:{redis.password}@127.0.0.1:{port}/0"
    try:
        client = make_app(store_url=f"{url}?ssl_ca_certs={files['ca']}").test_client()
        login_as(client, "bob")
        assert client.get("/private").text == "private bob"
        for wrong in (url, f"{url}?ssl_ca_certs={files['stranger']}", f"{url}?ssl_ca_certs=/none"):
            other = make_app(store_url=wrong).test_client()
            carry_cookies(client, other)
            assert other.get("/private").status_code == 503
    finally:
        redis.stop()


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis://:canary-pw@host/database",
        "redis://:canary-pw@host:port/0",
        "redis://:canary/pw@host/0",
        "redis://:canary-pw@host/0?no_such_option=1",
        "redis://:canary-pw@host/0?socket_timeout=long",
        "redis://:canary-pw@host/0#1",
        "rediss://:canary-pw@host/0?ssl_cert_reqs=maybe",
        "unix:///canary-pw",
    ],
)
def test_an_invalid_url_is_refused_at_startup(make_app: AppMaker, url: str) -> None:
    with pytest.raises(ConfigError, match="DEVKIT_SSO_STORE_URL") as caught:
        make_app(store_url=url)
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("library", "url", "extra"),
    [
        ("redis", "redis://localhost", "redis"),
        ("psycopg", "postgresql://localhost/a", "postgresql"),
    ],
)
def test_the_library_of_a_store_is_optional(library: str, url: str, extra: str) -> None:
    program = f"""
import sys
sys.modules[{library!r}] = None
from flask import Flask
from flask_devkit_sso import ConfigError, DevKitSSO
DevKitSSO(Flask("a"))
app = Flask("b")
app.config.update(SECRET_KEY="0123456789abcdef-k", DEVKIT_SSO_STORE_URL={url!r})
try:
    DevKitSSO(app)
except ConfigError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    assert f"pip install 'flask-devkit-sso[{extra}]'" in done.stdout


@pytest.mark.own_redis
def test_the_password_does_not_leak(
    redis_server: RedisServer, make_app: AppMaker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    app = make_app(store_url=redis_server.url)
    app.debug = True
    client = app.test_client()
    login_as(client, "bob")
    shown = [repr(app.extensions["devkit_sso"].settings)]
    redis_server.config(requirepass="another")
    with redis_server.admin() as admin:
        admin.connection_pool.connection_kwargs["password"] = "another"
        admin.client_kill_filter(_type="normal", skipme=True)
    shown.append(client.get("/private").text)
    redis_server.stop(signal.SIGKILL)
    shown.append(client.get("/private").text)
    assert "store_unavailable" in shown[1]
    assert "store_unavailable" in shown[2]
    for text in (*shown, caplog.text):
        assert redis_server.password not in text


# Both stores, as an application uses them


@pytest.mark.own_redis
def test_the_stored_bytes_contain_no_secret(
    any_store: str, make_app: AppMaker, server: ScriptedServer, tmp_path: Path, request: object
) -> None:
    app = make_app(store_url=any_store, binding="confirm", pkce=True)
    is_redis = any_store.startswith("redis")
    if is_redis:
        redis: RedisServer = request.getfixturevalue("redis_server")  # type: ignore[attr-defined]
        redis.config(appendonly="yes")
    secrets = {CLIENT_SECRET, CODE, "canary-access-token-1f6a", "canary-refresh-token-9b2c"}
    for leaves_pending_logout in (False, True):
        client = app.test_client()
        origin = {"Sec-Fetch-Site": "same-origin"}
        start(client, headers=origin)
        question = client.get(client.get("/sso/callback", query_string={"code": CODE}).location)
        action = question.text.split('action="')[1].split('"')[0].replace("&amp;", "&")
        client.post(action, data={"answer": "yes"}, headers=origin)
        assert client.get("/private").status_code == 200
        secrets |= {cookie.value for cookie in cookies(client)}
        secrets |= {cookie.value.split(".")[0] for cookie in cookies(client)}
        secrets.add(server.seen[-2].json["code_verifier"])
        if leaves_pending_logout:
            server.answers[LOGOUT] = fails("8500")
            client.post("/sso/logout", headers=origin)
    start(app.test_client(), headers=origin)
    if is_redis:
        with redis.admin() as admin:
            admin.save()
            kinds = sorted({key.split(":")[2] for key in redis.all_keys() if "owner" not in key})
            dumps = b"".join(
                admin.execute_command("DUMP", key, NEVER_DECODE=[]) for key in redis.all_keys()
            )
        assert {"session", "logouts", "login"} <= set(kinds)
        folder = tmp_path / "redis"
    else:
        dumps, folder = b"", tmp_path
    stored = dumps + b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
    assert b":session:" in stored
    assert b":logouts" in stored
    for secret in secrets:
        assert secret.encode() not in stored


@pytest.mark.parametrize("number", [100, pytest.param(10_000, marks=pytest.mark.hours)])
@pytest.mark.own_redis
def test_abandoned_logins_leave_nothing_in_the_store(
    any_store: str, make_app: AppMaker, tmp_path: Path, request: pytest.FixtureRequest, number: int
) -> None:
    app = make_app(store_url=any_store)
    login_as(app.test_client(), "bob")

    def content() -> object:
        if any_store.startswith("redis"):
            redis: RedisServer = request.getfixturevalue("redis_server")
            return redis.all_keys()
        with closing(sqlite3.connect(tmp_path / "devkit_sso.db")) as connection:
            return connection.execute("SELECT * FROM record").fetchall()

    before = content()
    client = app.test_client(use_cookies=False)
    for _ in range(number):
        assert client.get("/sso/authorize").status_code == 303
    assert content() == before


def test_sessions_can_be_listed_and_ended(any_store: str, make_app: AppMaker) -> None:
    app = make_app(store_url=any_store)
    other = make_app(DevKitSSO(), store_url=any_store, client_id="another")
    clients = {name: app.test_client() for name in ("ada", "bob", "eve")}
    for name, client in clients.items():
        login_as(client, name, uid="shared" if name != "eve" else "owed")
    login_as(other.test_client(), "ada", uid="shared")
    sessions = app.extensions["devkit_sso"].session_service.sessions
    assert [item.user.username for item in sessions.list("shared")] == ["ada", "bob"]
    assert [item.user.username for item in sessions.list()] == ["ada", "bob", "eve"]
    assert sessions.list("nobody") == []
    assert all(abs(item.last_used - time.time()) < 60 for item in sessions.list())
    assert len(sessions.end_all("shared").sessions) == 2
    assert [item.user.username for item in sessions.list()] == ["eve"]
    assert clients["ada"].get("/who").json["username"] is None
    assert len(other.extensions["devkit_sso"].session_service.sessions.list("shared")) == 1


def _write_in_the_future(any_store: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Change a record as if a host had written it whose clock is five seconds fast."""
    if any_store.startswith("redis"):
        redis: RedisServer = request.getfixturevalue("redis_server")
        with redis.admin() as admin:
            (key,) = (key for key in redis.all_keys() if ":session:" in key)
            admin.hset(key, "used", float(admin.hget(key, "used")) + 5)
    else:
        with closing(sqlite3.connect(tmp_path / "devkit_sso.db")) as connection, connection:
            connection.execute("UPDATE record SET used = used + 5")


def test_clocks_may_differ(
    any_store: str, make_app: AppMaker, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    client = make_app(store_url=any_store).test_client()
    login_as(client, "bob")
    _write_in_the_future(any_store, request, tmp_path)
    for _ in range(3):
        assert client.get("/private").text == "private bob"


@pytest.mark.parametrize("limit", ["idle_timeout", "session_lifetime"])
def test_lifetimes(any_store: str, make_app: AppMaker, limit: str) -> None:
    clock.stop()
    client = make_app(store_url=any_store, **{limit: 5}).test_client()
    login_as(client, "bob")
    for _ in range(3):
        assert client.get("/private").status_code == 200
        advance(1.5)
    # A session in use survives the idle timeout, but not its lifetime.
    advance(0.7)
    if limit == "idle_timeout":
        assert client.get("/private").status_code == 200
        advance(5.2)
    assert client.get("/private").status_code == 302


def test_a_whole_login_and_logout(
    any_store: str, make_app: AppMaker, server: ScriptedServer
) -> None:
    app: Flask = make_app(store_url=any_store)
    client = app.test_client()
    sign_in(client)
    copy = app.test_client()
    carry_cookies(client, copy)
    assert copy.get("/private").text == "private ada"
    client.post("/sso/logout", headers={"Sec-Fetch-Site": "same-origin"})
    assert server.seen[-1].json["access_token"] == "canary-access-token-1f6a"
    assert copy.get("/private").status_code == 302
