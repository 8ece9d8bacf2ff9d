"""docs/writing_a_server.md: the statements work, the sandbox has what the page names."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests

from flask_devkit_sso import sandbox

from .. import processes
from ..cli.place import CANARY
from ..documents import blocks
from ..processes import ROOT
from ..threads import at_once

pytestmark = [pytest.mark.checkout, pytest.mark.slow]

PAGE = "docs/writing_a_server.md"
SCHEMA = """
CREATE TABLE codes (code_hash TEXT PRIMARY KEY, grant_id TEXT, expires_at REAL, used_at REAL);
CREATE TABLE guesses (account TEXT PRIMARY KEY, made INTEGER, ends_at REAL);
"""

Rows = list[tuple[Any, ...]]


@pytest.fixture
def execute(tmp_path: Path) -> Callable[..., Rows]:
    """Return a function that executes a statement as a process of its own would."""

    def execute(statement: str, **values: object) -> Rows:
        with closing(sqlite3.connect(tmp_path / "server.db", timeout=60)) as connection, connection:
            return connection.execute(statement, values).fetchall()

    for statement in SCHEMA.strip().splitlines():
        execute(statement)
    return execute


def test_only_one_of_many_requests_takes_a_code(execute: Callable[..., Rows]) -> None:
    take, _ = blocks(PAGE, "sql")
    now = time.time()
    execute("INSERT INTO codes VALUES ('hash', 'grant', :end, NULL)", end=now + 60)
    execute("INSERT INTO codes VALUES ('late', 'grant', :end, NULL)", end=now)
    found = at_once([lambda: execute(take, code_hash="hash", now=now)] * 8)
    assert sorted(found) == [[]] * 7 + [[("grant",)]]
    assert execute(take, code_hash="late", now=now) == []
    assert execute(take, code_hash="other", now=now) == []


def test_simultaneous_guesses_are_all_counted(execute: Callable[..., Rows]) -> None:
    _, count = blocks(PAGE, "sql")
    now = time.time()
    found = at_once([lambda: execute(count, account="ada", now=now)] * 8)
    assert sorted(found) == [[(number,)] for number in range(1, 9)]
    assert execute(count, account="bob", now=now) == [(1,)]
    assert execute(count, account="ada", now=now + 59) == [(9,)]
    assert execute(count, account="ada", now=now + 60) == [(1,)]


def test_check_server_in_the_ci_of_a_server(tmp_path: Path) -> None:
    shell = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", "-ec", script],
            cwd=tmp_path,
            env=shell | environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    (script,) = blocks(PAGE, "bash")
    password = "canary password"
    with processes.sandbox("--client-secret", CANARY) as exported:
        url = exported["SERVER_URL"]
        body = {"username": "ada", "password": password}
        requests.post(f"{url}/_sandbox/people", json=body, timeout=60).raise_for_status()
        script = script.replace("http://127.0.0.1:9000", url)
        right = run(script, CLIENT_SECRET=CANARY, PASSWORD=password)
        wrong = run(script, CLIENT_SECRET=CANARY, PASSWORD="guess")
    assert right.returncode == 0, right.stdout + right.stderr
    assert "6. logout: refuses the access token afterwards with 8205" in right.stdout
    assert wrong.returncode == 1
    for shown in (right.stdout, right.stderr, wrong.stdout, wrong.stderr):
        assert password not in shown
        assert CANARY not in shown


def test_the_sandbox_has_what_the_page_names() -> None:
    text = (ROOT / PAGE).read_text("utf-8")
    folder = Path(sandbox.__file__).parent
    rows = re.findall(r"^\| \[.*\| (.*) \|$", text, re.MULTILINE)
    assert len(rows) == 5
    for row in rows:
        module = ""
        for name in re.findall(r"`([\w.]+)`", row):
            if name.endswith(".py"):
                module = (folder / name).read_text("utf-8")
            else:
                for part in name.split("."):
                    assert re.search(rf"^ *(def|class) {part}\b", module, re.MULTILINE), name
