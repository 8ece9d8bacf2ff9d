"""Redis behind three real Sentinels."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from flask_devkit_sso import StoreUnavailable
from flask_devkit_sso.store.redis import RedisStore
from flask_devkit_sso.store.redis_client import create_client

from ..cli.place import Place, settings
from ..conftest import AppMaker, carry_cookies, sign_in, wait_until
from ..processes import free_port
from ..redis_server import RedisServer
from ..sentinels import Sentinels
from ..threads import Background, at_once
from .test_stores import check_refused_url, data_of, in_a_minute

pytestmark = [pytest.mark.redis, pytest.mark.slow]


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    running = Sentinels(tmp_path_factory.mktemp("sentinels"))
    yield running
    running.stop()


def test_everything_happens_at_the_primary(sentinels: Sentinels, make_app: AppMaker) -> None:
    for replica in sentinels.replicas():
        with replica.admin() as admin:
            admin.config_resetstat()
    app = make_app(store_url=sentinels.url)
    client, copy = app.test_client(), app.test_client()
    sign_in(client)
    carry_cookies(client, copy)
    assert copy.get("/private").text == "private ada"
    client.post("/sso/logout", headers={"Sec-Fetch-Site": "same-origin"})
    assert copy.get("/private").status_code == 302
    for replica in sentinels.replicas():
        with replica.admin() as admin:
            assert "cmdstat_hmget" not in admin.info("commandstats")


def test_no_sentinel_is_forgotten(sentinels: Sentinels) -> None:
    """Threads that ask at the same time while the first one is down must not lose it."""
    first, second = (f"127.0.0.1:{port}" for port in (sentinels.ports[0], free_port()))
    pool: Any = create_client(sentinels.url.replace(first, second)).connection_pool

    def asked() -> set[int]:
        kept = pool.sentinel_manager.sentinels
        return {client.connection_pool.connection_kwargs["port"] for client in kept}

    every = asked()
    assert len(every) == 3
    assert len(set(at_once([pool.get_master_address] * 8))) == 1
    assert asked() == every


def test_doctor_looks_at_the_primarys_policy(sentinels: Sentinels, tmp_path: Path) -> None:
    configured = settings(SERVER_URL="http://127.0.0.1:1", STORE_URL=sentinels.url)
    primary, place = sentinels.primary(), Place(tmp_path)
    primary.config(maxmemory_policy="allkeys-random")
    assert "warning  maxmemory-policy: allkeys-random: " in place.run("doctor", **configured).stdout
    primary.config(maxmemory_policy="noeviction")
    assert "ok       maxmemory-policy: noeviction" in place.run("doctor", **configured).stdout


def test_a_failover_under_load(sentinels: Sentinels) -> None:
    """Calls fail until there is a new primary. What was confirmed by a replica is still there."""
    store = RedisStore(sentinels.url)
    written: dict[str, str] = {}
    has_ended = threading.Event()

    def work(number: int) -> None:
        turn = 0
        while not has_ended.is_set():
            turn += 1
            key = f"{number}-{turn}"
            try:
                store.add(key, key, expires=in_a_minute() + 600, owner="o")
                row = store.read(key)
            except StoreUnavailable:
                continue
            assert row is None or row.data == key
            written[key] = key

    working = [Background(partial(work, number)) for number in range(4)]
    old = sentinels.fail_over(signal.SIGKILL)
    has_recovered = len(written)
    wait_until(lambda: len(written) > has_recovered + 50)
    has_ended.set()
    for one in working:
        one.result()
    kept = store.of_owner("o")
    lost = written.keys() - kept.keys()
    # Replication is asynchronous: at most what each thread had just written.
    assert len(lost) <= 20
    assert len(store.remove_owner("o")) == len(kept)
    # Sentinels would make it a replica too, ten seconds later.
    old.start(replicaof=f"127.0.0.1 {sentinels.primary().port}")


def _is_replica(server: RedisServer) -> bool:
    try:
        with server.admin() as admin:
            found = admin.info("replication")
    except redis.exceptions.ConnectionError:
        # A Sentinel closes all connections when it demotes a server.
        return False
    return (found["role"], found.get("master_link_status")) == ("slave", "up")


@pytest.mark.hours
def test_a_demoted_primary_is_not_read(sentinels: Sentinels) -> None:
    store = RedisStore(sentinels.url)
    assert store.add("demoted", "1", expires=in_a_minute())
    rows = at_once([lambda: store.read("demoted")] * 8)
    assert {row and row.data for row in rows} == {"1"}
    old = sentinels.fail_over()
    wait_until(lambda: _is_replica(old))
    with old.admin() as admin:
        admin.config_resetstat()
        _retry(lambda: store.update("demoted", "2"))
        rows = at_once([lambda: store.read("demoted")] * 8)
        assert {row and row.data for row in rows} == {"2"}
        assert "cmdstat_hmget" not in admin.info("commandstats")


def test_a_former_primary_that_does_not_know_it_is_not_read(sentinels: Sentinels) -> None:
    """It continues where it was paused, and Sentinels demote it only ten seconds later."""
    store = RedisStore(sentinels.url)
    assert store.add("paused", "1", expires=in_a_minute())
    assert data_of(store, "paused") == "1"
    old = sentinels.primary()
    old.wait_for_replica()
    old.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: sentinels.primary() is not old)
        with sentinels.primary().admin() as admin:
            admin.delete("devkit_sso:paused")
    finally:
        old.send_signal(signal.SIGCONT)
    _retry(lambda: store.read("paused") is None)
    assert not _is_replica(old), "it was read for too long"
    wait_until(lambda: _is_replica(old))


def _retry(call: object) -> None:
    def try_it() -> bool:
        try:
            return bool(call())  # type: ignore[operator]
        except StoreUnavailable:
            return False

    wait_until(try_it)


def test_a_dead_sentinel_changes_nothing(sentinels: Sentinels) -> None:
    url = sentinels.url.replace(f"127.0.0.1:{sentinels.ports[0]}", "127.0.0.1:1")
    store = RedisStore(url)
    assert store.add("k", "1", expires=time.time() + 60)
    assert data_of(store, "k") == "1"
    assert store.remove("k", lasting=True) == "1"


def test_what_is_wrong(sentinels: Sentinels) -> None:
    for wrong in (
        sentinels.url.replace("/sso/", "/other/"),
        sentinels.url.replace(Sentinels.PASSWORD, "canary"),
        "redis+sentinel://127.0.0.1:1,127.0.0.1:2/sso/0",
    ):
        with pytest.raises(StoreUnavailable, match="has no primary: no Sentinel") as caught:
            RedisStore(wrong).read("k")
        assert "canary" not in str(caught.value)
    url = sentinels.url.replace("@", "wrong@", 1)
    with pytest.raises(StoreUnavailable, match="refuses the user or password"):
        RedisStore(url).read("k")


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://:canary-pw@host",
        "redis+sentinel://:canary-pw@host/service/database",
        "redis+sentinel://:canary-pw@host:port/service",
        "redis+sentinel://:canary-pw@host,/service",
        "redis+sentinel://:canary/pw@host/service/0",
        "redis+sentinel://:canary-pw@host/service/0?no_such_option=canary",
    ],
)
def test_an_invalid_url_is_refused_at_startup(make_app: AppMaker, url: str) -> None:
    check_refused_url(make_app, url)
