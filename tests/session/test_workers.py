"""Several workers, threads and people at once, under gunicorn."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import requests

from .. import processes
from ..processes import Person
from ..threads import at_once

pytestmark = pytest.mark.slow

PEOPLE = {f"person-{n}": (f"u-{n}", "Admin" if n % 2 else "User") for n in range(8)}
"""Name → uid and role."""


class Gunicorn:
    """An application under gunicorn, with two workers of four threads."""

    def __init__(self, url: str, process: subprocess.Popen[bytes]) -> None:
        self.url = url
        self._process = process

    def workers(self) -> set[int]:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return {int(pid) for pid in children.read_text().split()}

    def kill_workers(self) -> None:
        """kill -9 of all workers; returns when two others are there."""
        killed = self.workers()
        assert len(killed) == 2
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + 120
        while len(self.workers() - killed) < 2 or self.workers() & killed:
            assert time.monotonic() < until
            time.sleep(0.05)
        processes.wait_for(self.url, self._process)


@pytest.fixture(params=[False, True], ids=["fork", "preload"])
def gunicorn(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Gunicorn]:
    port = processes.free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = ["--bind", f"127.0.0.1:{port}", "--workers", "2", "--threads", "4"]
    # Kept connections would keep each person at one worker.
    arguments += ["--keep-alive", "0", *(["--preload"] if request.param else [])]
    with processes.sandbox("--redirect-uri", f"{url}/sso/callback") as exported:
        settings = {f"DEVKIT_SSO_{name}": v for name, v in exported.items() if name != "text"}
        for username, (uid, role) in PEOPLE.items():
            requests.post(
                exported["SERVER_URL"] + "/_sandbox/people",
                json={"username": username, "uid": uid, "role": role},
                timeout=10,
            ).raise_for_status()
        with (
            (tmp_path / "log").open("wb") as log,
            subprocess.Popen(
                [sys.executable, "-m", "gunicorn", *arguments, "tests.apps:create_app()"],
                cwd=processes.ROOT,
                env=processes.environment(SECRET_KEY=os.urandom(16).hex(), **settings)
                | {"INSTANCE": str(tmp_path / "instance")},
                stderr=log,
            ) as process,
        ):
            try:
                processes.wait_for(url, process)
                yield Gunicorn(url, process)
            finally:
                process.terminate()
                process.wait(60)


@pytest.fixture
def people() -> Iterator[list[Person]]:
    made = [Person(username) for username in PEOPLE]
    yield made
    for person in made:
        person.close()


def mistakes(person: Person, who: requests.Response) -> list[str]:
    """Return what is wrong in the answer to who somebody is."""
    if who.status_code != 200:
        return [f"{person.username}: HTTP {who.status_code} {who.text}"]
    uid, role = PEOPLE[person.username]
    found = who.json()
    del found["pid"]
    expected = {"username": person.username, "uid": uid, "role": role}
    return [] if found == expected else [f"{expected}: {found}"]


# `make hours` has the hundred rounds.
@pytest.mark.parametrize("rounds", [10, pytest.param(100, marks=pytest.mark.hours)])
def test_eight_people_sign_in_at_once(
    gunicorn: Gunicorn, people: list[Person], rounds: int
) -> None:
    workers: set[int] = set()

    def sign_in_often(person: Person) -> list[str]:
        wrong = []
        for _ in range(rounds):
            person.forget()
            who = person.sign_in(gunicorn.url, "/who")
            wrong += mistakes(person, who)
            workers.add(who.json()["pid"])
        return wrong

    found = at_once([partial(sign_in_often, person) for person in people])
    assert [wrong for mistakes in found for wrong in mistakes] == []
    assert workers == gunicorn.workers()


def test_killed_workers_lose_nothing(gunicorn: Gunicorn, people: list[Person]) -> None:
    early, late = people[:4], people[4:]
    for person in early:
        assert mistakes(person, person.sign_in(gunicorn.url, "/who")) == []
    back = [person.way_back(person.start(gunicorn.url, "/who")) for person in late]
    gunicorn.kill_workers()
    for person, address in zip(late, back, strict=True):
        assert mistakes(person, person.get(address)) == []
    for person in early:
        assert mistakes(person, person.get(f"{gunicorn.url}/who")) == []
