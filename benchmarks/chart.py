"""The bar chart of docs/performance.md, as SVG."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Final

WIDTH: Final = 760
LABELS: Final = 300
"""Where the bars begin."""

BARS: Final = 370
"""The length of the longest bar."""

ROW: Final = 34
TOP: Final = 64

STYLE: Final = """
  .ground { fill: #ffffff }
  .bar { fill: #b4c1cf }
  .own { fill: #2b6cb0 }
  .base { stroke: #5b6b7b; stroke-width: 1.5; stroke-dasharray: 4 4 }
  text { fill: #17212b }
  .value { stroke: #ffffff; stroke-width: 4; paint-order: stroke }
  .title { font-weight: 600 }
  .small { font-size: 12.5px; fill: #4a5866 }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #131a21 }
    .bar { fill: #4b5b6b }
    .own { fill: #63a4e8 }
    .base { stroke: #9fb0c0 }
    .value { stroke: #131a21 }
    text { fill: #e6edf3 }
    .small { fill: #b3c0cc }
  }
"""


def draw(title: str, note: str, ratios: Mapping[str, float], own: str) -> str:
    """Return a chart of ratios as SVG.

    :param ratios: the bars by their labels. A line shows where 1 is.
    :param own: a text that the labels of highlighted bars contain.
    """
    height = TOP + ROW * len(ratios) + 12
    unit = BARS / max(ratios.values())
    x = LABELS + unit
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"',
        '  aria-labelledby="title" font-family="system-ui, sans-serif" font-size="14">',
        f'<title id="title">{escape(title)}</title>',
        f"<style>{STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{height}" rx="8"/>',
        f'<text class="title" x="24" y="30">{escape(title)}</text>',
        f'<text class="small" x="24" y="50">{escape(note)}</text>',
        f'<path class="base" d="M{x:.1f} {TOP - 4}V{height - 10}"/>',
    ]
    for number, (label, ratio) in enumerate(ratios.items()):
        y, length = TOP + ROW * number, ratio * unit
        kind = "own" if own in label else "bar"
        lines += [
            f'<text x="{LABELS - 12}" y="{y + 19}" text-anchor="end">{escape(label)}</text>',
            f'<rect class="{kind}" x="{LABELS}" y="{y + 4}" width="{length:.1f}" height="22"/>',
            f'<text class="value" x="{LABELS + length + 8:.1f}" y="{y + 19}">{ratio:.2f}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])
