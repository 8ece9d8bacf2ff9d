"""Long-lived sessions under gunicorn: refreshes, disabled users, outages, and clock jumps.

Each instance has two workers with threads; with Redis there are two instances. The authentication
server is a scripted one in the test's process, or the sandbox. Hours are shortened to seconds.
"""

from __future__ import annotations

import collections
import http.client
import re
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from ..conftest import wait_until
from ..redis_server import RedisServer
from ..scripted import (
    ADA,
    GET_TOKEN,
    GET_USER_INFO,
    LOGOUT,
    REFRESH_TOKEN,
    Handler,
    ScriptedServer,
    closes,
    distinguish_people,
    fails,
    hangs,
    same_person,
    says,
    tokens,
)
from ..threads import Background, at_once
from ..workers import (
    Browser,
    Deployment,
    Gunicorn,
    Person,
    Response,
    deployment,
    open_at_once,
    site,
)

pytestmark = [pytest.mark.slow, pytest.mark.hours]

PAGES = ("/private", "/token")

Clock = Callable[..., Path]


SECOND = tokens("second", 3600)


def slow(seconds: float, answer: Callable[[Handler], None]) -> Callable[[Handler], None]:
    def slow_answer(handler: Handler) -> None:
        time.sleep(seconds)
        answer(handler)

    return slow_answer


# Many requests, one refresh


def expired(deployment: Deployment) -> Browser:
    """Return a browser with an expired access token."""
    deployment.server.answers[GET_TOKEN] = tokens("first", 1)
    deployment.server.answers[REFRESH_TOKEN] = SECOND
    browser = Browser(*deployment.instances)
    time.sleep(1.1)
    deployment.server.seen.clear()
    return browser


def check_one_refresh(deployment: Deployment, path: str, seconds: float) -> None:
    browser = expired(deployment)
    deployment.server.answers[REFRESH_TOKEN] = slow(seconds, SECOND)
    expected = {"/private": "private ada", "/token": "second"}[path]
    answers = browser.get_at_once(path, 200)
    assert {(answer.status, answer.text) for answer in answers} == {(200, expected)}
    # All pages may have been served before the refresh finished.
    assert {browser.get("/token", at).text for at in deployment.instances} == {"second"}
    assert deployment.refreshes() == 1


@pytest.mark.parametrize("path", PAGES)
def test_200_requests_refresh_once(any_store: str, path: str) -> None:
    with deployment(any_store) as here:
        for _ in range(20):
            check_one_refresh(here, path, 0.1)


@pytest.mark.parametrize(("seconds", "timeout"), [(3, "5"), (10, "15")])
def test_200_requests_refresh_once_when_the_refresh_is_slow(
    any_store: str, seconds: float, timeout: str
) -> None:
    with deployment(any_store, timeout=timeout) as here:
        for path in PAGES:
            check_one_refresh(here, path, seconds)


def test_the_claim_of_a_killed_worker_expires(any_store: str) -> None:
    with deployment(any_store, 1, timeout="1") as here:
        (instance,) = here.instances
        browser = expired(here)
        here.server.answers[REFRESH_TOKEN] = hangs
        asking = Background(lambda: _lost(browser, "/token"))
        wait_until(lambda: here.refreshes() == 1)
        instance.kill_workers(2)
        asking.result()
        here.server.answers[REFRESH_TOKEN] = SECOND
        instance.wait_for_workers()
        statuses = []
        until = time.monotonic() + 3 * 6
        while (answer := browser.get("/token")).status != 200:
            statuses.append(answer.status)
            assert time.monotonic() < until
            assert browser.get("/private").text == "private ada"
            time.sleep(0.2)
        assert answer.text == "second"
        assert here.refreshes() == 2
        assert set(statuses) <= {503}


def _lost(browser: Browser, path: str) -> None:
    try:
        browser.get(path)
    except (OSError, http.client.HTTPException):
        return
    raise AssertionError("the worker has responded")


def test_the_user_of_a_killed_worker_does_not_wait_long(any_store: str, clock: Clock) -> None:
    """The claim to ask about the user ends with its holder: there is an answer in time."""
    with deployment(any_store, 1, clock=clock(0), timeout="5") as here:
        (instance,) = here.instances
        browser = Browser(instance)
        here.server.answers[GET_USER_INFO] = hangs
        here.server.seen.clear()
        # Past the grace period.
        clock(0, passed=901)
        asking = Background(lambda: _lost(browser, "/private"))
        wait_until(lambda: GET_USER_INFO in here.server.paths)
        instance.kill_workers(2)
        asking.result()
        here.server.answers[GET_USER_INFO] = says(ADA)
        instance.wait_for_workers()
        assert browser.get("/private").status == 200
        assert here.server.paths == [GET_USER_INFO] * 2


@pytest.mark.parametrize(
    "options",
    [["--threads", "16"], ["--threads", "8"], ["--worker-class", "gevent"]],
    ids=["2x16", "2x8", "gevent"],
)
def test_sixty_people_come_back_at_once(any_store: str, clock: Clock, options: list[str]) -> None:
    """They have all been away for longer than the grace period. Nobody receives a 503."""
    with deployment(any_store, 1, clock=clock(0), timeout="5", options=options) as here:
        distinguish_people(here.server)
        people = [Browser(*here.instances) for _ in range(60)]
        here.server.answers[GET_USER_INFO] = slow(0.3, same_person)
        here.server.seen.clear()
        clock(0, passed=901)
        began = time.monotonic()
        answers = open_at_once(people, "/private")
        seconds = time.monotonic() - began
        statuses = collections.Counter(answer.status for answer in answers)
        print(f"{any_store.partition(':')[0]} {options[-1]}: {dict(statuses)} in {seconds:.2f} s")
        assert [a.text for a in answers] == [f"private person-{n}" for n in range(1, 61)]
        assert here.server.paths == [GET_USER_INFO] * 60


def test_rotating_refresh_tokens_sign_nobody_out(any_store: str) -> None:
    """The sandbox revokes all tokens of a sign-in if a used refresh token is sent again."""
    options = ["--rotate-refresh-tokens", "--token-lifetime", "3"]
    instances = 2 if any_store.startswith("redis") else 1
    with site(any_store, instances, options=options) as gunicorns:
        people = [Person(name, gunicorns[0].url) for name in ("ada", "bob")]
        for person in people:
            assert person.sign_in()
        until = time.monotonic() + 20
        wrong: list[tuple[str, str, int]] = []

        def live(person: Person) -> None:
            while time.monotonic() < until:
                for path in PAGES:
                    answer = person.get(path)
                    if answer.status_code != 200:
                        wrong.append((person.username, path, answer.status_code))

        at_once(
            [
                partial(live, person.copy(gunicorn.url))
                for person in people
                for gunicorn in gunicorns
                for _ in range(3)
            ]
        )
        assert wrong == []
        calls = requests.get(f"{gunicorns[0].server_url}/_sandbox/calls", timeout=60).json()
    refreshes = [call["code"] for call in calls if call["interface"] == "refreshToken"]
    assert set(refreshes) == {"2000"}
    # A token of three seconds is refreshed at most once in its first three quarters.
    assert 2 * 4 <= len(refreshes) <= 2 * (20 / 2.25 + 2)
    assert sum(call["interface"] == "getToken" for call in calls) == 2


@pytest.mark.parametrize("late", [fails("8206"), tokens("older", 3600, "r-3")])
def test_a_suspended_worker_that_resumes_changes_no_session(
    redis_server: RedisServer, late: Callable[[Handler], None]
) -> None:
    """Another worker has taken over the claim and refreshed the tokens.

    The server's late response must neither end the session nor replace its newer tokens.
    """
    with deployment(redis_server.url, timeout="1") as here:
        first, second = here.instances
        browser = expired(here)
        arrived, go_on = threading.Event(), threading.Event()

        def responds_late(handler: Handler) -> None:
            arrived.set()
            go_on.wait(60)
            late(handler)

        here.server.answers[REFRESH_TOKEN] = responds_late
        assert browser.get("/private", first).status == 200
        assert arrived.wait(60)
        first.halt(signal.SIGSTOP)
        here.server.answers[REFRESH_TOKEN] = tokens("second", 3600, "r-2")
        try:
            wait_until(lambda: browser.get("/token", second).text == "second", 3 * 6)
            go_on.set()
            time.sleep(0.5)
        finally:
            first.halt(signal.SIGCONT)
        time.sleep(2)
        assert [browser.get("/token", at).text for at in (first, second)] == ["second"] * 2
        bodies = [s.json["refresh_token"] for s in here.server.seen if s.path == REFRESH_TOKEN]
        assert bodies == ["r-1", "r-1"]


def test_a_stopping_worker_stores_the_tokens_of_its_refresh(any_store: str) -> None:
    """Each deployment stops workers; by then the server has used up the old refresh token."""
    with deployment(any_store, 1, timeout="5") as here:
        (instance,) = here.instances
        browser = expired(here)
        rotated = tokens("second", 1, "r-2")
        here.server.answers[REFRESH_TOKEN] = slow(2, rotated)
        assert browser.get("/private").status == 200
        wait_until(lambda: here.refreshes() == 1)
        instance.stop()
        here.server.answers[REFRESH_TOKEN] = tokens("third", 3600, "r-3")
        with Gunicorn(
            here.server.url,
            here.store_url,
            port=int(instance.url.rpartition(":")[2]),
            redirect_uri=f"{instance.url}/sso/callback",
        ):
            assert browser.get("/token").text == "third"
        bodies = [s.json["refresh_token"] for s in here.server.seen if s.path == REFRESH_TOKEN]
        assert bodies == ["r-1", "r-2"]


# The user


@pytest.mark.parametrize("change", [{"disabled": True}, {"role": "User"}, {"role": "Admin"}])
def test_a_change_at_the_server_reaches_every_session_in_time(
    redis_server: RedisServer, change: dict[str, Any]
) -> None:
    before = {"role": "User" if change == {"role": "Admin"} else "Admin"}
    with site(redis_server.url, 2, revalidate_after="2") as gunicorns:
        people = f"{gunicorns[0].server_url}/_sandbox/people"
        requests.post(people, json={"username": "ada"} | before, timeout=60).raise_for_status()
        sessions = [Person("ada", gunicorns[0].url) for _ in range(3)]
        for session in sessions:
            assert session.sign_in()
        everywhere = [s.copy(gunicorn.url) for s in sessions for gunicorn in gunicorns]
        assert {browser.who()["role"] for browser in everywhere} == {before["role"]}
        requests.post(people, json={"username": "ada"} | change, timeout=60).raise_for_status()
        until = time.monotonic() + 3 * 2
        wanted = change.get("role")
        while {browser.who()["role"] for browser in everywhere} != {wanted}:
            assert time.monotonic() < until
        names = {browser.who()["username"] for browser in everywhere}
        assert names == {None if "disabled" in change else "ada"}
        # Signed-out people stay signed out, and the others did not need another login.
        calls = requests.get(f"{gunicorns[0].server_url}/_sandbox/calls", timeout=60).json()
        assert sum(call["interface"] == "getToken" for call in calls) == 3


# Outages

GRACE = 6
OUTAGES: dict[str, Callable[[Handler], None] | None] = {
    "hung": hangs,
    "refusing": None,
    "8500": fails("8500"),
    "rubbish": says(b"<html>"),
}


@pytest.mark.parametrize(
    ("outage", "store"),
    [
        ("hung", "sqlite"),
        ("hung", "redis"),
        ("refusing", "redis"),
        ("8500", "sqlite"),
        ("rubbish", "redis"),
    ],
)
def test_an_outage_second_by_second(
    outage: str, store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/sessions.db"
    if store == "redis":
        url = request.getfixturevalue("redis_server").url
    with deployment(url, 1, revalidate_after="2", outage_grace=str(GRACE)) as here:
        answered = 0.0

        def person(handler: Handler) -> None:
            nonlocal answered
            answered = time.monotonic()
            says(ADA)(handler)

        well = {GET_USER_INFO: person, REFRESH_TOKEN: tokens("next", 4)}
        here.server.answers |= {GET_TOKEN: tokens("first", 4)} | well
        browser = Browser(*here.instances)
        began = time.monotonic()
        table: list[tuple[float, float, bool, dict[str, Response]]] = []

        def observe(is_well: bool) -> dict[str, Response]:
            started, last = time.monotonic(), answered
            row = {page: browser.get(page) for page in ("/ping", *PAGES)}
            table.append((started - began, time.monotonic() - last, is_well, row))
            statuses = "".join(f"  {page} {answer.status}" for page, answer in row.items())
            print(
                f"{outage:>9}{started - began:6.1f} s  {'well' if is_well else 'out':>4}{statuses}"
            )
            time.sleep(max(0.0, started + 1 - time.monotonic()))
            return row

        for _ in range(4):
            observe(True)
        stop_answering(here, OUTAGES[outage])
        until = time.monotonic() + GRACE + 5
        while time.monotonic() < until:
            observe(False)
        if OUTAGES[outage] is None:
            here.server = ScriptedServer(port=here.server.server_port)
        here.server.answers |= well
        back = time.monotonic()
        while {answer.status for answer in observe(True).values()} != {200}:
            assert time.monotonic() < back + 3 * 5
        for _ in range(3):
            assert {answer.status for answer in observe(True).values()} == {200}
        logins = here.server.paths.count(GET_TOKEN)
    assert logins == (0 if outage == "refusing" else 1)
    for second, age, is_well, row in table:
        assert row["/ping"].status == 200
        private, token = row["/private"], row["/token"]
        assert private.status in (200, 503), second
        assert private.status == 200 or private.headers["Retry-After"] == "5"
        assert token.status in (200, 502, 503)
        assert token.status != 503 or token.headers["Retry-After"] == "5"
        # The package counts from the time when it sent its request.
        if age < GRACE - 1:
            assert private.status == 200, second
        if not is_well and age > GRACE + 3:
            assert private.status == token.status == 503, second
        if second < 4:
            assert token.status == 200, second


def stop_answering(here: Deployment, how: Callable[[Handler], None] | None) -> None:
    for path in (GET_USER_INFO, REFRESH_TOKEN, GET_TOKEN, LOGOUT):
        here.server.answers[path] = how or closes
    if how is None:
        here.server.stop()


# Clocks


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    """Set the wall clock of the workers by some seconds, and advance both of their clocks."""
    file = tmp_path / "clock"

    def set_to(by: float, *, passed: float = 0) -> Path:
        new = tmp_path / "clock.new"
        new.write_text(f"{passed} {by}")
        return new.rename(file)

    return set_to


def test_a_clock_jump_ends_no_active_session(any_store: str, clock: Clock) -> None:
    with deployment(any_store, 1, clock=clock(0)) as here:
        browser = Browser(*here.instances)
        for offset in (600, 0, -600, 0):
            clock(offset)
            for page in ("/ping", *PAGES) * 3:
                assert browser.get(page).status == 200, (offset, page)
        assert here.server.paths.count(GET_TOKEN) == 1
        assert REFRESH_TOKEN not in here.server.paths


def test_a_clock_jump_during_an_outage(any_store: str, clock: Clock) -> None:
    """The failed refresh is retried immediately, and not ten minutes later."""
    with deployment(any_store, 1, clock=clock(0)) as here:
        browser = expired(here)
        here.server.answers[REFRESH_TOKEN] = fails("8500")
        clock(700)
        assert browser.get("/token").status in (502, 503)
        assert browser.get("/token").status == 503
        here.server.answers[REFRESH_TOKEN] = SECOND
        clock(100)
        assert browser.get("/token").text == "second"
        assert browser.get("/private").text == "private ada"


def test_a_clock_jump_during_a_refresh(redis_server: RedisServer, clock: Clock) -> None:
    """The claim expires, so another worker refreshes as well.

    The refusal of the old refresh token that the first worker then receives must not end the
    session.
    """
    with deployment(redis_server.url, clock=clock(0), timeout="10") as here:
        first, second = here.instances
        browser = expired(here)
        arrived, go_on = threading.Event(), threading.Event()

        def refuses(handler: Handler) -> None:
            arrived.set()
            go_on.wait(60)
            fails("8206")(handler)

        here.server.answers[REFRESH_TOKEN] = refuses
        assert browser.get("/private", first).status == 200
        assert arrived.wait(60)
        here.server.answers[REFRESH_TOKEN] = tokens("second", 3600, "r-2")
        clock(600)
        assert browser.get("/token", second).text == "second"
        go_on.set()
        time.sleep(1)
        assert [browser.get("/token", at).text for at in (first, second)] == ["second"] * 2
        assert here.refreshes() == 2


def test_a_clock_jump_extends_a_session_by_at_most_the_jump(any_store: str, clock: Clock) -> None:
    lifetime, step = 43200, 1500
    with deployment(any_store, 1, clock=clock(0)) as here:
        browser = Browser(*here.instances)
        began = time.monotonic()
        # Set the clock back by ten minutes, and use the session for its whole lifetime.
        for passed in range(0, lifetime, step):
            clock(-600, passed=passed)
            assert browser.get("/private").text == "private ada", passed
        clock(-600, passed=lifetime + 600 - (time.monotonic() - began) - 30)
        assert browser.get("/private").text == "private ada"
        clock(-600, passed=lifetime + 601)
        assert browser.get("/private").status == 302
        assert re.fullmatch("/sso/authorize.*", browser.get("/private").headers["Location"])
        assert here.server.paths.count(GET_TOKEN) == 1


def test_a_machine_that_slept_ends_idle_sessions(any_store: str, clock: Clock) -> None:
    with deployment(any_store, 1, clock=clock(0)) as here:
        browser = Browser(*here.instances)
        clock(31 * 60)
        assert browser.get("/private").status == 302
