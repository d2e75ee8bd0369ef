"""Charts in SVG: a panel for each work, a bar for each contender, a whisker for the spread."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from statistics import median

COLUMNS = 3
WIDTH = 1080
GAP = 24
ROW = 17
HEAD = 30
LABELS = 128
FIGURE = 40  # right of the bars
COLOURS = {"vinyl": "#0b6e4f", "peer": "#8a94a6", "raw": "#c3c9d4"}
INK, FAINT, PAPER = "#1d2733", "#d5dae1", "#ffffff"


@dataclass(frozen=True)
class Bar:
    """``values`` of all rounds; ``kind`` is one of COLOURS; an empty bar says why it has none."""

    label: str
    kind: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    title: str
    bars: tuple[Bar, ...]


def kind_of(name: str) -> str:
    if name.startswith("vinyl"):
        return "vinyl"
    return "raw" if "raw" in name or "limit" in name else "peer"


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(text)}</text>'


def _panel(panel: Panel, x: float, y: float, width: float, most: float) -> Iterable[str]:
    """``most`` is the ratio at the right end; what is longer is cut off there, and says so."""
    left, room = x + LABELS, width - LABELS - FIGURE

    def at(value: float) -> float:
        return left + room * min(value, most) / most

    yield _text(x, y + 14, panel.title, 'font-weight="600"')
    bottom = y + HEAD + ROW * len(panel.bars)
    yield (
        f'<line x1="{at(1):.1f}" x2="{at(1):.1f}" y1="{y + HEAD - 6}" y2="{bottom}" '
        f'stroke="{INK}" stroke-dasharray="2 3"/>'
    )
    for number, bar in enumerate(panel.bars):
        top = y + HEAD + ROW * number
        weight = ' font-weight="600"' if bar.kind == "vinyl" else ""
        yield _text(left - 6, top + 10, bar.label, f'text-anchor="end"{weight}')
        if not bar.values:
            yield _text(left + 4, top + 10, "cannot", f'fill="{COLOURS["peer"]}"')
            continue
        middle = median(bar.values)
        yield (
            f'<rect x="{left}" y="{top + 1}" width="{max(at(middle) - left, 1):.1f}" '
            f'height="{ROW - 5}" fill="{COLOURS[bar.kind]}"/>'
        )
        low, high, centre = at(min(bar.values)), at(max(bar.values)), top + (ROW - 3) / 2
        yield (
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{centre}" y2="{centre}" '
            f'stroke="{INK}" stroke-width="1.2"/>'
        )
        cut = " …" if middle > most else ""
        yield _text(left + room + 6, top + 10, f"{middle:.2f}{cut}", weight.strip())


def draw(title: str, panels: list[Panel], most: float = 2.0) -> str:
    """An SVG document.  The dashed line of each panel is synchronous Django."""
    width = (WIDTH - GAP * (COLUMNS + 1)) / COLUMNS
    y = 52.0
    body: list[str] = []
    for first in range(0, len(panels), COLUMNS):
        line = panels[first : first + COLUMNS]
        for number, panel in enumerate(line):
            body += _panel(panel, GAP + number * (width + GAP), y, width, most)
        y += HEAD + ROW * max(len(panel.bars) for panel in line) + GAP
    head = _text(GAP, 30, title, 'font-size="16" font-weight="600"')
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:.0f}" '
            f'font-family="system-ui, sans-serif" font-size="11" fill="{INK}" role="img">',
            f"<title>{escape(title)}</title>",
            f'<rect width="100%" height="100%" fill="{PAPER}" stroke="{FAINT}"/>',
            head,
            *body,
            "</svg>",
            "",
        ]
    )
