"""`make demo`: both servers start, it prints instructions, and Ctrl-C stops everything."""

from __future__ import annotations

import html
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from .. import processes

pytestmark = [pytest.mark.checkout, pytest.mark.slow]


@contextmanager
def demo(app_port: int, sandbox_port: int, folder: Path) -> Iterator[subprocess.Popen[str]]:
    ports = ["--app-port", str(app_port), "--sandbox-port", str(sandbox_port)]
    with subprocess.Popen(
        [sys.executable, "-m", "tools.demo", *ports],
        cwd=processes.ROOT,
        env=os.environ | {"TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def children(process: subprocess.Popen[str]) -> list[int]:
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in listed.split()]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_both_start_and_end_together(tmp_path: Path, end: signal.Signals) -> None:
    app_port, sandbox_port = processes.free_port(), processes.free_port()
    with demo(app_port, sandbox_port, tmp_path) as process:
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(4)]
        assert lines == [
            "\n",
            f"Open http://127.0.0.1:{app_port}\n",
            "and sign in as ada (Admin), bob (User) or anyone else.\n",
            "Press Ctrl-C to stop.\n",
        ]
        address = f"http://127.0.0.1:{app_port}"
        page = requests.get(f"{address}/reports", headers={"Accept": "text/html"}, timeout=60)
        # The script of this page would lead to the sandbox.
        (url,) = re.findall(r'data-authorize="([^"]+)"', page.text)
        assert url.startswith(f"http://127.0.0.1:{sandbox_port}/sso/oauth2/authorize?")
        assert "Sign in" in requests.get(html.unescape(url), timeout=60).text
        assert "Every ship, every night" in requests.get(address, timeout=60).text
        started = children(process)
        assert len(started) == 2
        assert list(tmp_path.iterdir()) != []
        process.send_signal(end)
        assert process.wait(60) == 0
        assert [pid for pid in started if Path(f"/proc/{pid}").exists()] == []
        assert list(tmp_path.iterdir()) == []
        for port in (app_port, sandbox_port):
            assert not answers(port)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize(("taken", "variable"), [("app", "APP_PORT"), ("sandbox", "SANDBOX_PORT")])
def test_a_port_in_use(tmp_path: Path, taken: str, variable: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port, free = listening.getsockname()[1], processes.free_port()
        app_port, sandbox_port = (port, free) if taken == "app" else (free, port)
        with demo(app_port, sandbox_port, tmp_path) as process:
            output, errors = process.communicate(timeout=60)
            assert process.returncode == 1
    assert output == ""
    assert errors == (
        f"Port {port} cannot be used (Address already in use). "
        f"Choose another port: make demo {variable}={port + 1}\n"
    )


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    ports = ["--app-port", str(processes.free_port())]
    ports += ["--sandbox-port", str(processes.free_port())]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tools.demo", *ports],
            cwd=processes.ROOT,
            env=os.environ | {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": ""},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "The demo ended: No space left on device."
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_when_one_process_ends_the_other_ends_too(tmp_path: Path) -> None:
    with demo(processes.free_port(), processes.free_port(), tmp_path) as process:
        assert process.stdout
        while not process.stdout.readline().startswith("Press Ctrl-C"):
            assert process.poll() is None
        started = children(process)
        os.kill(started[0], signal.SIGKILL)
        assert process.wait(60) == 1
        assert process.stderr
        assert "The sandbox stopped unexpectedly, with status -9." in process.stderr.read()
        assert [pid for pid in started if Path(f"/proc/{pid}").exists()] == []
