"""What the benchmarks ran on."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from tests.redis_server import REDIS_SERVER

from .report import Table

LIBRARIES: Final = [
    "Flask-DevKit-SSO",
    "Flask",
    "Werkzeug",
    "itsdangerous",
    "cryptography",
    "urllib3",
    "redis",
    "hiredis",
    "Authlib",
    "Flask-Dance",
    "Flask-Login",
    "Flask-Session",
    "requests",
]


def describe() -> Table:
    """Return the machine, and the versions of everything that takes part."""
    return Table(
        "machine",
        "Machine and versions",
        ["", ""],
        [
            ["CPU", _cpu()],
            ["cores", f"{os.cpu_count()}"],
            ["load before the run", f"{os.getloadavg()[0]:.2f}"],
            ["system", platform.platform(terse=True)],
            ["Python", platform.python_version()],
            ["SQLite", sqlite3.sqlite_version],
            ["Redis", _redis()],
            *([library, _version(library)] for library in LIBRARIES),
        ],
    )


def _cpu() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _redis() -> str:
    printed = subprocess.run([REDIS_SERVER, "--version"], capture_output=True, text=True).stdout
    found = re.search(r"v=(\S+)", printed)
    return found[1] if found else printed.strip()


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"
