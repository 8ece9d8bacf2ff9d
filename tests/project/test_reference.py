"""The generated parts of docs/settings.md and docs/api.md are up to date and complete."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import flask_devkit_sso

from .. import processes

pytestmark = [pytest.mark.checkout, pytest.mark.slow]


def test_the_reference_is_up_to_date() -> None:
    check = subprocess.run(
        [sys.executable, "-m", "tools.reference", "--check"],
        cwd=processes.ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert check.returncode == 0, check.stdout + check.stderr


def test_every_public_name_has_an_entry() -> None:
    text = (processes.ROOT / "docs/api.md").read_text(encoding="utf-8")
    entries = re.findall(r"^### `(\w+)`$", text, re.MULTILINE)
    # It has no docstring: a table describes its attributes.
    assert "## The current user\n" in text
    assert set(flask_devkit_sso.__all__) - {"current_user"} <= set(entries)
    assert len(entries) == len(set(entries))
