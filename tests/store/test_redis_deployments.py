"""Redis as people run it: with replicas and failovers, restricted users, TLS, and as a cluster."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from flask_devkit_sso import DevKitSSO, StoreUnavailable
from flask_devkit_sso.store.redis import RedisStore
from flask_devkit_sso.store.redis_errors import PERMISSIONS
from flask_devkit_sso.testing import login_as

from ..cli.place import Place, settings
from ..conftest import AppMaker, sign_in
from ..processes import free_port
from ..redis_server import REDIS_SERVER, Proxy, RedisServer
from .test_stores import data_of, in_a_minute

pytestmark = pytest.mark.redis


@pytest.fixture(params=[REDIS_SERVER])
def program(request: pytest.FixtureRequest) -> str:
    """The program; `make integration` tries others."""
    return str(request.param)


@pytest.fixture
def primary(tmp_path: Path, program: str) -> Iterator[RedisServer]:
    running = RedisServer(tmp_path / "primary", program=program)
    yield running
    running.stop()


@pytest.fixture
def replica(tmp_path: Path, program: str, primary: RedisServer) -> Iterator[RedisServer]:
    running = RedisServer(tmp_path / "replica", program=program, primary=primary)
    primary.wait_for_replica()
    yield running
    running.stop()


# Replicas


def fail_over(primary: RedisServer, replica: RedisServer) -> None:
    with replica.admin() as new, primary.admin() as old:
        new.replicaof("NO", "ONE")
        old.replicaof("127.0.0.1", str(replica.port))


def test_a_failover_behind_one_address(primary: RedisServer, replica: RedisServer) -> None:
    """Connections to the old primary stay open."""
    proxy = Proxy(primary)
    store = RedisStore(proxy.url)
    assert store.add("k", "1", expires=in_a_minute(), owner="o")
    assert data_of(store, "k") == "1"
    primary.wait_for_replica()
    fail_over(primary, replica)
    proxy.switch(replica)
    assert store.update("k", "2"), "no call fails"
    with primary.admin() as admin:
        # Nothing is read from there any more.
        admin.config_resetstat()
        assert data_of(store, "k") == "2"
        assert "cmdstat_hmget" not in admin.info("commandstats")
    assert store.remove_owner("o") == ["2"]
    proxy.close()


def test_an_isolated_primary_that_refuses_writes(
    primary: RedisServer, replica: RedisServer
) -> None:
    """With min-replicas-to-write, a primary without replicas learns late that it is none."""
    proxy = Proxy(primary)
    store = RedisStore(proxy.url)
    assert store.add("k", "1", expires=in_a_minute())
    assert data_of(store, "k") == "1"
    primary.wait_for_replica()
    primary.config(min_replicas_to_write="2")
    with replica.admin() as new:
        new.replicaof("NO", "ONE")
    proxy.switch(replica)
    assert store.update("k", "2"), "no call fails"
    assert data_of(store, "k") == "2"
    proxy.close()


def test_connections_that_end_often(primary: RedisServer) -> None:
    """redis-py's pools allow 100 connections by default, and count them while they exist."""
    store = RedisStore(primary.url)
    with primary.admin() as admin:
        for _ in range(110):
            assert store.read("k") is None
            admin.client_kill_filter(_type="normal", skipme=True)
    assert store.add("k", "1", expires=in_a_minute())


def test_a_removal_that_no_replica_confirms(
    primary: RedisServer,
    replica: RedisServer,
    make_app: AppMaker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sso = DevKitSSO()
    app = make_app(sso, store_url=primary.url)
    client, other = app.test_client(), app.test_client()
    sign_in(client)
    login_as(other, "bob", uid="many")
    origin = {"Sec-Fetch-Site": "same-origin"}
    with paused(replica):
        assert client.post("/sso/logout", headers=origin).status_code == 303
        assert "no replica has confirmed it: a failover could undo it" in caplog.text
        for _ in range(2):
            with app.app_context(), pytest.raises(StoreUnavailable, match="Do it again"):
                sso.end_sessions("many")
        assert other.get("/who").json["username"] is None
    caplog.clear()
    with app.app_context():
        assert sso.end_sessions("many") == 0
    sign_in(client)
    assert client.post("/sso/logout", headers=origin).status_code == 303
    assert caplog.text == ""


class paused:
    """Stop a server for a while."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server

    def __enter__(self) -> None:
        self._server.send_signal(signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        self._server.send_signal(signal.SIGCONT)


# Restricted users


def restricted(server: RedisServer, *rules: str) -> RedisStore:
    with server.admin() as admin:
        admin.execute_command("ACL", "SETUSER", "sso", "reset", "on", ">canary", *rules)
    return RedisStore(f"redis://sso:canary@127.0.0.1:{server.port}/1")


def test_what_the_docs_allow_is_enough(primary: RedisServer, tmp_path: Path) -> None:
    restricted(primary, *PERMISSIONS.split())
    url = f"redis://sso:canary@127.0.0.1:{primary.port}/1"
    place = Place(tmp_path)
    environment = settings(SERVER_URL="http://127.0.0.1:9", STORE_URL=url)
    done = place.run("doctor", **environment)
    assert "ok       store: Redis is readable and writable" in done.stdout
    assert "note     maxmemory-policy: cannot tell, because" in done.stdout
    primary.config(maxmemory_policy="allkeys-lru")
    restricted(primary, *PERMISSIONS.split(), "+info")
    done = place.run("doctor", **environment)
    assert "warning  maxmemory-policy: allkeys-lru: " in done.stdout
    restricted(primary, *PERMISSIONS.split(), "-scan")
    done = place.run("doctor", **environment)
    assert (
        "error    store: The session store in Redis does not give its user the permission +scan"
        in (done.stdout)
    )


CALLS: dict[str, Callable[[RedisStore], object]] = {
    "hmget": lambda store: store.read("k"),
    "eval": lambda store: store.add("k", "1", expires=in_a_minute()),
    "hset": lambda store: store.add("k", "1", expires=in_a_minute()),
    "zscan": lambda store: store.of_owner("o"),
    "zrange": lambda store: store.remove_owner("o"),
    "role": lambda store: store.remove("k", lasting=True),
}


def test_a_missing_permission_is_named(primary: RedisServer) -> None:
    for command, call in CALLS.items():
        store = restricted(primary, *PERMISSIONS.split(), f"-{command}")
        with pytest.raises(StoreUnavailable) as caught:
            call(store)
        # Some versions do not say which command a script may not use.
        assert f"the permission +{command}" in caught.value.text or command == "hset"
        assert f"Allow this in its ACL: {PERMISSIONS}" in caught.value.fix
    store = restricted(primary, *PERMISSIONS.replace("devkit_sso", "other").split())
    with pytest.raises(StoreUnavailable, match="the keys ~devkit_sso:"):
        store.read("k")


# Addresses


def failure(url: str) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        RedisStore(url).add("k", "1", expires=in_a_minute())
    return str(caught.value)


def test_a_cluster_is_refused_by_name(tmp_path: Path, program: str) -> None:
    server = RedisServer(tmp_path / "cluster", program=program, cluster_enabled="yes")
    try:
        assert "is a Redis Cluster, which is not supported" in failure(server.url)
        if program == REDIS_SERVER:
            # A cluster of Valkey may have several databases.
            assert "is a Redis Cluster, which is" in failure(server.url.replace("/0", "/1"))
    finally:
        server.stop()


def test_problems_with_tls(tmp_path: Path) -> None:
    authority, port = trustme.CA(), free_port()
    certificate = authority.issue_cert("127.0.0.1")
    files = {name: str(tmp_path / f"{name}.pem") for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(files["ca"])
    certificate.cert_chain_pems[0].write_to_path(files["cert"])
    certificate.private_key_pem.write_to_path(files["key"])
    server = RedisServer(
        tmp_path / "tls",
        tls_port=str(port),
        tls_cert_file=files["cert"],
        tls_key_file=files["key"],
        tls_ca_cert_file=files["ca"],
        tls_auth_clients="no",
    )
    url = f"rediss://:{server.password}@127.0.0.1:{port}/0"
    with_ca = f"{url}?ssl_ca_certs={files['ca']}"
    try:
        assert "certificate cannot be verified. Name its CA" in failure(url)
        assert "certificate is for another host name" in failure(
            with_ca.replace("127.0.0.1", "localhost")
        )
        assert "use rediss://" in failure(url.replace("rediss", "redis"))
    finally:
        server.stop()
