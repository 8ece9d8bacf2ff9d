from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .firefox import Firefox, Tab, started

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here, so that only ``make integration`` runs it."""
    for item in items:
        if HERE in item.path.parents:
            for mark in ("integration", "checkout", "slow"):
                item.add_marker(mark)


@pytest.fixture(scope="session")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    with started(tmp_path_factory.mktemp("firefox")) as running:
        yield running


@pytest.fixture
def tab(firefox: Firefox) -> Iterator[Tab]:
    """A tab of Firefox, in which nobody is signed in."""
    opened = firefox.new_tab()
    yield opened
    opened.close()
