"""Find the fenced blocks in README and docs, and run their programs."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from .conftest import CLIENT_ID, CLIENT_SECRET, SECRET_KEY

ROOT = Path(__file__).parent.parent
DOCUMENTS = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]


def every_block(document: str) -> list[tuple[str, str]]:
    """Return language and text of each fenced block."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = re.findall(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    assert len(re.findall(r"^ *(?:```|~~~)", text, re.MULTILINE)) == 2 * len(found), document
    return [(language, textwrap.dedent(block)) for _, language, block in found]


def blocks(document: str, language: str) -> list[str]:
    return [text for name, text in every_block(document) if name == language]


def run(
    program: str,
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    *,
    name: str = "<program>",
    **settings: str,
) -> dict[str, Any]:
    """Run a program with its settings in the environment; return the names that it defines.

    Its functions have the given file name.
    """
    given = {
        "SECRET_KEY": SECRET_KEY,
        "DEVKIT_SSO_CLIENT_ID": CLIENT_ID,
        "DEVKIT_SSO_CLIENT_SECRET": CLIENT_SECRET,
        "DEVKIT_SSO_STORE_URL": f"sqlite:///{folder}/sessions.db",
    }
    for setting, value in (given | settings).items():
        monkeypatch.setenv(f"FLASK_{setting}", value)
    # Flask looks here for the templates of a program that is not a file.
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"__name__": "program"}
    exec(compile(program, name, "exec"), names)
    return names


def shows(printed: str, expected: str) -> bool:
    """Tell whether a program printed what a document shows; ``…`` matches anything."""
    lines = [
        r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*") + " *\n"
        for line in expected.splitlines()
    ]
    return re.fullmatch("".join(lines), printed) is not None
