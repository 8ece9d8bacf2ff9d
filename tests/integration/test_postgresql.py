"""The store in PostgreSQL: what every store guarantees, and what only this one has to survive."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from flask_devkit_sso import StoreUnavailable
from flask_devkit_sso.store.postgresql import EVERY, PostgreSQLStore

from ..cli.place import Place, settings
from ..clock import advance
from ..conftest import AppMaker, sign_in, wait_until
from ..postgresql_server import PostgreSQLServer, unprivileged
from ..processes import free_port
from ..protocol import test_addresses
from ..redis_server import Proxy
from ..store import test_scale
from ..store.test_bulkheads import CALLERS, refuse
from ..store.test_store_failures import check_reads_fail, check_recovery, check_writes_fail
from ..store.test_stores import (  # noqa: F401 - the tests of every store, with our fixtures
    check_refused_url,
    check_restart,
    in_a_minute,
    test_a_dropped_store_closes_its_connections,
    test_a_record,
    test_a_record_expires,
    test_a_touch_extends_a_record_and_its_owners_index,
    test_a_whole_login_and_logout,
    test_an_expired_record_behind_many_others_can_be_replaced,
    test_an_owners_records,
    test_lifetimes,
    test_only_its_owner_releases_a_lock,
    test_only_one_of_many_callers_adds_or_removes,
    test_records_below_a_prefix,
    test_sessions_can_be_listed_and_ended,
)
from ..threads import Background, at_once

swallow = test_addresses.swallow


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQLServer]:
    running = PostgreSQLServer()
    yield running
    running.remove()


@pytest.fixture
def any_store(postgresql: PostgreSQLServer) -> str:
    """The URL of an empty store, for the tests of every store."""
    postgresql.in_store("DROP TABLE IF EXISTS devkit_sso_record")
    return postgresql.url


@pytest.fixture
def store(any_store: str) -> PostgreSQLStore:
    return PostgreSQLStore(any_store)


@pytest.fixture
def own_server() -> Iterator[PostgreSQLServer]:
    """A server that a test may stop or change."""
    running = PostgreSQLServer()
    yield running
    running.remove()


def store_backends(server: PostgreSQLServer) -> list[int]:
    rows = server.admin("SELECT pid FROM pg_stat_activity WHERE usename = 'sso' ORDER BY pid")
    return [pid for (pid,) in rows]


def test_a_user_with_many_sessions(any_store: str, make_app: AppMaker) -> None:
    test_scale.test_a_user_with_many_sessions(any_store, make_app, 600)


# Connections


def test_a_restart_fails_no_request(own_server: PostgreSQLServer, make_app: AppMaker) -> None:
    # SIGQUIT ends PostgreSQL as a crash does.
    ways = (signal.SIGINT, signal.SIGQUIT)
    app = make_app(store_url=own_server.url)
    check_restart(app, *[partial(own_server.restart, how) for how in ways])


def test_a_host_that_swallows_packets_does_not_fail_the_first_call(
    postgresql: PostgreSQLServer, swallow: Callable[[str, int], None]
) -> None:
    """As one that has lost its power does. Nor does one that refuses connections."""
    port = free_port()
    swallow("127.0.0.2", port)
    _, _, address = postgresql.url.partition("@")
    hosts = f"127.0.0.2:{port},127.0.0.1:{free_port()},{address}"
    store = PostgreSQLStore(postgresql.url.replace(address, hosts))
    assert store.add("s", "1", expires=in_a_minute())
    assert store.read("s")


def test_a_repeated_call_returns_the_lost_result(
    postgresql: PostgreSQLServer, store: PostgreSQLStore
) -> None:
    """PostgreSQL carried out the first call; the repeated one must not report that the key
    exists."""
    assert store.add("warm", "up", expires=in_a_minute())
    proxy = Proxy(postgresql)
    store = PostgreSQLStore(f"{proxy.url}?sslmode=disable")
    assert store.read("warm")

    def lose(call: Callable[[], Any]) -> Any:
        before = proxy.lost
        proxy.lose.set()
        result = call()
        assert proxy.lost == before + 1
        return result

    assert lose(lambda: store.add("k", "1", expires=in_a_minute(), owner="o"))
    assert not store.add("k", "2", expires=in_a_minute(), owner="o")
    store.add("l", "2", expires=in_a_minute(), owner="o")
    assert lose(lambda: store.update("k", "3"))
    assert lose(lambda: store.read("k")).data == "3"
    assert lose(lambda: store.remove("k", data="3")) == "3"
    assert store.remove("k") is None
    # The index of the owner is read first, so lose the reply of the second statement.
    store.add("k", "4", expires=in_a_minute(), owner="o")

    def lose_removal(request: bytes) -> None:
        if b"SET expires" in request:
            proxy.on_request = lambda request: None
            proxy.lose.set()

    proxy.on_request = lose_removal
    assert sorted(store.remove_owner("o")) == ["2", "4"]
    assert proxy.lost == 5
    assert postgresql.in_store("SELECT key FROM devkit_sso_record") == [("warm",)]
    proxy.close()


def test_connections_that_end_under_load_fail_no_call(
    postgresql: PostgreSQLServer, store: PostgreSQLStore
) -> None:
    store.add("warm", "up", expires=in_a_minute())
    has_ended = threading.Event()
    ended = 0

    def work(number: int) -> None:
        key = f"k{number}"
        for turn in range(25):
            assert store.add(key, str(turn), expires=in_a_minute(), owner="o")
            row = store.read(key)
            assert row is not None
            assert row.data == str(turn)
            assert store.remove(key) == str(turn)

    def interfere() -> None:
        nonlocal ended
        while not has_ended.is_set():
            ended += postgresql.disconnect()
            # A call whose second connection ends too is not repeated once more.
            has_ended.wait(0.3)

    interfering = Background(interfere)
    try:
        at_once([partial(work, number) for number in range(6)])
    finally:
        has_ended.set()
        interfering.result()
    assert ended
    assert store.of_owner("o") == {}


def test_a_forked_process_has_its_own_connections(
    postgresql: PostgreSQLServer, store: PostgreSQLStore
) -> None:
    store.add("k", "1", expires=in_a_minute())
    before = store_backends(postgresql)
    pid = os.fork()
    if pid == 0:
        is_right = store.read("k") is not None and store.update("k", "2")
        is_right &= set(before) < set(store_backends(postgresql))
        os._exit(0 if is_right else 1)
    assert os.waitpid(pid, 0)[1] == 0
    row = store.read("k")
    assert row is not None
    assert row.data == "2"
    wait_until(lambda: store_backends(postgresql) == before)


def test_pgbouncer(postgresql: PostgreSQLServer, any_store: str, make_app: AppMaker) -> None:
    """Each statement may get another connection to PostgreSQL."""
    with pgbouncer(postgresql) as url:
        store = PostgreSQLStore(url)
        at_once(
            [partial(store.add, str(n), "1", expires=in_a_minute(), owner="o") for n in range(20)]
        )
        assert len(store.remove_owner("o")) == 20
        client = make_app(store_url=url).test_client()
        sign_in(client)
        postgresql.disconnect()
        assert client.get("/private").text == "private ada"


@contextmanager
def pgbouncer(server: PostgreSQLServer) -> Iterator[str]:
    port = free_port()
    config = server.folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\nsso = host=127.0.0.1 port={server.port} user=sso password={server.password}"
        f"\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\n"
        "unix_socket_dir =\npool_mode = transaction\ndefault_pool_size = 2\n"
    )
    command = [*unprivileged(), "/usr/sbin/pgbouncer", "--quiet", str(config)]
    process = subprocess.Popen(command, cwd="/", stderr=subprocess.DEVNULL)
    url = f"postgresql://sso@127.0.0.1:{port}/sso?sslmode=disable"
    try:
        wait_until(lambda: can_connect(url))
        yield url
    finally:
        process.terminate()
        process.wait(60)


def can_connect(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


# Faults


@contextmanager
def stopped(server: PostgreSQLServer) -> Iterator[None]:
    server.stop(signal.SIGQUIT)
    yield
    server.start()


@contextmanager
def hung(server: PostgreSQLServer) -> Iterator[None]:
    """Let PostgreSQL accept connections and requests without responding."""
    pids = [server.process_id, *store_backends(server)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    yield
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    server.wait()


@contextmanager
def wrong_password(server: PostgreSQLServer) -> Iterator[None]:
    server.admin("ALTER ROLE sso PASSWORD 'another'")
    server.disconnect()
    yield
    server.admin(f"ALTER ROLE sso PASSWORD '{server.password}'")


@contextmanager
def locked(server: PostgreSQLServer) -> Iterator[None]:
    with server.connect("sso") as connection, connection.transaction():
        connection.execute("LOCK TABLE devkit_sso_record")
        yield


@pytest.mark.parametrize("fault", [stopped, hung, wrong_password, locked])
def test_unusable(
    own_server: PostgreSQLServer,
    make_app: AppMaker,
    fault: Callable[[PostgreSQLServer], Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = make_app(store_url=own_server.url)
    client = app.test_client()
    sign_in(client)
    with fault(own_server):
        check_reads_fail(client)
        check_writes_fail(client, app.test_client())
        if fault is locked:
            # Nobody waits for them any more, and they would use up PostgreSQL's connections.
            wait_until(lambda: not waiting_backends(own_server))
    check_recovery(client, app.test_client())
    assert own_server.password not in caplog.text


def waiting_backends(server: PostgreSQLServer) -> list[Any]:
    return server.admin(
        "SELECT pid FROM pg_stat_activity WHERE usename = 'sso' AND wait_event_type = 'Lock'"
    )


@pytest.mark.parametrize("write", [False, True])
def test_four_callers_wait(
    postgresql: PostgreSQLServer, store: PostgreSQLStore, write: bool
) -> None:
    store.add("key", "old", expires=time.time() + 3600)
    assert store.read("key")
    with locked(postgresql):
        assert refuse(store, write=write) == {True: 4, False: CALLERS - 4}
    assert at_once([lambda: store.update("key", "new")] * CALLERS) == [True] * CALLERS


def test_another_server_becomes_the_primary(
    postgresql: PostgreSQLServer, own_server: PostgreSQLServer
) -> None:
    own_server.admin(f"ALTER ROLE sso PASSWORD '{postgresql.password}'")
    hosts = f"127.0.0.1:{own_server.port},127.0.0.1:{postgresql.port}"
    store = PostgreSQLStore(f"postgresql://sso:{postgresql.password}@{hosts}/sso")
    assert store.add("failover", "1", expires=in_a_minute())
    own_server.admin("ALTER SYSTEM SET default_transaction_read_only = on")
    own_server.admin("SELECT pg_reload_conf()")
    wait_until(lambda: own_server.admin("SHOW default_transaction_read_only") == [("on",)])
    assert store.add("failover", "2", expires=in_a_minute())
    row = store.read("failover")
    assert row is not None
    assert row.data == "2"


def test_expired_records_are_deleted(postgresql: PostgreSQLServer, store: PostgreSQLStore) -> None:
    for number in range(300):
        store.add(str(number), "1", expires=time.time() + 1)
    advance(EVERY + 70)
    store.add("k", "1", expires=time.time() + 3600)
    wait_until(lambda: postgresql.in_store("SELECT key FROM devkit_sso_record") == [("k",)])


# What is wrong, without the driver's messages


def failure(url: str) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        PostgreSQLStore(url).add("k", "1", expires=in_a_minute())
    assert caught.value.__cause__ is caught.value.__context__ is None
    return str(caught.value)


def test_what_is_wrong(postgresql: PostgreSQLServer, any_store: str) -> None:
    url, password, port = any_store, postgresql.password, str(postgresql.port)
    name = "The session store in PostgreSQL"
    assert f"{name} cannot be reached. Check" in failure(url.replace(port, str(free_port())))
    assert f"{name} refuses the user or pass" in failure(url.replace(password, "canary"))
    assert f"{name} has no such database" in failure(f"{url}-canary")
    assert "host name has no address" in failure(url.replace("127.0.0.1", "canary.invalid"))
    assert "certificate cannot be verified" in failure(f"{url}?sslmode=verify-full")
    with_ca = f"{url}?sslmode=verify-full&sslrootcert={postgresql.authority}"
    assert PostgreSQLStore(with_ca).add("k", "1", expires=in_a_minute())
    other_name = with_ca.replace("@127.0.0.1", "@canary").replace("?", "?hostaddr=127.0.0.1&")
    assert "name the host as its certificate does" in failure(other_name)
    postgresql.in_store("DROP TABLE devkit_sso_record")
    postgresql.in_store("CREATE TABLE devkit_sso_record (key text)")
    assert "of another program or version. Rename" in failure(url)
    postgresql.in_store("DROP TABLE devkit_sso_record")
    postgresql.admin("CREATE ROLE guest LOGIN PASSWORD 'canary'")
    assert "CREATE on the schema" in failure(url.replace("sso:" + password, "guest:canary"))
    assert PostgreSQLStore(url).add("k", "1", expires=in_a_minute())
    assert "SELECT, INSERT" in failure(url.replace("sso:" + password, "guest:canary"))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://:canary-pw@host/a/b",
        "postgresql://user:canary-pw@host:port/a",
        "postgresql://user:canary/pw@host/a",
        "postgresql://user:canary%zzpw@host/a",
        "postgresql://user:canary-pw@host/a?no_such_option=1",
        "postgresql://user:canary-pw@host/a?sslmode=maybe",
        "postgresql://user:canary-pw@host/a#1",
        "postgres://user:canary-pw@host/a",
    ],
)
def test_an_invalid_url_is_refused_at_startup(make_app: AppMaker, url: str) -> None:
    check_refused_url(make_app, url)


def test_doctor(postgresql: PostgreSQLServer, any_store: str, tmp_path: Path) -> None:
    place = Place(tmp_path)

    def doctor(url: str) -> str:
        output = place.run(
            "doctor", **settings(SERVER_URL="http://127.0.0.1:9", STORE_URL=url)
        ).stdout
        assert postgresql.password not in output
        return output

    assert "ok       store: PostgreSQL is readable and writable" in doctor(any_store)
    assert postgresql.in_store("SELECT key FROM devkit_sso_record") == []
    with_ca = f"?sslmode=verify-full&sslrootcert={postgresql.authority}"
    for host, options, is_error in (
        ("localhost", "", False),
        ("localhost", with_ca, False),
        ("postgresql.invalid", with_ca, False),
        ("postgresql.invalid", "", True),
        ("postgresql.invalid", with_ca.replace("-full", "-ca"), True),
        ("postgresql.invalid", with_ca.replace("verify-full", "require"), True),
    ):
        output = doctor(any_store.replace("127.0.0.1", host) + options)
        assert ("error    store: anybody in between can pretend" in output) is is_error, output
    postgresql.in_store("REVOKE DELETE ON devkit_sso_record FROM sso")
    assert "does not let its user do this\n         Fix: Its user needs SELECT" in doctor(any_store)
