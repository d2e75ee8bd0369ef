"""The logic of bench/: what is compared, what the tables and charts say, where they go."""

from __future__ import annotations

import datetime
import importlib
import json
import sys
import uuid
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"
NAMES = (
    "chart", "contenders", "contenders.raw", "contest", "entries", "lanes", "pages", "remote",
    "report", "targets", "work",
)  # fmt: skip


class Bench:
    """The modules of bench/, which stand at the top there."""

    def __init__(self) -> None:
        for name in NAMES:
            setattr(self, name.rpartition(".")[2], importlib.import_module(name))

    def __getattr__(self, name: str) -> Any:  # for the type checker only
        raise AttributeError(name)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.syspath_prepend(str(BENCH))
    before = set(sys.modules)
    yield Bench()
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCH)):
            del sys.modules[name]


class FakeLane:
    """A lane whose calls take as long as they are told to."""

    def __init__(self, name: str, answers: Any, seconds: float, cannot: str = "") -> None:
        self.name = name
        self.answers = answers
        self.seconds = seconds
        self.reason = cannot
        self.sampled: list[int] = []

    def cannot(self, work: Any) -> str:
        return self.reason

    def answer(self, work: Any) -> Any:
        if isinstance(self.answers, Exception):
            raise self.answers
        return self.answers

    def sample(self, work: Any, times: int) -> tuple[None, float]:
        self.sampled.append(times)
        return None, self.seconds * times


def measured(bench: Bench, *lanes: FakeLane, key: str = "get_10", rounds: int = 3) -> Any:
    results = bench.contest.Results("postgresql", ABOUT)
    bench.contest.measure(list(lanes), bench.work.chosen([key]), rounds, results)
    return results


ABOUT = {
    "machine": "here", "server": "PostgreSQL 15", "packages": {"Django": "6.1"}, "rounds": 3,
    "load_before": 0.0, "load_after": 0.5,
}  # fmt: skip


def test_a_figure_is_the_ratio_to_django_in_the_same_round(bench: Bench) -> None:
    results = measured(
        bench, FakeLane("Django sync", [1], 0.004), FakeLane("vinyl asyncio", [1], 0.001)
    )
    assert results.ratios("get_10", "vinyl asyncio") == pytest.approx([0.25, 0.25, 0.25])
    assert bench.report.cell(results, "get_10", "Django sync") == "4,000 µs"
    assert bench.report.cell(results, "get_10", "vinyl asyncio") == "0.25 (0.25 - 0.25)"


def test_a_sample_is_as_many_calls_as_take_about_the_same_time(bench: Bench) -> None:
    slow, fast = FakeLane("Django sync", [1], 0.03), FakeLane("vinyl asyncio", [1], 0.0001)
    measured(bench, slow, fast)
    assert slow.sampled[-3:] == [2, 2, 2]
    assert fast.sampled[-3:] == [600, 600, 600]
    assert bench.contest.times_for(10.0) == 1
    assert bench.contest.times_for(0.0) == bench.contest.MOST_CALLS


def test_who_gives_another_answer_is_not_timed(bench: Bench) -> None:
    peer = FakeLane("Tortoise", [(1, "b")], 0.001)
    broken = FakeLane("Piccolo", ValueError("no such column\nmore"), 0.001)
    unable = FakeLane("SQLAlchemy", [(1, "a")], 0.001, cannot="it has none")
    results = measured(bench, FakeLane("Django sync", [(1, "a")], 0.001), peer, broken, unable)
    assert peer.sampled == broken.sampled == unable.sampled == []
    assert results.works["get_10"]["Tortoise"].cannot == "another answer: 'b', not 'a'"
    assert results.works["get_10"]["Piccolo"].cannot == "ValueError: no such column"
    assert bench.report.cell(results, "get_10", "Tortoise") == "—"
    notes = bench.report.notes(results)
    assert "- SQLAlchemy, get by pk, 10 columns: it has none" in notes


def test_another_answer_of_vinyl_ends_the_run(bench: Bench) -> None:
    with pytest.raises(bench.contest.Differs, match="2, not 1"):
        measured(bench, FakeLane("Django sync", [1], 0.001), FakeLane("vinyl uvloop", [2], 0.001))


def test_a_peer_that_is_not_there_is_reported(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(entry: Any, database: Any) -> Any:
        raise ModuleNotFoundError("No module named 'tortoise'")

    monkeypatch.setattr(bench.contest, "lane_of", missing)
    absent: dict[str, str] = {}
    peer = bench.lanes.Entry("Tortoise", "with_tortoise", "asyncio")
    assert bench.contest.open_lanes([peer], {}, absent) == []
    assert absent == {"Tortoise": "ModuleNotFoundError: No module named 'tortoise'"}
    ours = bench.lanes.Entry("vinyl asyncio", "with_vinyl", "asyncio")
    with pytest.raises(ModuleNotFoundError):
        bench.contest.open_lanes([ours], {}, absent)


@pytest.mark.parametrize(
    ("expected", "found", "words"),
    [
        ([1, 2], [1], "1 values, not 2"),
        ([(1, Decimal("1.5"))], [(1, Decimal("2.5"))], "Decimal('2.5'), not Decimal('1.5')"),
        ([{"a": 1, "b": 2}], [{"a": 1, "b": 3}], "3, not 2"),
    ],
)
def test_a_difference_is_told_where_it_is(
    bench: Bench, expected: Any, found: Any, words: str
) -> None:
    assert bench.contest.difference(expected, found) == words


def test_rows_of_raw_drivers_compare_as_djangos(bench: Bench) -> None:
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    code = uuid.UUID(int=5)
    django = (1, 2, "n", "t", Decimal("0.07"), 0.5, 3, True, start, code)
    of_sqlite = (1, 2, "n", "t", 0.07, 0.5, 3, 1, "2026-01-01 00:00:00", code.hex)
    of_libpq = ("1", "2", "n", "t", "0.07", "0.5", "3", "t", "2026-01-01 00:00:00+00", str(code))
    assert bench.raw.plain(of_sqlite) == bench.raw.plain(of_libpq) == django
    makers, items = [(1, "a", None), (2, "b", None)], [(10, 2), (11, 1), (12, 2)]
    assert bench.raw.grouped(makers, items) == [
        (makers[0], [items[1]]),
        (makers[1], [items[0], items[2]]),
    ]


def test_works_are_chosen_by_key_and_by_method(bench: Bench) -> None:
    assert [work.key for work in bench.work.chosen(["rows", "get_2"])] == [
        "get_2",
        "rows_1000",
        "rows_10000",
    ]
    assert bench.work.chosen([]) == list(bench.work.WORKS)
    with pytest.raises(ValueError, match="no work is named gets"):
        bench.work.chosen(["gets"])


def test_contenders_are_chosen_by_parts_of_names_and_django_is_always_there(bench: Bench) -> None:
    chosen = [entry.name for entry in bench.entries.chosen("vinyl, asyncpg", "postgresql")]
    assert chosen[0] == "Django sync"
    assert set(chosen[1:]) == {*bench.entries.VINYL, "asyncpg raw", "asyncpg raw, uvloop"}
    assert "asyncpg raw" not in [e.name for e in bench.entries.chosen("", "sqlite")]
    with pytest.raises(ValueError, match="no contender's name has 'peewee'"):
        bench.entries.chosen("peewee", "sqlite")


def test_every_contender_has_each_work_or_says_why_not(bench: Bench) -> None:
    for entry in bench.entries.ENTRIES:
        text = (BENCH / "contenders" / f"{entry.module}.py").read_text()
        if entry.module in ("limit", "django_asgi"):
            continue  # one asks its program, one wraps the other's methods
        for work in bench.work.WORKS:
            written = f"def {work.method}(" in text or f"{work.method} = rows" in text
            assert written or f'"{work.method}": "' in text, (entry.module, work.method)


def test_figures_to_reach_say_what_is_missed(bench: Bench) -> None:
    results = measured(
        bench,
        FakeLane("Django sync", [1], 0.004),
        FakeLane("vinyl asyncio", [1], 0.001),
        FakeLane("vinyl uvloop", [1], 0.001),
        FakeLane("vinyl blocking", [1], 0.005),
        FakeLane("asyncpg raw", [1], 0.0008),
    )
    results.memory = {"vinyl asyncio": 3.0, "Django sync": 50.0}
    lines = bench.targets.table(results)
    assert "| get by pk, 10 columns, asyncio | 0.27 | 0.25 | reached | 0.20 |" in lines
    assert "| get by pk, 10 columns, uvloop | 0.20 | 0.25 | **missed** | 0.20 |" in lines
    assert any("| 1.00 | 1.25 | **missed** |" in line for line in lines)
    assert any("| 10 MiB | 3.0 MiB | reached |" in line for line in lines)


def test_results_survive_json_and_make_a_page(bench: Bench) -> None:
    results = measured(
        bench, FakeLane("Django sync", [1], 0.004), FakeLane("psycopg raw", [1], 0.001)
    )
    again = bench.contest.Results.of_json(json.loads(json.dumps(results.as_json())))
    assert again == results
    text = bench.report.text(again)
    assert "**Raw drivers**" in text
    assert "| get by pk, 10 columns | 4,000 µs | 0.25 (0.25 - 0.25) |" in text


def test_a_chart_is_an_svg_with_a_bar_for_each_contender(bench: Bench) -> None:
    bars = (
        bench.chart.Bar("vinyl asyncio", "vinyl", (0.5, 0.4, 0.6)),
        bench.chart.Bar("Piccolo & co", "peer", ()),
        bench.chart.Bar("Tortoise", "peer", (3.0,)),
    )
    drawn = bench.chart.draw("times < 1", [bench.chart.Panel("get", bars)] * 4)
    root = ElementTree.fromstring(drawn)
    space = "{http://www.w3.org/2000/svg}"
    texts = [each.text for each in root.iter(f"{space}text")]
    assert texts.count("Piccolo & co") == texts.count("cannot") == 4
    assert texts.count("0.50") == 4
    assert texts.count("3.00 …") == 4
    found = [each.get("width") for each in root.iter(f"{space}rect")]
    widths = [float(width) for width in found if width != "100%"]
    assert len(widths) == 8  # an empty bar has no rectangle
    assert widths[1] == pytest.approx(4 * widths[0], rel=0.01)  # cut off at 2.0


def test_a_part_of_a_page_is_replaced_and_the_rest_is_left(bench: Bench) -> None:
    page = "# A\n<!-- bench:x -->\nold\n<!-- /bench:x -->\nend\n"
    once = bench.pages.put(page, "x", "new \\1\n")
    assert once == "# A\n<!-- bench:x -->\nnew \\1\n<!-- /bench:x -->\nend\n"
    assert bench.pages.put(once, "x", "new \\1") == once
    with pytest.raises(ValueError, match="not one part"):
        bench.pages.put(page, "y", "new")


def test_the_docs_have_a_part_for_all_that_is_measured(bench: Bench) -> None:
    page = (bench.pages.DOCS / bench.pages.PAGE).read_text()
    for name in ("postgresql", "sqlite", "http", "instructions-postgresql", "instructions-sqlite"):
        assert "NEW" in bench.pages.put(page, name, "NEW")
