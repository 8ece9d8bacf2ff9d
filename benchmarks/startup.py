"""What importing each library takes, and how much memory a process with it needs.

Each number comes from a process of its own. Linux only.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from tempfile import TemporaryDirectory
from typing import NamedTuple

from .apps import Site
from .report import Report, Table


class Startup(NamedTuple):
    """What a contender imports on top of Flask, and the function of ``apps`` that creates its
    application."""

    imports: str
    create: str


BARE = Startup("", "plain.create")

CONTENDERS = {
    "Authlib": Startup("authlib.integrations.flask_client", "authlib_client.create"),
    "Flask-Dance": Startup("flask_dance.consumer", "flask_dance.create"),
    "Flask-Login": Startup("flask_login", "flask_login.in_memory"),
    "Flask-Session on Redis": Startup("flask_session, redis", "flask_session.on_redis"),
    "Flask-DevKit-SSO on SQLite": Startup("flask_devkit_sso", "devkit_sso.on_sqlite"),
    "Flask-DevKit-SSO on Redis": Startup("flask_devkit_sso, redis", "devkit_sso.on_redis"),
}

_TIME_IMPORT = """
import time
import {first}
started = time.perf_counter()
import {second}
print(time.perf_counter() - started)
"""

_READ_MEMORY = """
from pathlib import Path
from benchmarks.apps import Site, {module}

def megabytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

app = {module}.{function}(Site({server!r}, {redis!r}, Path({folder!r})))
print(megabytes())
from benchmarks.browser import Browser
Browser(app).sign_in()
print(megabytes())
"""


def measure(site: Site, rounds: int) -> Report:
    """Compare import times, and the memory after ``init_app`` and after a login."""
    imports: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(rounds):
        flask = _import("sys", "flask")
        for name, contender in CONTENDERS.items():
            imports[name].append(_import("flask", contender.imports) / flask)
    contenders = {"": BARE, **CONTENDERS}
    memory: dict[str, list[list[float]]] = {name: [] for name in contenders}
    for _ in range(max(3, rounds // 3)):
        for name, contender in contenders.items():
            memory[name].append(_memory(site, contender.create))
    return Report([_table(imports, memory)])


def _table(imports: Mapping[str, list[float]], memory: Mapping[str, list[list[float]]]) -> Table:
    started, used = (
        {name: statistics.median(one[step] for one in found) for name, found in memory.items()}
        for step in (0, 1)
    )
    return Table(
        "startup",
        "Starting a process",
        [
            "",
            "import, relative to `import flask`",
            "minimum",
            "maximum",
            "MB more than Flask alone",
            "MB more after a login",
        ],
        [
            [
                name,
                f"{statistics.median(ratios):.2f}",
                f"{min(ratios):.2f}",
                f"{max(ratios):.2f}",
                f"{started[name] - started['']:.1f}",
                f"{used[name] - used['']:.1f}",
            ]
            for name, ratios in imports.items()
        ],
    )


def _import(first: str, second: str) -> float:
    """Return how many seconds an import takes after another one."""
    (seconds,) = _run(_TIME_IMPORT.format(first=first, second=second))
    return seconds


def _memory(site: Site, create: str) -> list[float]:
    """Return the resident memory of a process in MB: with an application, and after a login."""
    module, _, function = create.partition(".")
    with TemporaryDirectory() as folder:
        return _run(
            _READ_MEMORY.format(
                module=module,
                function=function,
                server=site.server,
                redis=site.redis,
                folder=folder,
            )
        )


def _run(program: str) -> list[float]:
    # Otherwise a package that was never compiled is compiled in each process.
    environment = {n: value for n, value in os.environ.items() if n != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=environment,
    )
    return [float(line) for line in done.stdout.split()]
