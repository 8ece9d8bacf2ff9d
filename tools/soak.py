"""Put an application under load, with faults, and print a table of what happened.

``--mode kill``: people sign in at the sandbox, load pages and sign out, while gunicorn's workers
and Redis are killed. The exit code is 1 if a session was lost after its login succeeded, if a
response showed another user or a session that had ended, or if a server error was not a 503.

``--mode hang``: the authentication server hangs while some people need new access tokens. The table
shows how long other people's pages take, which do not need that server, before and during this.

``--mode sign-ins``: 300 people or more sign in while the server hangs.

``--mode store``: 20 people reload a guarded page while Redis is stopped or SQLite is locked.

``--mode slow``: 40 people sign in at once, and the server takes a second for each response.

``--mode bad-codes``: people sign in while a visitor sends codes that the server refuses slowly, or
for which it resets the connection.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.redis_server import RedisServer
from tests.workers import Gunicorn, load, site

from . import outages
from .outages import Rows

PEOPLE = 4

MODES = ("kill", "hang", "sign-ins", "store", "slow", "bad-codes")


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--store", choices=("sqlite", "redis"), default="sqlite")
    parser.add_argument("--mode", choices=MODES, default="kill")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="devkit-sso-soak-")))
        store_url, redis = f"sqlite:///{folder}/soak.db", None
        if options.store == "redis":
            redis = RedisServer(folder, appendonly=True)
            stack.callback(redis.stop)
            store_url = redis.url
        measurements: dict[str, Callable[[], Rows]] = {
            "hang": lambda: outages.measure_hang(store_url, options.seconds),
            "sign-ins": lambda: outages.measure_sign_ins(store_url, options.seconds),
            "store": lambda: outages.measure_store(store_url, options.seconds, redis),
            "slow": lambda: outages.measure_slow(store_url),
            "bad-codes": lambda: outages.measure_bad_codes(store_url, options.seconds),
        }
        if options.mode in measurements:
            show(measurements[options.mode]())
            return 0
        (instance,) = stack.enter_context(site(store_url))
        faults = Faults(instance, redis)
        began = time.monotonic()
        tally = load(instance.url, options.seconds, PEOPLE, faults)
        seconds = time.monotonic() - began
    rows: Rows = [
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


def show(rows: Rows) -> None:
    for name, value in rows:
        print(f"{name:<24}{value!s:>24}")


if __name__ == "__main__":
    sys.exit(main())
