"""Stores with many records: no request pays for expired ones, and everything is done in steps."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_devkit_sso import DevKitSSO
from flask_devkit_sso.errors import StoreUnavailable
from flask_devkit_sso.store.redis import RedisStore
from flask_devkit_sso.store.sqlite import SQLiteStore
from flask_devkit_sso.testing import login_as

from .. import forked
from ..clock import advance
from ..conftest import AppMaker, sign_in, wait_until
from ..redis_server import Proxy, RedisServer
from ..threads import Background, at_once

UPKEEP = "devkit-sso-upkeep"
EVERY = 30
"""Seconds after which a process certainly looks for expired records again."""

statements: list[tuple[str, str]] = []
"""The SQL statements of a test, with the names of their threads."""


@pytest.fixture(autouse=True)
def _trace(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    connect: Any = sqlite3.connect

    def traced(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **kwargs)
        connection.set_trace_callback(
            lambda sql: statements.append((threading.current_thread().name, sql))
        )
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    statements.clear()
    yield
    wait_until(is_idle)


def is_idle() -> bool:
    """Return whether no upkeep is in progress."""
    return all(thread.name != UPKEEP for thread in threading.enumerate())


def deletions() -> list[str]:
    """Return the statements that deleted expired records, each by its thread."""
    return [thread for thread, sql in list(statements) if sql.startswith("DELETE") and "<=" in sql]


def fill(path: Path, number: int, *, expired: bool = True, size: int = 10) -> None:
    """Write records into the file of a store."""
    SQLiteStore(path).read("k")
    now = time.time()
    expires = now - 1 if expired else now + 1e5
    rows = [(f"{expired}:{n}", f"o{n % 50}", "x" * size, now, expires) for n in range(number)]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "INSERT INTO record (key, owner, data, used, expires) VALUES (?, ?, ?, ?, ?)", rows
        )


def count(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (number,) = connection.execute("SELECT count(*) FROM record").fetchone()
    return int(number)


def query_plan(path: Path, sql: str) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}"))


def in_a_minute() -> float:
    return time.time() + 60


# Expired records in SQLite


@pytest.mark.parametrize("use", ["read", "write"])
def test_expired_records_are_deleted_beside_the_requests(tmp_path: Path, use: str) -> None:
    path = tmp_path / "a.db"
    fill(path, 303)
    fill(path, 7, expired=False)
    store = SQLiteStore(path)
    store.read("k")
    advance(EVERY)
    if use == "read":
        advance(0.5)
        assert store.read("True:1") is None
    else:
        assert store.update("False:1", "new")
    wait_until(lambda: count(path) == 7)
    wait_until(is_idle)
    assert set(deletions()) == {UPKEEP}
    assert len(deletions()) >= 303 / 5, "few records in each transaction"
    assert [sql for thread, sql in statements if thread == UPKEEP and "BEGIN" in sql] == []
    sql = next(sql for _, sql in statements if sql.startswith("DELETE") and "<=" in sql)
    plan = query_plan(path, sql)
    assert "SEARCH record USING PRIMARY KEY" in plan
    assert "SEARCH record USING COVERING INDEX record_expires" in plan
    assert "SCAN" not in plan


def test_a_login_deletes_no_expired_records(make_app: AppMaker, tmp_path: Path) -> None:
    path = tmp_path / "devkit_sso.db"
    fill(path, 50)
    app = make_app()
    statements.clear()
    for _ in range(3):
        sign_in(app.test_client())
    written = [
        sql for thread, sql in statements if thread != UPKEEP and not sql.startswith("SELECT")
    ]
    assert len([sql for sql in written if sql.startswith("INSERT")]) == 3 * 2
    assert [sql for sql in written if not sql.startswith(("INSERT", "PRAGMA"))] == []


def test_one_process_at_a_time_deletes_expired_records(tmp_path: Path) -> None:
    """A claim prevents others, until the process that has it ends or is killed."""
    path = tmp_path / "a.db"
    fill(path, 20)
    store = SQLiteStore(path)
    store.add("upkeep", "of another process", expires=in_a_minute())
    for _ in range(2):
        advance(EVERY - 1)
        assert store.read("k") is None
        wait_until(is_idle)
        assert count(path) == 21
    advance(EVERY)
    assert store.read("k") is None
    wait_until(lambda: count(path) == 0)


def test_a_process_looks_for_expired_records_only_now_and_then(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SQLiteStore(path)
    store.read("k")
    for _ in range(2):
        advance(EVERY + 1)
        store.read("k")
        wait_until(is_idle)
    looks = [sql for _, sql in statements if sql.startswith("SELECT 1")]
    assert len(looks) == 2
    assert "SEARCH record USING COVERING INDEX record_expires" in query_plan(path, looks[0])
    for _ in range(50):
        store.read("k")
        store.update("k", "1")
    wait_until(is_idle)
    assert len([sql for _, sql in statements if sql.startswith("SELECT 1")]) == 2
    assert deletions() == [], "nothing is written if nothing has expired"


def test_the_end_of_a_process_does_not_wait(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    fill(path, 5000)
    program = f"""
import time
from pathlib import Path
from flask_devkit_sso.store.redis import RedisStore
from flask_devkit_sso.store.sqlite import SQLiteStore
from tests import clock
clock.install()
store = SQLiteStore(Path({str(path)!r}))
store.read("k")
clock.advance(31)
store.read("k")
"""
    done = forked.run(["-c", program])
    assert (done.returncode, done.stderr) == (0, "")
    assert count(path) > 0
    store = SQLiteStore(path)
    assert store.add("k", "1", expires=in_a_minute())


def test_a_forked_child_does_its_own_upkeep(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    fill(path, 2000)
    store = SQLiteStore(path)
    store.read("k")
    advance(EVERY)
    store.add("parent", "1", expires=time.time() + 1e5)
    wait_until(deletions)
    pid = os.fork()
    if pid == 0:
        status = 1
        with suppress(BaseException):
            # A minute later, the claim of the parent has ended, if it was killed.
            advance(61)
            for number in range(20):
                store.add(f"child {number}", "1", expires=time.time() + 1e5)
            advance(EVERY)
            store.read("k")
            wait_until(lambda: count(path) == 21)
            status = 0
        os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    wait_until(lambda: count(path) == 21)


# The WAL


def test_the_wal_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SQLiteStore(path)
    data = "x" * 50_000
    for number in range(1500):
        store.add(f"{number % 10}", data, expires=time.time() - 1)
    checkpoints = [thread for thread, sql in statements if "wal_checkpoint" in sql]
    assert set(checkpoints) == {UPKEEP}
    assert path.with_name("a.db-wal").stat().st_size < 32 * 2**20, "of 75 MB"


def test_a_long_read_stops_the_deletion(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, wal = tmp_path / "a.db", tmp_path / "a.db-wal"
    fill(path, 600, size=100_000)
    store = SQLiteStore(path)
    store.read("k")
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM record").fetchone()
        advance(EVERY)
        store.add("k", "1", expires=time.time() + 1e5)
        wait_until(lambda: "has been reading the session store for long" in caplog.text)
        wait_until(is_idle)
        assert count(path) > 200
        assert wal.stat().st_size > 16 * 2**20
        assert store.add("l", "1", expires=time.time() + 1e5)
    advance(EVERY)
    store.read("k")
    advance(1)
    store.read("k")
    wait_until(lambda: count(path) == 2)
    wait_until(is_idle)
    for _ in range(2):
        store.update("k", "2")
    assert wal.stat().st_size <= 32 * 2**20


# Concurrent writes


def test_threads_take_turns_to_write(tmp_path: Path) -> None:
    """Only one of them at a time tries to get SQLite's lock."""
    path = tmp_path / "a.db"
    store = SQLiteStore(path)
    store.add("warm", "up", expires=in_a_minute())
    statements.clear()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        adds = [partial(store.add, f"{n}", "1", expires=in_a_minute()) for n in range(20)]
        running = Background(lambda: at_once(adds))

        def attempts() -> list[str]:
            return [thread for thread, sql in list(statements) if sql.startswith("INSERT")]

        wait_until(lambda: len(attempts()) >= 20)
        assert len(set(attempts())) == 1
        other.execute("ROLLBACK")
    assert running.result() == [True] * 20


# A user with many sessions


@pytest.mark.parametrize("number", [1200, pytest.param(20_000, marks=pytest.mark.hours)])
def test_a_user_with_many_sessions(any_store: str, make_app: AppMaker, number: int) -> None:
    sso = DevKitSSO()
    app: Flask = make_app(sso, store_url=any_store)
    client, other = app.test_client(), app.test_client()
    login_as(client, "ada", uid="many")
    login_as(other, "bob")
    service = app.extensions["devkit_sso"].session_service
    (session,) = service.sessions.list("many")
    row = service.store.read(session.key)
    owner = f"{app.extensions['devkit_sso'].settings.installation}:user:many"
    for n in range(1, number):
        service.store.add(f"{session.key}{n}", row.data, expires=in_a_minute(), owner=owner)
    assert len(service.sessions.list("many")) == number
    with app.app_context():
        assert sso.end_sessions("many") == number
        assert sso.end_sessions("many") == 0
    assert service.sessions.list("many") == []
    assert client.get("/who").json["username"] is None
    assert other.get("/who").json["username"] == "bob"


def test_sqlite_ends_sessions_in_short_transactions(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SQLiteStore(path)
    for number in range(250):
        store.add(f"{number}", "1", expires=in_a_minute(), owner="o")
    statements.clear()
    assert len(store.of_owner("o")) == 250
    assert len(store.remove_owner("o")) == 250
    deleted = [sql for _, sql in statements if sql.startswith("DELETE")]
    assert len(deleted) == 3
    (read,) = (sql for _, sql in statements if sql.startswith("SELECT key"))
    for sql in (read, deleted[0]):
        plan = query_plan(path, sql)
        assert "INDEX record_owner" in plan
        assert "SCAN" not in plan
        assert "TEMP B-TREE" not in plan


def test_ending_sessions_in_sqlite_can_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SQLiteStore(path)
    for number in range(250):
        store.add(f"{number:03}", "1", expires=in_a_minute(), owner="o")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TRIGGER fault BEFORE DELETE ON record WHEN old.key = '220'"
            " BEGIN SELECT raise(ABORT, 'fault'); END"
        )
        with pytest.raises(StoreUnavailable):
            store.remove_owner("o")
        assert count(path) == 50
        connection.execute("DROP TRIGGER fault")
    assert len(store.remove_owner("o")) == 50
    assert store.of_owner("o") == {}


@pytest.mark.own_redis
def test_ending_sessions_in_redis_can_be_repeated(redis_server: RedisServer, proxy: Proxy) -> None:
    store = RedisStore(proxy.url)
    for number in range(600):
        store.add(f"{number}", "1", expires=in_a_minute(), owner="o")
    batches = []

    def fail_at_the_second(request: bytes) -> None:
        if b"ZRANGE\r\n" in request:
            batches.append(request)
            if len(batches) == 2:
                with redis_server.admin() as admin:
                    admin.replicaof("127.0.0.1", "1")

    proxy.on_request = fail_at_the_second
    with pytest.raises(StoreUnavailable):
        store.remove_owner("o")
    with redis_server.admin() as admin:
        assert admin.zcard("devkit_sso:owner:o") == 350
        admin.replicaof("NO", "ONE")
    assert len(store.remove_owner("o")) == 350
    assert store.of_owner("o") == {}
    assert [key for key in redis_server.all_keys() if "removed" not in key] == []


# Many records in Redis


@pytest.mark.own_redis
def test_no_request_runs_a_slow_command(redis_server: RedisServer, make_app: AppMaker) -> None:
    """The commands of a login, a page and a logout do not depend on the number of records."""
    app = make_app(store_url=redis_server.url)
    login_as(app.test_client(), "bob")
    store = RedisStore(redis_server.url)
    installation = app.extensions["devkit_sso"].settings.installation

    def commands() -> dict[str, int]:
        with redis_server.admin() as admin:
            admin.config_resetstat()
            client = app.test_client()
            sign_in(client)
            assert client.get("/private").status_code == 200
            client.post("/sso/logout", headers={"Sec-Fetch-Site": "same-origin"})
            found = admin.info("commandstats")
        return {name.removeprefix("cmdstat_"): value["calls"] for name, value in found.items()}

    commands()
    few = commands()
    for number in range(700):
        key = f"{installation}:session:{number}"
        store.add(key, "x", expires=in_a_minute(), owner=f"{installation}:user:u-1")
        store.add(f"{key}:logout", "x", expires=in_a_minute(), owner="another")
    assert commands() == few
    slow = {"scan", "zscan", "keys", "zrange", "zremrangebyscore", "hgetall", "smembers", "sort"}
    assert slow.isdisjoint(few)


@pytest.mark.own_redis
def test_a_login_removes_few_expired_sessions_from_an_index(redis_server: RedisServer) -> None:
    store = RedisStore(redis_server.url)
    index = "devkit_sso:owner:o"
    with redis_server.admin() as admin:
        admin.zadd(index, {f"devkit_sso:gone {n}": time.time() - 100 for n in range(35)})
        for left in (25, 15, 5, 0):
            store.add(f"{left}", "1", expires=in_a_minute(), owner="o")
            assert admin.zcount(index, 0, time.time() - 60) == left
        assert admin.zcard(index) == 4


@pytest.mark.own_redis
def test_redis_reads_and_removes_an_owners_records_in_steps(redis_server: RedisServer) -> None:
    store = RedisStore(redis_server.url)
    for number in range(600):
        store.add(f"{number}", "1", expires=in_a_minute(), owner="o")
    with redis_server.admin() as admin:
        admin.config_resetstat()
        assert len(store.of_owner("o")) == 600
        assert len(store.remove_owner("o")) == 600
        stats = admin.info("commandstats")
    assert stats["cmdstat_zscan"]["calls"] >= 2
    assert stats["cmdstat_zrange"]["calls"] == 3
