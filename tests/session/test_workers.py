"""Several workers, threads and people at once, under gunicorn."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import requests

from ..processes import Person, free_port
from ..threads import at_once
from ..workers import Gunicorn, redirect_uri, sandbox

pytestmark = pytest.mark.slow

PEOPLE = {f"person-{n}": (f"u-{n}", "Admin" if n % 2 else "User") for n in range(8)}
"""Username: uid and role."""


@pytest.fixture(params=[False, True], ids=["fork", "preload"])
def gunicorn(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Gunicorn]:
    port = free_port()
    # With keep-alive, each person would stay with one worker.
    options = ["--keep-alive", "0", *(["--preload"] if request.param else [])]
    store = f"sqlite:///{tmp_path}/sessions.db"
    with sandbox(redirect_uri(port)) as server_url:
        for username, (uid, role) in PEOPLE.items():
            requests.post(
                server_url + "/_sandbox/people",
                json={"username": username, "uid": uid, "role": role},
                timeout=60,
            ).raise_for_status()
        with Gunicorn(server_url, store, port=port, options=options) as running:
            yield running


@pytest.fixture
def people() -> Iterator[list[Person]]:
    created = [Person(username) for username in PEOPLE]
    yield created
    for person in created:
        person.close()


def mistakes(person: Person, who: requests.Response) -> list[str]:
    """Return the errors in a response that shows the signed-in user."""
    if who.status_code != 200:
        return [f"{person.username}: HTTP {who.status_code} {who.text}"]
    uid, role = PEOPLE[person.username]
    found = who.json()
    del found["pid"]
    expected = {"username": person.username, "uid": uid, "role": role}
    return [] if found == expected else [f"{expected}: {found}"]


# `make hours` runs the hundred rounds.
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
    assert workers == set(gunicorn.workers())


def test_killed_workers_lose_nothing(gunicorn: Gunicorn, people: list[Person]) -> None:
    early, late = people[:4], people[4:]
    for person in early:
        assert mistakes(person, person.sign_in(gunicorn.url, "/who")) == []
    back = [person.response_url(person.start(gunicorn.url, "/who")) for person in late]
    gunicorn.kill_workers(2)
    gunicorn.wait_for_workers()
    for person, address in zip(late, back, strict=True):
        assert mistakes(person, person.get(address)) == []
    for person in early:
        assert mistakes(person, person.get(f"{gunicorn.url}/who")) == []
