"""Load with faults: people sign in, read and sign out while workers and Redis are killed.

Gunicorn with two workers and the sandbox, each a process; at the end a table. The exit code is 1
when an acknowledged session was lost or somebody was taken for another.

With ``--mode hang`` nobody is killed: how long pages take that need nothing of the authentication
server, while it is well and then while it hangs, and others ask for tokens that have expired.
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
from tests.workers import Browser, Gunicorn, load, place, site

PEOPLE = 4


class Faults:
    """A fault each three seconds on average; one worker is always left, as a pause of none would
    tell how long Python takes to start."""

    def __init__(self, instance: Gunicorn, redis: RedisServer | None) -> None:
        self._instance = instance
        self._redis = redis
        self.worker_kills = 0
        self.redis_restarts = 0

    def __call__(self) -> None:
        time.sleep(random.uniform(1, 5))  # noqa: S311 - nothing depends on it
        if self._redis is not None and random.random() < 0.5:  # noqa: S311
            self.redis_restarts += 1
            self._redis.restart(random.choice((signal.SIGTERM, signal.SIGKILL)))  # noqa: S311
        else:
            self._instance.wait_for_workers()
            self.worker_kills += 1
            self._instance.kill_a_worker()


def measure_hang(store_url: str, seconds: float) -> list[tuple[str, object]]:
    """Return the rows of the table of ``--mode hang``."""
    with place(store_url, 1, timeout="5") as here:
        here.server.answers[GET_TOKEN] = tokens("first", 3600)
        reader = Browser(*here.instances)
        well = tokens("next", 1)
        here.server.answers |= {GET_TOKEN: tokens("first", 1), REFRESH_TOKEN: well}
        others = [Browser(*here.instances) for _ in range(PEOPLE)]
        ended = threading.Event()

        def ask_for_tokens(browser: Browser) -> None:
            while not ended.wait(0.1):
                browser.get("/token")

        threads = [threading.Thread(target=ask_for_tokens, args=(other,)) for other in others]
        for thread in threads:
            thread.start()
        pages = ("/private", "/ping")
        medians: dict[bool, dict[str, float]] = {}
        worst: dict[bool, dict[str, float]] = {}
        for is_hung in (False, True):
            here.server.answers[REFRESH_TOKEN] = hangs if is_hung else well
            took: dict[str, list[float]] = {page: [] for page in pages}
            until = time.monotonic() + seconds / 2
            while time.monotonic() < until:
                for page in pages:
                    began = time.monotonic()
                    if (status := reader.get(page).status) != 200:
                        raise SystemExit(f"{page} answered {status}")
                    took[page].append(time.monotonic() - began)
                time.sleep(0.02)
            worst[is_hung] = {page: max(times) for page, times in took.items()}
            medians[is_hung] = {page: statistics.median(times) for page, times in took.items()}
        ended.set()
        for thread in threads:
            thread.join()
    rows: list[tuple[str, object]] = []
    for page in pages:
        before, hung = medians[False][page], medians[True][page]
        rows.append((f"{page}, ms", f"{before * 1000:.1f}"))
        rows.append((f"{page} hung, ms", f"{hung * 1000:.1f}"))
        rows.append((f"{page} ratio", f"{hung / before:.2f}"))
        both = "/".join(f"{worst[is_hung][page] * 1000:.0f}" for is_hung in (False, True))
        rows.append((f"{page} worst, ms", both))
    return rows


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
        ("no answer (killed)", tally.broken),
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
