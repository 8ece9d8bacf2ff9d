"""docs/security.md names only tests that exist."""

from __future__ import annotations

import re

import pytest

from ..processes import ROOT

pytestmark = [pytest.mark.checkout, pytest.mark.slow]


def test_every_named_test_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/security.md").read_text("utf-8")))
    assert len(named) > 25
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    }
    assert named - defined == set()
