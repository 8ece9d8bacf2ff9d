"""What the benchmarks print: tables in Markdown, and the figures that other pages need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .measure import Result


@dataclass(frozen=True)
class Table:
    """One table.

    :ivar name: identifies it in docs/performance.md.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Return the table without its title."""
        lines = [self.columns, ["---", *["---:" for _ in self.columns[1:]]], *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@dataclass(frozen=True)
class Report:
    """What one benchmark has measured.

    :ivar figures: numbers by name, for the chart and for what is computed from them.
    """

    tables: list[Table]
    figures: dict[str, float] = field(default_factory=dict)


def compared(
    name: str,
    title: str,
    results: Iterable[Result],
    more: dict[str, dict[str, str]] | None = None,
) -> Table:
    """Return the table of a comparison.

    :param more: further columns: by their titles, what they contain for each contender.
    """
    columns = more or {}
    return Table(
        name,
        title,
        ["", "µs", "ratio", "minimum", "maximum", *columns],
        [
            [
                result.name,
                f"{result.median * 1e6:,.0f}",
                f"{result.ratio:.2f}",
                f"{min(result.ratios):.2f}",
                f"{max(result.ratios):.2f}",
                *(column[result.name] for column in columns.values()),
            ]
            for result in results
        ],
    )
