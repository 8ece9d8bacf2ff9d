"""docs/writing_a_server.md: the statements work, the sandbox has what the page names."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flask_devkit_sso import sandbox

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
