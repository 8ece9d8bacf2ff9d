"""Put an application under load, with faults, and print a table of what happened.

``--mode kill``: people sign in at the sandbox, load pages and sign out, while gunicorn's workers
and the store are killed. The exit code is 1 if a session was lost after its login succeeded, if a
response showed another user or a session that had ended, or if a server error was not a 503.
With ``--store sentinel``, the primary is killed, and a replica takes over. Redis replicates
asynchronously, so this may lose what no replica had received. The table counts it, and the exit
code is 1 if anything else is lost.

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
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from flask_devkit_sso import StoreUnavailable
from flask_devkit_sso.store.redis import RedisStore
from flask_devkit_sso.store.redis_scripts import PREFIX
from tests.redis_server import RedisServer
from tests.sentinels import Sentinels
from tests.threads import Background
from tests.workers import Gunicorn, load, site

from . import outages
from .outages import Rows

if TYPE_CHECKING:
    from tests.postgresql_server import PostgreSQLServer

PEOPLE = 4

STORES = ("sqlite", "redis", "sentinel", "postgresql")

MODES = ("kill", "hang", "sign-ins", "store", "slow", "bad-codes")


class Faults:
    """Kills a worker or does something to the store every three seconds on average.

    One worker is always left: without any, the pauses would only measure how fast Python starts.

    :param harm: does something to the store; None leaves it alone.
    """

    def __init__(self, instance: Gunicorn, harm: Callable[[], None] | None) -> None:
        self._instance = instance
        self._harm = harm
        self.worker_kills = 0
        self.store_faults = 0

    def __call__(self) -> None:
        time.sleep(random.uniform(1, 5))  # noqa: S311 - no secret
        if self._harm is not None and random.random() < 0.5:  # noqa: S311
            self.store_faults += 1
            self._harm()
        else:
            self._instance.wait_for_workers()
            self.worker_kills += 1
            self._instance.kill_a_worker()


def harm_redis(server: RedisServer) -> None:
    server.restart(random.choice((signal.SIGTERM, signal.SIGKILL)))  # noqa: S311


def harm_postgresql(server: PostgreSQLServer) -> None:
    """End all connections, or restart the server with or without a crash."""
    how = random.choice((None, signal.SIGINT, signal.SIGQUIT))  # noqa: S311
    if how is None:
        server.disconnect()
    else:
        server.restart(how)


class Failovers:
    """Kills the primary, and counts which records that were confirmed are lost by this.

    :ivar written: how many records were written just before a primary was killed.
    :ivar lost: how many of them the new primary does not have.
    :ivar lost_though_received: how many of these a replica had received. There should be none.
    """

    def __init__(self, sentinels: Sentinels) -> None:
        self._sentinels = sentinels
        self._store = RedisStore(sentinels.url)
        self.written = self.lost = self.lost_though_received = 0

    def __call__(self) -> None:
        written: set[str] = set()
        has_ended = threading.Event()
        prefix = secrets.token_hex(4)

        def write() -> None:
            while not has_ended.is_set():
                key = f"{prefix}:{len(written)}"
                with suppress(StoreUnavailable):
                    if self._store.add(key, "1", expires=time.time() + 3600):
                        written.add(key)

        writing = Background(write)
        time.sleep(1)
        primary, replicas = self._sentinels.primary(), self._sentinels.replicas()
        # From now on, it neither confirms nor replicates anything.
        primary.send_signal(signal.SIGSTOP)
        has_ended.set()
        writing.result()
        received = set().union(*(_records(replica, prefix) for replica in replicas))
        self._sentinels.fail_over(signal.SIGKILL)
        kept = _records(self._sentinels.primary(), prefix)
        self.written += len(written)
        self.lost += len(written - kept)
        self.lost_though_received += len((written & received) - kept)
        primary.start()
        with primary.admin() as admin:
            while admin.info("replication")["role"] != "slave":
                time.sleep(0.1)
        self._sentinels.primary().wait_for_replica()


def _records(server: RedisServer, prefix: str) -> set[str]:
    with server.admin() as admin:
        return {key.removeprefix(PREFIX) for key in admin.scan_iter(f"{PREFIX}{prefix}:*", 1000)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument(
        "--store", choices=("sqlite", "redis", "sentinel", "postgresql"), default="sqlite"
    )
    parser.add_argument("--mode", choices=MODES, default="kill")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="devkit-sso-soak-")))
        store_url = f"sqlite:///{folder}/soak.db"
        harm: Callable[[], None] | None = None
        redis: RedisServer | None = None
        failovers: Failovers | None = None
        if options.store == "redis":
            redis = RedisServer(folder, appendonly=True)
            stack.callback(redis.stop)
            store_url, harm = redis.url, partial(harm_redis, redis)
        elif options.store == "sentinel":
            sentinels = Sentinels(folder)
            stack.callback(sentinels.stop)
            store_url = sentinels.url
            harm = failovers = Failovers(sentinels)
        elif options.store == "postgresql":
            # psycopg is needed only here.
            from tests.postgresql_server import PostgreSQLServer

            postgresql = PostgreSQLServer()
            stack.callback(postgresql.remove)
            store_url, harm = postgresql.url, partial(harm_postgresql, postgresql)
        measurements: dict[str, Callable[[], Rows]] = {
            "hang": lambda: outages.measure_hang(store_url, options.seconds),
            "sign-ins": lambda: outages.measure_sign_ins(store_url, options.seconds),
            "store": lambda: outages.measure_store(store_url, options.seconds, redis),
            "slow": lambda: outages.measure_slow(store_url),
            "bad-codes": lambda: outages.measure_bad_codes(store_url, options.seconds),
        }
        if options.mode == "store" and options.store in ("sentinel", "postgresql"):
            parser.error("--mode store works with sqlite and redis only")
        if options.mode in measurements:
            show(measurements[options.mode]())
            return 0
        (instance,) = stack.enter_context(site(store_url))
        faults = Faults(instance, harm)
        began = time.monotonic()
        tally = load(instance.url, options.seconds, PEOPLE, faults)
        seconds = time.monotonic() - began
    mixed_up = tally.wrong - tally.undone
    rows: Rows = [
        ("store", options.store),
        ("seconds", f"{seconds:.0f}"),
        ("workers killed", faults.worker_kills),
        ("faults of the store", faults.store_faults),
        ("logins", tally.logins),
        ("logins/s", f"{tally.logins / seconds:.1f}"),
        ("reads", tally.reads),
        ("reads/s", f"{tally.reads / seconds:.1f}"),
        ("lost", tally.lost),
        ("mixed up", mixed_up),
        ("logouts undone", tally.undone),
        ("no response", tally.unanswered),
        ("5xx", dict(sorted(tally.errors.items())) or 0),
        ("worst pause, s", f"{tally.worst:.2f}"),
    ]
    is_right = not mixed_up and not set(tally.errors) - {503}
    if failovers is None:
        is_right &= not tally.lost and not tally.undone
    else:
        is_right &= not failovers.lost_though_received
        rows += [
            ("records before failovers", failovers.written),
            ("of these lost", failovers.lost),
            ("though a replica had it", failovers.lost_though_received),
        ]
    show(rows)
    return 0 if is_right else 1


def show(rows: Rows) -> None:
    for name, value in rows:
        print(f"{name:<24}{value!s:>24}")


if __name__ == "__main__":
    sys.exit(main())
