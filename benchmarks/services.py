"""The processes that the contenders need: an authentication server and a Redis."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def auth_server(milliseconds: int = 0) -> Iterator[str]:
    """Run the authentication server and return its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.server", str(milliseconds)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.terminate()
        process.wait()


def counts(url: str) -> dict[str, int]:
    """Return how many connections and calls a server has had, and how many calls failed."""
    with urllib.request.urlopen(f"{url}/counts", timeout=10) as response:  # noqa: S310
        found: dict[str, int] = json.load(response)["data"]
    return found


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Run a Redis without persistence and return its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"port": port, "bind": "127.0.0.1", "dir": folder, "save": "", "appendonly": "no"}
    arguments = [str(text) for name, value in options.items() for text in (f"--{name}", value)]
    process = subprocess.Popen(
        ["/usr/bin/redis-server", *arguments],
        stdout=subprocess.DEVNULL,
    )
    try:
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()
