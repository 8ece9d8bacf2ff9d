"""Measure how an application with two workers of eight threads behaves while what it needs fails.

Each function returns the rows of a table. Most of them end with the longest ``/ping``: a page that
needs neither the authentication server nor the store.
"""

from __future__ import annotations

import signal
import sqlite3
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.redis_server import RedisServer
from tests.scripted import (
    GET_TOKEN,
    GET_USER_INFO,
    REFRESH_TOKEN,
    TOKEN,
    Handler,
    closes,
    fails,
    hangs,
    says,
    tokens,
)
from tests.threads import Background, at_once
from tests.workers import Browser, Deployment, deployment

Rows = list[tuple[str, object]]

PEOPLE = 4
PAGES = ("/private", "/ping")
"""Pages that need nothing from the authentication server: one guarded, one not."""

THREADS = ("--threads", "8")
PER_SECOND = 30
"""How many people sign in during one second."""

BAD = "bad"


class Login:
    """A login that was started in a browser of its own, and that :meth:`complete` completes."""

    def __init__(self, url: str) -> None:
        self._netloc = urlsplit(url).netloc
        headers, _ = self._get("/sso/authorize", "")
        self._cookie = "; ".join(value.partition(";")[0] for value in headers["set-cookie"])
        (self._state,) = parse_qs(urlsplit(headers["location"][0]).query)["state"]
        self.seconds = 0.0

    def complete(self, code: str = "code-1") -> int:
        """Return from the server and return the status; a login that was refused can be repeated.

        ``seconds`` is then how long the response took.
        """
        began = time.monotonic()
        query = urlencode({"code": code, "state": self._state})
        headers, status = self._get(f"/sso/callback?{query}", self._cookie)
        self.seconds = time.monotonic() - began
        if status == 503 and "retry-after" not in headers:
            raise SystemExit("a 503 had no Retry-After")
        return status

    def _get(self, path: str, cookie: str) -> tuple[dict[str, list[str]], int]:
        with closing(HTTPConnection(self._netloc, timeout=120)) as connection:
            headers = {"Cookie": cookie, "Connection": "close", "Accept": "text/html"}
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            response.read()
            found: dict[str, list[str]] = {}
            for name, value in response.getheaders():
                found.setdefault(name.lower(), []).append(value)
            return found, response.status


class Pings:
    """Loads ``/ping`` again and again; ``worst`` is the longest time in seconds."""

    def __init__(self, url: str) -> None:
        self._netloc = urlsplit(url).netloc
        self._stop = threading.Event()
        self.worst = 0.0

    def __enter__(self) -> Pings:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            began = time.monotonic()
            with closing(HTTPConnection(self._netloc, timeout=120)) as connection:
                connection.request("GET", "/ping", headers={"Connection": "close"})
                if (status := connection.getresponse().status) != 200:
                    raise SystemExit(f"/ping returned {status}")
            self.worst = max(self.worst, time.monotonic() - began)

    @property
    def row(self) -> tuple[str, object]:
        return "worst /ping, s", f"{self.worst:.2f}"


def measure_sign_ins(store_url: str, seconds: float) -> Rows:
    """People sign in while getToken hangs, ten seconds long at least."""
    number = max(300, int(seconds * PER_SECOND))
    with deployment(store_url, 1, timeout="5", options=THREADS) as here:
        here.server.answers[GET_TOKEN] = hangs
        url = here.instances[0].url

        def sign_in(turn: int) -> tuple[int, float]:
            time.sleep(turn / PER_SECOND)
            login = Login(url)
            return login.complete(), login.seconds

        with Pings(url) as pings:
            people = [Background(lambda turn=turn: sign_in(turn)) for turn in range(number)]  # type: ignore[misc]
            found = [one.result() for one in people]
        calls = len(here.server.seen)
    return [
        ("sign-ins", number),
        ("statuses", count(status for status, _ in found)),
        ("calls to the server", calls),
        ("median response, s", f"{statistics.median(seconds for _, seconds in found):.2f}"),
        pings.row,
    ]


def measure_store(store_url: str, seconds: float, redis: RedisServer | None) -> Rows:
    """Twenty people reload a guarded page while Redis is stopped, or SQLite locked.

    They reload it twice a second without waiting for the response. Each of these requests has to
    write when the session was last used.
    """
    seconds = min(seconds, 15)
    fault = stopped(redis) if redis else locked(store_url.removeprefix("sqlite:///"))
    with deployment(store_url, 1, options=THREADS, idle_timeout="40") as here:
        people = [Browser(*here.instances) for _ in range(20)]
        time.sleep(10)

        def reload(browser: Browser) -> list[int]:
            loading = []
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                loading.append(Background(lambda: browser.get("/private").status))
                time.sleep(0.5)
            return [each.result() for each in loading]

        with fault, Pings(here.instances[0].url) as pings:
            found = at_once([lambda browser=browser: reload(browser) for browser in people])  # type: ignore[misc]
        afterwards = [browser.get("/private").status for browser in people]
    return [
        ("statuses", count(status for statuses in found for status in statuses)),
        ("afterwards", count(afterwards)),
        pings.row,
    ]


def measure_slow(store_url: str) -> Rows:
    """Forty people sign in at once at a server that takes a second for each response.

    The first time, the workers have never called the server; the second time, they know it.
    """
    rows: Rows = []

    def slowly(answer: Callable[[Handler], None]) -> Callable[[Handler], None]:
        def answer_later(handler: Handler) -> None:
            handler.server.stopping.wait(1)
            answer(handler)

        return answer_later

    with deployment(store_url, 1, timeout="5", options=THREADS) as here:
        for interface in (GET_TOKEN, GET_USER_INFO):
            here.server.answers[interface] = slowly(here.server.answers[interface])
        for when in ("first", "again"):
            logins = [Login(here.instances[0].url) for _ in range(40)]
            began = time.monotonic()
            with Pings(here.instances[0].url) as pings:
                statuses = at_once([login.complete for login in logins])
            took = time.monotonic() - began
            again = [login for login, one in zip(logins, statuses, strict=True) if one == 503]
            # As Retry-After says.
            time.sleep(5)
            reloaded = at_once([login.complete for login in again]) if again else []
            rows += [
                (f"{when}: statuses", count(statuses)),
                (f"{when}: reloaded", count(reloaded)),
                (f"{when}: all took, s", f"{took:.1f}"),
                (f"{when}: worst login", f"{max(login.seconds for login in logins):.1f}"),
                (f"{when}: {pings.row[0]}", pings.row[1]),
            ]
    return rows


def measure_bad_codes(store_url: str, seconds: float) -> Rows:
    """People sign in while a visitor sends bad codes, which the server refuses slowly or resets."""
    rows: Rows = []

    def refuse_slowly(handler: Handler) -> None:
        handler.server.stopping.wait(3)
        fails("8102")(handler)

    for name, refusal, visitors, pause in (
        ("slow refusals", refuse_slowly, 4, 0.0),
        ("slow refusals", refuse_slowly, 8, 0.0),
        ("resets", closes, 1, 1 / 13),
    ):

        def answer(handler: Handler, refusal: Callable[[Handler], None] = refusal) -> None:
            is_bad = handler.server.seen[-1].json["authorization_code"] == BAD
            (refusal if is_bad else says(TOKEN))(handler)

        with deployment(store_url, 1, timeout="5", options=THREADS) as here:
            here.server.answers[GET_TOKEN] = answer
            statuses, attempts = sign_in_during(here, seconds, visitors, pause)
        rows += [
            (f"{visitors} × {name}", attempts),
            ("other logins", count(statuses)),
        ]
    return rows


def sign_in_during(
    here: Deployment, seconds: float, visitors: int, pause: float
) -> tuple[list[int], int]:
    """Let one person after another sign in, five per second, while visitors send bad codes."""
    url = here.instances[0].url
    finished = threading.Event()
    bad: list[int] = []

    def visit() -> None:
        while not finished.wait(pause):
            bad.append(Login(url).complete(BAD))

    attackers = [Background(visit) for _ in range(visitors)]
    people = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.2)
        people.append(Background(lambda: Login(url).complete()))
    statuses = [one.result() for one in people]
    finished.set()
    for attacker in attackers:
        attacker.result()
    return statuses, len(bad)


def measure_hang(store_url: str, seconds: float) -> Rows:
    """People need new access tokens while the server hangs; others load pages without it."""
    with deployment(store_url, 1, timeout="5") as here:
        here.server.answers[GET_TOKEN] = tokens("first", 3600)
        reader = Browser(*here.instances)
        refreshes = tokens("next", 1)
        here.server.answers |= {GET_TOKEN: tokens("first", 1), REFRESH_TOKEN: refreshes}
        others = [Browser(*here.instances) for _ in range(PEOPLE)]
        finished = threading.Event()

        def keep_requesting_tokens(browser: Browser) -> None:
            while not finished.wait(0.1):
                browser.get("/token")

        threads = [
            threading.Thread(target=keep_requesting_tokens, args=(other,)) for other in others
        ]
        for thread in threads:
            thread.start()
        healthy = measure_pages(reader, seconds / 2)
        here.server.answers[REFRESH_TOKEN] = hangs
        hung = measure_pages(reader, seconds / 2)
        finished.set()
        for thread in threads:
            thread.join()
    rows: Rows = []
    for page in PAGES:
        median, median_hung = statistics.median(healthy[page]), statistics.median(hung[page])
        rows.append((f"{page}, ms", f"{median * 1000:.1f}"))
        rows.append((f"{page} hung, ms", f"{median_hung * 1000:.1f}"))
        rows.append((f"{page} ratio", f"{median_hung / median:.2f}"))
        worst = f"{max(healthy[page]) * 1000:.0f}/{max(hung[page]) * 1000:.0f}"
        rows.append((f"{page} worst, ms", worst))
    return rows


def measure_pages(browser: Browser, seconds: float) -> dict[str, list[float]]:
    """Load the pages again and again; return how many seconds each took."""
    durations: dict[str, list[float]] = {page: [] for page in PAGES}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for page in PAGES:
            began = time.monotonic()
            if (status := browser.get(page).status) != 200:
                raise SystemExit(f"{page} returned {status}")
            durations[page].append(time.monotonic() - began)
        time.sleep(0.02)
    return durations


@contextmanager
def stopped(redis: RedisServer) -> Iterator[None]:
    """Stop Redis, so that connections to it hang."""
    redis.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        redis.send_signal(signal.SIGCONT)


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Lock a SQLite file against everybody who writes."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.rollback()


def count(statuses: object) -> str:
    found = Counter(statuses)  # type: ignore[call-overload]
    return ", ".join(f"{status}: {number}" for status, number in sorted(found.items())) or "none"
