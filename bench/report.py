"""What a run found, as Markdown and SVG."""

from __future__ import annotations

from statistics import median

import chart
import pages
import targets
from contest import Results
from entries import BASE

TITLES = {
    "postgresql": "PostgreSQL over TCP: time of a call by synchronous Django's",
    "sqlite": "SQLite: time of a call by synchronous Django's",
}


def cell(results: Results, key: str, name: str) -> str:
    result = results.works[key][name]
    if not result.seconds:
        return "—"
    if name == BASE:
        return f"{median(result.seconds) * 1e6:,.0f} µs"
    ratios = results.ratios(key, name)
    return f"{median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})"


def table(results: Results, names: list[str]) -> list[str]:
    """A row for each work, a column for each name."""
    lines = ["| work | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for key, title in results.titles.items():
        cells = [cell(results, key, name) for name in names]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return lines


def groups(results: Results) -> list[tuple[str, list[str]]]:
    """The columns of each table, every one beside Django's."""
    names = [name for name in results.names() if name != BASE]
    ours = [name for name in names if name.startswith(("vinyl", "Django"))]
    peers = [name for name in names if name not in ours and chart.kind_of(name) == "peer"]
    raw = [name for name in names if chart.kind_of(name) == "raw"]
    found = (("Django and vinyl", ours), ("Other ORMs", peers), ("Raw drivers", raw))
    return [(title, [BASE, *columns]) for title, columns in found if columns]


def notes(results: Results) -> list[str]:
    """What a — in the tables means."""
    lines = [f"- {name} is not there: {reason}" for name, reason in results.absent.items()]
    reasons: dict[tuple[str, str], list[str]] = {}
    for key, lanes in results.works.items():
        for name, result in lanes.items():
            if result.cannot:
                reasons.setdefault((name, result.cannot), []).append(results.titles[key])
    for (name, reason), titles in reasons.items():
        lines.append(f"- {name}, {'; '.join(titles)}: {reason}")
    return lines


def memory(results: Results) -> list[str]:
    if not results.memory:
        return []
    cells = [f"{name} {mib:.1f}" for name, mib in results.memory.items()]
    return [f"Memory that streaming took more at its peak, MiB: {' · '.join(cells)}."]


def panels(results: Results) -> list[chart.Panel]:
    names = [name for name in results.names() if name != BASE]
    return [
        chart.Panel(
            f"{title} · {cell(results, key, BASE)}",
            tuple(
                chart.Bar(name, chart.kind_of(name), tuple(results.ratios(key, name)))
                for name in names
            ),
        )
        for key, title in results.titles.items()
    ]


def text(results: Results) -> str:
    about = results.about
    packages = ", ".join(f"{name} {number}" for name, number in about["packages"].items())
    parts = [
        [
            f"{about['machine']}; {about['server']}; {packages}. {about['rounds']} rounds; load "
            f"{about['load_before']:.1f} before, {about['load_after']:.1f} after."
        ],
        [f"![{TITLES[results.engine]}](bench/{results.engine}.svg)"],
        targets.table(results),
    ]
    for title, names in groups(results):
        parts += [[f"**{title}**"], table(results, names)]
    parts += [notes(results), memory(results)]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def write(results: Results, docs: bool) -> None:
    drawn = chart.draw(TITLES[results.engine], panels(results))
    charts = {f"bench/{results.engine}.svg": drawn}
    pages.keep(results.engine, text(results), charts, results.as_json(), docs)
    print(text(results))
