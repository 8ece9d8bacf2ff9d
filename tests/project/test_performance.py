"""The results in docs/performance.md are complete, and its chart shows those of its table.

Nothing here measures: make bench does.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from ..processes import ROOT

pytestmark = [pytest.mark.checkout, pytest.mark.slow]


@pytest.fixture
def tables() -> dict[str, list[list[str]]]:
    """Return the cells of each table by its name, without the two lines of its heading."""
    text = (ROOT / "docs/performance.md").read_text("utf-8")
    places = re.findall(r"<!-- benchmark: (\w+) -->\n(.*?)<!-- end -->", text, re.DOTALL)
    assert len(places) == text.count("<!--") / 2
    return {name: [cells(line) for line in table.splitlines()[3:-1]] for name, table in places}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_table_is_there(tables: dict[str, list[list[str]]]) -> None:
    assert {"guarded", "login", "startup", "scale_redis", "capacity"} <= set(tables)
    for name, rows in tables.items():
        assert len(rows) >= 3, name


def test_the_chart_shows_the_table(tables: dict[str, list[list[str]]]) -> None:
    picture = ET.parse(ROOT / "docs/performance.svg")
    texts = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    expected = [text for name, _, ratio, *_ in tables["guarded"] for text in (name, ratio)]
    assert texts[2:] == expected
