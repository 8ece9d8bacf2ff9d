"""Put an application under load, with faults, and print a table of what happened.

``--mode kill``: people sign in at the sandbox, load pages and sign out, while gunicorn's workers
and Redis are killed. The exit code is 1 if a session was lost after its login succeeded, if a
response showed another user or a session that had ended, or if a server error was not a 503.

``--mode hang``: the authentication server hangs while some people need new access tokens. The table
shows how long other people's pages take, which do not need that server, before and during this.
"""

from __future__ import annotations

import argparse
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from tests.redis_server import RedisServer
from tests.scripted import GET_TOKEN, REFRESH_TOKEN, hangs, tokens
from tests.workers import Browser, Gunicorn, deployment, load, site

PEOPLE = 4
PAGES = ("/private", "/ping")
"""Pages that need nothing from the authentication server: one guarded, one not."""


class Faults:
    """Kills a worker or restarts Redis every three seconds on average.

    One worker is always left: without any, the pauses would only measure how fast Python starts.
    """

    def __init__(self, instance: Gunicorn, redis: RedisServer | None) -> None:
        self._instance = instance
        self._redis = redis
        self.worker_kills = 0
        self.redis_restarts = 0

    def __call__(self) -> None:
        time.sleep(random.uniform(1, 5))  # noqa: S311 - no secret
        if self._redis is not None and random.random() < 0.5:  # noqa: S311
            self.redis_restarts += 1
            self._redis.restart(random.choice((signal.SIGTERM, signal.SIGKILL)))  # noqa: S311
        else:
            self._instance.wait_for_workers()
            self.worker_kills += 1
            self._instance.kill_a_worker()


def measure_hang(store_url: str, seconds: float) -> list[tuple[str, object]]:
    """Return the rows of the table for ``--mode hang``."""
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
    rows: list[tuple[str, object]] = []
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--store", choices=("sqlite", "redis"), default="sqlite")
    parser.add_argument("--mode", choices=("kill", "hang"), default="kill")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="devkit-sso-soak-")))
        store_url, redis = f"sqlite:///{folder}/soak.db", None
        if options.store == "redis":
            redis = RedisServer(folder, appendonly=True)
            stack.callback(redis.stop)
            store_url = redis.url
        if options.mode == "hang":
            show(measure_hang(store_url, options.seconds))
            return 0
        (instance,) = stack.enter_context(site(store_url))
        faults = Faults(instance, redis)
        began = time.monotonic()
        tally = load(instance.url, options.seconds, PEOPLE, faults)
        seconds = time.monotonic() - began
    rows: list[tuple[str, object]] = [
        ("store", options.store),
        ("seconds", f"{seconds:.0f}"),
        ("workers killed", faults.worker_kills),
        ("Redis restarts", faults.redis_restarts),
        ("logins", tally.logins),
        ("logins/s", f"{tally.logins / seconds:.1f}"),
        ("reads", tally.reads),
        ("reads/s", f"{tally.reads / seconds:.1f}"),
        ("lost", tally.lost),
        ("wrong", tally.wrong),
        ("no response", tally.unanswered),
        ("5xx", dict(sorted(tally.errors.items())) or 0),
        ("worst pause, s", f"{tally.worst:.2f}"),
    ]
    show(rows)
    return 1 if tally.lost or tally.wrong or set(tally.errors) - {503} else 0


def show(rows: list[tuple[str, object]]) -> None:
    for name, value in rows:
        print(f"{name:<20}{value!s:>12}")


if __name__ == "__main__":
    sys.exit(main())
