"""What a run found, as Markdown: tables, and the figures to reach."""

from __future__ import annotations

import json
from statistics import median

import stage
from contest import Result, Results
from entries import BASE

OUT = stage.ROOT.parent / "build" / "bench"


def cell(results: Results, key: str, name: str) -> str:
    result: Result = results.works[key][name]
    if not result.seconds:
        return "—"
    if name == BASE:
        return f"{median(result.seconds) * 1e6:,.0f} µs"
    ratios = results.ratios(key, name)
    return f"{median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})"


def table(results: Results) -> list[str]:
    """A row for each work, a column for each lane."""
    names = results.names()
    lines = ["| work | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for key, title in results.titles.items():
        cells = [cell(results, key, name) for name in names]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return lines


def write(results: Results, docs: bool) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{results.engine}.json").write_text(json.dumps(results.as_json()))
    text = "\n".join(table(results)) + "\n"
    (OUT / f"{results.engine}.md").write_text(text)
    print(text)
