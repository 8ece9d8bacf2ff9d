"""Run the benchmarks: ``python -m benchmarks``, or only some: ``python -m benchmarks guarded``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.redis_server import RedisServer

from . import capacity, guarded, login, machine, profile, scale, startup
from .apps import Site
from .auth_server import auth_server
from .report import Report

MILLISECONDS = 20
"""How long the slow authentication server takes for each response."""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "only", nargs="*", help="guarded, login, startup, profile or scale; by default all of them"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--sessions", type=int, default=1_000_000, help="for scale")
    parser.add_argument("--json", type=Path, help="a file for the results")
    options = parser.parse_args()
    rounds = options.rounds
    sections: dict[str, Callable[[Site], Report]] = {
        "guarded": lambda site: guarded.measure(site, rounds),
        "login": lambda site: _measure_logins(site, rounds),
        "startup": lambda site: startup.measure(site, rounds),
        "profile": lambda site: profile.measure(site, seconds=rounds / 3),
        "scale": lambda site: scale.measure(site, options.sessions),
    }
    if unknown := set(options.only) - set(sections):
        parser.error(f"there is no {', '.join(unknown)}")
    report = Report([machine.describe()])
    _print(report)
    for name in options.only or sections:
        began = time.monotonic()
        with _site() as site:
            found = sections[name](site)
        _print(found)
        print(f"({name} took {time.monotonic() - began:.0f} s)\n", file=sys.stderr)
        report = Report(report.tables + found.tables, report.figures | found.figures)
    if table := capacity.compute(report.figures):
        _print(Report([table]))
        report.tables.append(table)
    if options.json:
        options.json.write_text(json.dumps(asdict(report), indent=1, ensure_ascii=False), "utf-8")


def _measure_logins(site: Site, rounds: int) -> Report:
    with auth_server(MILLISECONDS) as slow_server:
        return login.measure(site, slow_server, MILLISECONDS, rounds)


@contextmanager
def _site() -> Iterator[Site]:
    """Run what the applications need."""
    with TemporaryDirectory(prefix="devkit-sso-bench-") as name, auth_server() as server:
        folder = Path(name)
        redis = RedisServer(folder)
        try:
            yield Site(server, redis.url, folder)
        finally:
            redis.stop()


def _print(report: Report) -> None:
    for table in report.tables:
        print(f"### {table.title}\n\n{table.markdown()}\n", flush=True)


if __name__ == "__main__":
    main()
