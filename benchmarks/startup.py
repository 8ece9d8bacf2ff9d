"""What importing the package costs, and how much memory one process needs."""

from __future__ import annotations

import statistics
import subprocess
import sys

_IMPORT = """
import time
import {first}
started = time.perf_counter()
import {second}
print(time.perf_counter() - started)
"""

_MEMORY = """
import os, sys
sys.argv = ["benchmark", {server!r}, {folder!r}]
from flask import Flask
if {extension}:
    from pathlib import Path
    from benchmarks.ours import ours, sign_in
    app = ours(sys.argv[1], None, Path(sys.argv[2]))
    if {login}:
        sign_in(app)
else:
    app = Flask("bare", static_folder=None)
    app.test_client().get("/")
for line in open("/proc/self/status"):
    if line.startswith("VmRSS"):
        print(int(line.split()[1]) / 1024)
"""


def import_ratio(rounds: int = 15) -> list[float]:
    """Return for each round the time of importing the package, relative to importing Flask."""
    return [
        _run(_IMPORT.format(first="flask", second="flask_devkit_sso"))
        / _run(_IMPORT.format(first="sys", second="flask"))
        for _ in range(rounds)
    ]


def memory(server: str, folder: str, *, extension: bool, login: bool = False) -> float:
    """Return the resident memory of a process in MB: the median of five."""
    code = _MEMORY.format(server=server, folder=folder, extension=extension, login=login)
    return statistics.median(_run(code) for _ in range(5))


def _run(code: str) -> float:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)
