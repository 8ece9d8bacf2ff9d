"""Load with faults: people sign in, read and sign out while workers and Redis are killed.

Gunicorn with two workers and the sandbox, each a process; at the end a table. The exit code is 1
when an acknowledged session was lost or somebody was taken for another.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.redis_server import RedisServer
from tests.workers import Gunicorn, load, site

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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--store", choices=("sqlite", "redis"), default="sqlite")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="devkit-sso-soak-")))
        store_url, redis = f"sqlite:///{folder}/soak.db", None
        if options.store == "redis":
            redis = RedisServer(folder, appendonly=True)
            stack.callback(redis.stop)
            store_url = redis.url
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
    for name, value in rows:
        print(f"{name:<20}{value!s:>12}")
    return 1 if tally.lost or tally.wrong or set(tally.errors) - {503} else 0


if __name__ == "__main__":
    sys.exit(main())
