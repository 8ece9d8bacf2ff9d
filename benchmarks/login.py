"""The last step of a login, when the person returns from the server: check the response, exchange
the code, ask for the user, and start a session."""

from __future__ import annotations

import secrets
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from flask import Flask

from .apps import Site, authlib_client, by_hand, devkit_sso, flask_dance
from .auth_server import Counts, read_counts
from .browser import Browser, Request
from .measure import compare
from .report import Report, Table, compared

BASELINE = "by hand, with a pool of urllib3"

TURNS = 2
"""How many turns a round has. They have to be short, because the package does not reuse a
connection that was idle for four seconds."""


@dataclass
class Tally:
    """What happened in the turns that were measured."""

    logins: int = 0
    connections: int = 0
    calls: int = 0
    failed: int = 0
    mixed_up: int = 0


@dataclass
class _Login:
    """A login that waits for being completed."""

    browser: Browser
    code: str
    complete: Request
    has_failed: bool = False


class Logins:
    """A contender that completes logins, each in a browser of its own.

    :param server: the URL of the authentication server, which counts the calls.
    :param threads: how many logins take place at the same time.
    """

    def __init__(self, app: Flask, server: str, threads: int) -> None:
        self._app = app
        # Failures are counted.
        app.logger.disabled = True
        self._server = server
        self._number = threads
        self._threads = ThreadPoolExecutor(threads)
        self._turns: list[Tally] = []

    def turn(self, calls: int) -> float:
        logins = [_start(self._app) for _ in range(calls)]
        waiting = deque(logins)
        before = read_counts(self._server)
        started = time.perf_counter()
        if self._number == 1:
            _complete_all(waiting)
        else:
            for done in [self._threads.submit(_complete_all, waiting) for _ in range(self._number)]:
                done.result()
        took = (time.perf_counter() - started) / calls
        self._turns.append(_tally(logins, before, read_counts(self._server)))
        return took

    def tally(self) -> Tally:
        """Return what happened in all turns but the first, which is not measured."""
        measured = self._turns[1:]
        return Tally(*(sum(getattr(tally, name) for tally in measured) for name in vars(Tally())))


def measure(site: Site, slow_server: str, milliseconds: int, rounds: int) -> Report:
    """Compare logins.

    :param slow_server: the URL of a server that delays each response.
    :param milliseconds: by how much.
    """
    slow_site = Site(slow_server, site.redis, site.folder)
    reports = [
        _compare("login", "A login", site, 1, rounds, 20),
        _compare("login_threads", "Logins in 8 threads", site, 8, rounds, 40),
        _compare(
            "login_slow",
            f"A login at a server that takes {milliseconds} ms for each response",
            slow_site,
            1,
            max(3, rounds // 2),
            5,
        ),
    ]
    return Report(
        [report.tables[0] for report in reports],
        {name: value for report in reports for name, value in report.figures.items()},
    )


def _compare(name: str, title: str, site: Site, threads: int, rounds: int, calls: int) -> Report:
    contender = partial(Logins, server=site.server, threads=threads)
    contenders = {
        BASELINE: contender(by_hand.create(site)),
        "Flask-DevKit-SSO on SQLite": contender(devkit_sso.on_sqlite(site)),
        "Flask-DevKit-SSO on Redis": contender(devkit_sso.on_redis(site)),
        "Authlib": contender(authlib_client.create(site)),
        "Flask-Dance": contender(flask_dance.create(site)),
    }
    results = compare(contenders, BASELINE, rounds=rounds, calls=calls, turns=TURNS)
    tallies = {name: logins.tally() for name, logins in contenders.items()}
    table: Table = compared(
        name,
        title,
        results,
        {
            "logins": {name: f"{tally.logins:,}" for name, tally in tallies.items()},
            "calls each": {n: f"{tally.calls / tally.logins:.3g}" for n, tally in tallies.items()},
            "new connections": {n: f"{tally.connections:,}" for n, tally in tallies.items()},
            "failed": {name: f"{tally.failed:,}" for name, tally in tallies.items()},
            "mixed up": {name: f"{tally.mixed_up:,}" for name, tally in tallies.items()},
        },
    )
    return Report([table], {f"{name}: {result.name}": result.median for result in results})


def _start(app: Flask) -> _Login:
    browser, code = Browser(app), secrets.token_hex(8)
    complete = browser.start_login(code)
    assert complete is not None
    return _Login(browser, code, complete)


def _complete_all(waiting: deque[_Login]) -> None:
    """Complete logins until none is left."""
    while True:
        try:
            login = waiting.popleft()
        except IndexError:
            return
        try:
            response = login.complete()
        except Exception:  # noqa: BLE001 - whatever a library raises in a view that it provides
            login.has_failed = True
        else:
            login.has_failed = response.status not in (302, 303)
            login.browser.receive(response)


def _tally(logins: list[_Login], before: Counts, after: Counts) -> Tally:
    """Look at who is signed in after each login."""
    succeeded = [login for login in logins if not login.has_failed]
    return Tally(
        logins=len(logins),
        connections=after.connections - before.connections,
        calls=after.calls - before.calls,
        failed=len(logins) - len(succeeded),
        mixed_up=sum(login.browser.user() != login.code for login in succeeded),
    )
