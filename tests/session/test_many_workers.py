"""Workers and stores that die under load: confirmed sessions survive, and no user is mixed up.

Gunicorn with two workers, a sandbox as a process, a real redis-server.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from ..conftest import wait_until
from ..processes import free_port
from ..redis_server import RedisServer
from ..threads import Background
from ..workers import Gunicorn, Person, Unavailable, load, redirect_uri, sandbox, site

pytestmark = pytest.mark.slow


def faults_every(seconds: float, what: Callable[[], None]) -> Callable[[], None]:
    def fault() -> None:
        time.sleep(seconds)
        what()

    return fault


# The suite runs both tests briefly; `make hours` runs them for longer.
@pytest.mark.parametrize("seconds", [4, pytest.param(10, marks=pytest.mark.hours)])
def test_workers_killed_each_second(any_store: str, seconds: float) -> None:
    with site(any_store) as [instance]:
        tally = load(instance.url, seconds, 4, faults_every(1, instance.kill_a_worker))
    assert (tally.lost, tally.wrong, tally.errors) == (0, 0, {})
    assert tally.unanswered > 0, "workers were killed"
    assert tally.logins >= 4, "everybody signed in"


@pytest.mark.redis
@pytest.mark.parametrize("seconds", [4, pytest.param(10, marks=pytest.mark.hours)])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_redis_restarted_under_load(tmp_path: Path, how: signal.Signals, seconds: float) -> None:
    redis = RedisServer(tmp_path, appendonly=True)
    try:
        with site(redis.url) as [instance]:
            restart = faults_every(seconds / 3, lambda: redis.restart(how))
            tally = load(instance.url, seconds, 4, restart)
    finally:
        redis.stop()
    assert (tally.lost, tally.wrong) == (0, 0)
    assert set(tally.errors) <= {503}
    assert tally.logins >= 4, "everybody signed in"


@pytest.mark.own_redis
def test_redis_without_persistence_signs_everybody_out(redis_server: RedisServer) -> None:
    with site(redis_server.url) as [instance]:
        people = [Person(name, instance.url) for name in ("ada", "bob")]
        for person in people:
            assert person.sign_in()
        redis_server.restart(signal.SIGKILL)
        for person in people:
            assert person.who()["username"] is None
            assert person.sign_in()
            assert person.who()["username"] == person.username


def test_two_instances_on_one_store(any_store: str) -> None:
    with site(any_store, 2) as [here, there]:
        person = Person("ada", here.url)
        assert person.sign_in()
        elsewhere = person.copy(there.url)
        uid = elsewhere.who()["uid"]
        assert elsewhere.who()["username"] == "ada"
        assert elsewhere.sign_out()
        assert person.who()["username"] is None
        people = [Person("ada", here.url) for _ in range(3)]
        assert all(someone.sign_in() for someone in people)
        bob = Person("bob", here.url)
        assert bob.sign_in()
        answer = elsewhere.post(f"/end/{uid}")
        assert answer.json() == {"ended": 3}
        assert [someone.who()["username"] for someone in (*people, bob)] == [None] * 3 + ["bob"]


def test_a_logout_survives_the_death_of_its_worker(tmp_path: Path) -> None:
    """The worker is killed while it waits for the server; another one sends the logout again."""
    port = free_port()
    clock = tmp_path / "clock"
    clock.write_text("0 0")

    def logouts() -> int:
        calls = requests.get(f"{server_url}/_sandbox/calls", timeout=60).json()
        return sum(call["interface"] == "logout" for call in calls)

    with (
        sandbox(redirect_uri(port)) as server_url,
        Gunicorn(
            server_url, f"sqlite:///{tmp_path}/sessions.db", port=port, clock=clock, timeout="2"
        ) as instance,
    ):
        person = Person("ada", instance.url)
        assert person.sign_in()
        copy = person.copy()
        fault = {"interface": "logout", "how": "hang"}
        requests.post(f"{server_url}/_sandbox/fail-next", json=fault, timeout=60)
        leaving = Background(person.sign_out)
        wait_until(logouts)
        instance.kill_workers(2)
        with pytest.raises(Unavailable) as caught:
            leaving.result()
        assert caught.value.status == 0, "there was no response"
        assert copy.who()["username"] is None
        # Advance by a minute, which is longer than the interval between two reports.
        new = clock.with_suffix(".new")
        new.write_text("60 0")
        new.rename(clock)

        def is_reported_again() -> bool:
            # The new worker's clock jumps, so it may close the idle connection at this moment.
            with suppress(Unavailable):
                copy.who()
            return logouts() >= 2

        wait_until(is_reported_again)


def test_two_installations_are_independent(redis_server: RedisServer) -> None:
    """They share a host, a Redis, a cookie name and a SECRET_KEY."""
    ports = [free_port(), free_port()]
    store = redis_server.url
    with (
        sandbox(*map(redirect_uri, ports)) as server_url,
        Gunicorn(server_url, store, port=ports[0], cookie_name="shared") as one,
        Gunicorn(server_url, store, port=ports[1], cookie_name="shared") as other,
    ):
        ada, bob = Person("ada", one.url), Person("ada", other.url)
        assert ada.sign_in()
        assert ada.copy(other.url).who()["username"] is None
        assert bob.sign_in()
        uid = ada.who()["uid"]
        assert bob.post(f"/end/{uid}").json() == {"ended": 1}
        assert ada.who()["username"] == "ada"
        assert bob.who()["username"] is None
