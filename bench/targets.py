"""The figures that vinyl is to reach: issues 7 and 8 of the project."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from contest import Results
from entries import BASE

MEMORY = 10.0  # MiB that streaming may take more
RAW = ("asyncpg raw", "aiosqlite raw", "limit in C")


@dataclass(frozen=True)
class Target:
    """The most that the median of the ratios to Django may be."""

    engine: str
    work: str
    lane: str
    most: float


TARGETS = tuple(
    Target(*each)
    for each in (
        ("postgresql", "get_10", "vinyl asyncio", 0.27),
        ("postgresql", "get_10", "vinyl uvloop", 0.20),
        ("postgresql", "rows_10000", "vinyl asyncio", 0.33),
        ("postgresql", "select_related", "vinyl asyncio", 0.40),
        ("postgresql", "prefetch", "vinyl asyncio", 0.33),
        ("postgresql", "create", "vinyl asyncio", 0.40),
        ("postgresql", "save", "vinyl asyncio", 0.40),
        ("postgresql", "bulk_create", "vinyl asyncio", 0.40),
        ("postgresql", "tasks", "vinyl asyncio", 0.36),
        ("postgresql", "stream", "vinyl asyncio", 0.35),
        ("sqlite", "get_10", "vinyl asyncio", 0.25),
        ("sqlite", "rows_10000", "vinyl asyncio", 0.25),
    )
)


def table(results: Results) -> list[str]:
    """Each figure to reach beside what was measured, and beside the raw drivers' of this run."""
    raw = [name for name in results.names() if name in RAW]
    lines = [
        "| figure to reach | at most | measured | |" + "".join(f" {name} |" for name in raw),
        "|---|---|---|---|" + "---|" * len(raw),
    ]
    for target in TARGETS:
        if target.engine != results.engine or target.work not in results.works:
            continue
        mine = _median(results, target.work, target.lane)
        if mine is None:
            continue
        others = [_median(results, target.work, name) for name in raw]
        cells = [f"{other:.2f}" if other is not None else "—" for other in others]
        lines.append(
            f"| {results.titles[target.work]}, {target.lane.removeprefix('vinyl ')} "
            f"| {target.most:.2f} | {mine:.2f} | {_verdict(mine <= target.most)} |"
            + "".join(f" {each} |" for each in cells)
        )
    lines += _blocking(results, len(raw)) + _memory(results, len(raw))
    return lines if len(lines) > 2 else []


def _blocking(results: Results, raw: int) -> list[str]:
    """Blocking mode is to be no slower than Django on any line."""
    found = [
        (value, results.titles[key])
        for key in results.works
        if (value := _median(results, key, "vinyl blocking")) is not None
    ]
    if not found:
        return []
    worst, title = max(found)
    return [
        f"| every work, blocking; the slowest is: {title} | 1.00 | {worst:.2f} "
        f"| {_verdict(worst <= 1.0)} |" + " — |" * raw
    ]


def _memory(results: Results, raw: int) -> list[str]:
    found = {name: mib for name, mib in results.memory.items() if name.startswith("vinyl")}
    if not found:
        return []
    most = max(found.values())
    return [
        f"| memory that streaming takes, any mode | {MEMORY:.0f} MiB | {most:.1f} MiB "
        f"| {_verdict(most <= MEMORY)} |" + " — |" * raw
    ]


def _verdict(good: bool) -> str:
    return "reached" if good else "**missed**"


def _median(results: Results, key: str, name: str) -> float | None:
    if name == BASE or name not in results.works[key]:
        return None
    ratios = results.ratios(key, name)
    return median(ratios) if ratios else None
