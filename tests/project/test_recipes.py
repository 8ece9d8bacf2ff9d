"""Every recipe of the documentation is run by a test of `make integration`."""

from __future__ import annotations

import pytest

from ..documents import ROOT, every_block
from ..integration.recipes import BLOCK, sections

pytestmark = [pytest.mark.checkout, pytest.mark.slow]

PAGES = sorted(path.name for path in (ROOT / "docs").glob("recipes*.md"))


@pytest.mark.parametrize("page", PAGES)
def test_every_recipe_is_run(page: str) -> None:
    tests = "".join(
        path.read_text("utf-8") for path in (ROOT / "tests/integration").glob("test_*.py")
    )
    assert f'DOCUMENT = "{page}"' in tests
    for heading, text in sections(page).items():
        assert f'"{heading}"' in tests
        names = [name for name, _ in BLOCK.findall(text)]
        assert names
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_names_its_file(page: str) -> None:
    text = (ROOT / "docs" / page).read_text("utf-8")
    assert len(BLOCK.findall(text)) == len(every_block(f"docs/{page}"))
