"""Writes the results into docs/performance.md and docs/performance.svg.

``make bench`` keeps its results in benchmarks/results.json; then run ``python -m benchmarks.docs``.
A table belongs between ``<!-- benchmark: name -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

from .chart import draw
from .guarded import RATIO
from .report import Table

ROOT: Final = Path(__file__).parent.parent
RESULTS: Final = ROOT / "benchmarks/results.json"
PAGE: Final = ROOT / "docs/performance.md"
CHART: Final = ROOT / "docs/performance.svg"

PLACE: Final = re.compile(r"(<!-- benchmark: (\w+) -->\n).*?(<!-- end -->\n)", re.DOTALL)


def main() -> None:
    """Write the tables that were measured, and the chart if it was."""
    results = json.loads(RESULTS.read_text("utf-8"))
    tables = {found["name"]: Table(**found) for found in results["tables"]}

    def fill(place: re.Match[str]) -> str:
        table = tables.get(place[2])
        return f"{place[1]}\n{table.markdown()}\n\n{place[3]}" if table else place[0]

    PAGE.write_text(PLACE.sub(fill, PAGE.read_text("utf-8")), "utf-8")
    ratios = {
        name.removeprefix(RATIO): value
        for name, value in results["figures"].items()
        if name.startswith(RATIO)
    }
    if ratios:
        title = "What a guarded request takes, relative to Flask's session cookie"
        note = "Shorter is better. The broken line is Flask's session cookie."
        CHART.write_text(draw(title, note, ratios, "Flask-DevKit-SSO"), "utf-8")


if __name__ == "__main__":
    main()
