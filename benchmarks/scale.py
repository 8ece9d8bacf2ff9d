"""Stores with many sessions: what single operations take, and what the sessions need.

A login writes twice: that it was used, and its session. The logins are a millisecond apart, so that
work which is left to the background has time to get in their way.
"""

from __future__ import annotations

import random
import secrets
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from flask_devkit_sso import StoreUnavailable
from flask_devkit_sso.service import EXTENSION, SessionService

from .apps import Site
from .measure import no_garbage_collection
from .report import Report, Table
from .stores import HOARDER, Backend, Filled
from .stores.redis import Redis
from .stores.sqlite import SQLite

ROUNDS: Final = 5
READS: Final = 1000
LOGINS: Final = 600
"""How many there are in each round."""

PAUSE: Final = 0.001
"""Seconds between two logins."""

OPERATIONS: Final = 3000
"""How often an operation is repeated to find out what it takes on average."""

READ: Final = "reading a session"
TOUCH: Final = "recording that a session is in use, at most once a minute"
LOGIN: Final = "what a login writes"

HOARDED: Final = 20_000
"""How many sessions one user has."""


class Contender:
    """A store with sessions, and how many seconds its operations took."""

    def __init__(self, filled: Filled) -> None:
        service: SessionService = filled.app.extensions[EXTENSION].session_service
        self._store = service.store
        self._keys = filled.keys
        self._installation = filled.keys[0].partition(":")[0]
        self._data = self.read()
        self.reads: list[float] = []
        self.logins: list[float] = []

    def read(self) -> str:
        """Read a session."""
        row = self._store.read(random.choice(self._keys))  # noqa: S311 - no secret
        if row is None:
            raise AssertionError("A session is missing")
        return row.data

    def log_in(self) -> None:
        """Write what a login writes."""
        now, unique = time.time(), secrets.token_hex(32)
        self._store.add(f"{self._installation}:login:{unique}", "", expires=now + 660)
        self._store.add(
            f"{self._installation}:session:{unique}",
            self._data,
            expires=now + 1800,
            owner=f"{self._installation}:user:u-{unique}",
        )

    def touch(self) -> None:
        """Record that a session is in use."""
        now = time.time()
        self._store.touch(random.choice(self._keys), used=now, expires=now + 1800)  # noqa: S311

    def round(self) -> None:
        """Measure some reads and logins."""
        self.reads += [_seconds(self.read) for _ in range(READS)]
        for _ in range(LOGINS):
            time.sleep(PAUSE)
            self.logins.append(_seconds(self.log_in))


def measure(site: Site, sessions: int) -> Report:
    """Measure stores with up to a number of sessions."""
    found = [_measure(SQLite(site), sessions), _measure(Redis(site), sessions)]
    return Report(
        [
            *(one.table for one in found),
            _operations_table(found, sessions),
            Table(
                "stored",
                "Sessions in a store",
                ["", *(one.name for one in found)],
                [[fact, *(one.facts.get(fact, "") for one in found)] for fact in found[0].facts],
            ),
        ],
        {f"{one.name}: {name}": value for one in found for name, value in one.figures().items()},
    )


class _Found(NamedTuple):
    """What was measured with one kind of store.

    :ivar units: how many seconds each operation takes on average, and how many of them the store's
        server works.
    """

    name: str
    table: Table
    facts: dict[str, str]
    size: float
    units: dict[str, tuple[float, float]]

    def figures(self) -> dict[str, float]:
        """Return the numbers for docs/performance.md."""
        found = {"bytes": self.size}
        for operation, (seconds, cpu) in self.units.items():
            found |= {operation: seconds, f"{operation}, CPU": cpu}
        return found


def _measure(backend: Backend, sessions: int) -> _Found:
    few = [backend.fill(count) for count in (1, 1000, sessions // 10)]
    largest = backend.fill(sessions, HOARDED)
    expired = sessions // 10
    with no_garbage_collection():
        contenders = {f"{len(filled.keys):,}": Contender(filled) for filled in [*few, largest]}
        for _ in range(ROUNDS):
            for contender in contenders.values():
                contender.round()
        units = _units(backend, Contender(largest))
        ended = _end_all(largest)
        alive = backend.expire(largest, expired)
        # The smallest store is measured again, because the machine may be slower now.
        last, smallest = Contender(alive), Contender(few[0])
        # The application's own thread deletes them. It begins up to half a minute later, and only
        # while the application is in use.
        while backend.expired(alive) >= expired:
            last.log_in()
            time.sleep(1)
        for _ in range(ROUNDS):
            smallest.round()
            last.round()
    return _Found(
        backend.name,
        Table(
            f"scale_{backend.name.lower()}",
            f"{backend.name} with many sessions",
            [
                "sessions",
                "read, µs",
                "99 %",
                "login's writes, µs",
                "99 %",
                "99 %, relative to one session",
                "worst",
            ],
            [
                *(_row(name, one, contenders["1"]) for name, one in contenders.items()),
                _row(f"{sessions:,}, and {expired:,} expired", last, smallest),
            ],
        ),
        {
            "size of a session": f"{largest.size / 1024:.1f} KB",
            f"ending {HOARDED:,} sessions of one user in one call": ended,
            **backend.residue(alive),
        },
        largest.size,
        units,
    )


def _operations_table(found: Sequence[_Found], sessions: int) -> Table:
    return Table(
        "operations",
        f"One operation with {sessions:,} sessions, on average",
        ["", *(f"µs, {one.name}" for one in found), "µs of CPU time of the Redis server"],
        [
            [
                operation,
                *(_microseconds(one.units[operation][0]) for one in found),
                _microseconds(found[-1].units[operation][1]),
            ]
            for operation in found[0].units
        ],
    )


def _row(name: str, contender: Contender, smallest: Contender) -> list[str]:
    late = _quantile(contender.logins, 0.99)
    return [
        name,
        _microseconds(statistics.median(contender.reads)),
        _microseconds(_quantile(contender.reads, 0.99)),
        _microseconds(statistics.median(contender.logins)),
        _microseconds(late),
        f"{late / _quantile(smallest.logins, 0.99):.2f}",
        _microseconds(max(contender.logins)),
    ]


def _units(backend: Backend, contender: Contender) -> dict[str, tuple[float, float]]:
    operations: dict[str, Callable[[], object]] = {
        READ: contender.read,
        TOUCH: contender.touch,
        LOGIN: contender.log_in,
    }
    units = {}
    for name, operation in operations.items():
        cpu = backend.cpu()
        took = sum(_seconds(operation) for _ in range(OPERATIONS))
        units[name] = took / OPERATIONS, (backend.cpu() - cpu) / OPERATIONS
    return units


def _end_all(filled: Filled) -> str:
    """End all sessions of the hoarder in one call, and return how that went."""
    service: SessionService = filled.app.extensions[EXTENSION].session_service
    started = time.perf_counter()
    with filled.app.app_context():
        try:
            count = service.end_sessions(HOARDER)
        except StoreUnavailable as error:
            return f"fails: {error}"
    seconds = time.perf_counter() - started
    return f"{seconds:.2f} s" if count == HOARDED else f"ends only {count:,}"


def _seconds(operation: Callable[[], object]) -> float:
    started = time.perf_counter()
    operation()
    return time.perf_counter() - started


def _quantile(values: Sequence[float], part: float) -> float:
    return sorted(values)[int(len(values) * part)]


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f}"
