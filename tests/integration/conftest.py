from __future__ import annotations

from collections.abc import Iterator

import pytest

from .firefox import Firefox, Tab, started


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
