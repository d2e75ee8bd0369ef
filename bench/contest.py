"""Measuring: every lane does every work, in alternating rounds, beside Django in the same round."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from entries import BASE, VINYL
from lanes import Entry, Lane
from remote import RemoteLane, lane_of
from work import MANY_ROUNDS, Work, effect, undo

AnyLane = Lane | RemoteLane
SAMPLE_SECONDS = 0.06  # a sample is so many calls as take about this long
MOST_CALLS = 1000


@dataclass
class Result:
    """What one lane did of one work: seconds for a call in each round, or why it was not timed."""

    seconds: list[float] = field(default_factory=list)
    cannot: str = ""


@dataclass
class Results:
    """Of one engine: by a work's key and a lane's name; ``absent`` are lanes that did not open."""

    engine: str
    about: dict[str, Any]
    titles: dict[str, str] = field(default_factory=dict)
    works: dict[str, dict[str, Result]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)  # MiB that streaming took more

    def ratios(self, key: str, name: str) -> list[float]:
        """The lane's time by Django's of the same round."""
        mine, base = self.works[key][name].seconds, self.works[key][BASE].seconds
        return [a / b for a, b in zip(mine, base, strict=True)] if mine else []

    def names(self) -> list[str]:
        return list(next(iter(self.works.values()), {}))

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_json(cls, found: dict[str, Any]) -> Results:
        works = {
            key: {name: Result(**result) for name, result in lanes.items()}
            for key, lanes in found["works"].items()
        }
        return cls(**found | {"works": works})


def times_for(seconds: float) -> int:
    """Calls of ``seconds`` each that make a sample."""
    return max(1, min(MOST_CALLS, round(SAMPLE_SECONDS / max(seconds, 1e-9))))


def why(error: BaseException) -> str:
    """An error in a line, for a table."""
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"[:150].strip().removesuffix(":")


def open_lanes(
    entries: list[Entry], database: dict[str, Any], absent: dict[str, str]
) -> list[AnyLane]:
    """Those that open.  A peer that is not there is reported; Django and vinyl have to be."""
    lanes = []
    for entry in entries:
        try:
            lane = lane_of(entry, database)
            lane.open()
        except Exception as error:
            if entry.name == BASE or entry.name in VINYL:
                raise
            absent[entry.name] = why(error)
            print(f"{entry.name} is left out: {absent[entry.name]}", file=sys.stderr, flush=True)
        else:
            lanes.append(lane)
    return lanes


class Differs(Exception):
    """A contender's answer, or what it left in the database, is not Django's."""


def difference(expected: Any, found: Any) -> str:
    """Where two answers differ first, in a few words."""
    if isinstance(expected, dict) and isinstance(found, dict) and expected.keys() == found.keys():
        return difference([*expected.values()], [*found.values()])
    if isinstance(expected, list | tuple) and isinstance(found, list | tuple):
        if len(expected) != len(found):
            return f"{len(found)} values, not {len(expected)}"
        for mine, theirs in zip(expected, found, strict=True):
            if mine != theirs:
                return difference(mine, theirs)
    return f"{found!r:.30}, not {expected!r:.30}"


def check(lane: AnyLane, work: Work, expected: Any) -> Any:
    """The lane's answer and what it left, as Django's when ``expected`` is given."""
    if work.writes:
        undo()
    found = lane.answer(work), effect() if work.writes else None
    if expected is not None and found != expected:
        raise Differs(f"another answer: {difference(expected, found)}")
    return found


def runnable(lanes: list[AnyLane], work: Work, results: dict[str, Result]) -> list[AnyLane]:
    """Those that do the work as Django does it."""
    expected = None
    able = []
    for lane in lanes:
        result = results[lane.name] = Result(cannot=lane.cannot(work))
        if result.cannot:
            continue
        try:
            answer = check(lane, work, expected)
        except Exception as error:
            if lane.name == BASE or lane.name in VINYL:
                raise
            result.cannot = str(error) if isinstance(error, Differs) else why(error)
            continue
        expected = expected if expected is not None else answer
        able.append(lane)
    return able


def calls_of(lane: AnyLane, work: Work) -> int:
    """How many calls make a sample of the lane; this warms it up, too."""
    if work.rounds < MANY_ROUNDS:
        return 1
    seconds = lane.sample(work, 1)[1]
    if seconds < SAMPLE_SECONDS / 10:
        seconds = lane.sample(work, 10)[1] / 10
    return times_for(seconds)


def measure_work(lanes: list[AnyLane], work: Work, rounds: int) -> dict[str, Result]:
    results: dict[str, Result] = {}
    able = runnable(lanes, work, results)
    times = {lane.name: calls_of(lane, work) for lane in able}
    for number in range(min(rounds, work.rounds)):
        if work.writes:
            undo()
        # There and back, so that nobody always follows the same one.
        for lane in able if number % 2 == 0 else reversed(able):
            seconds = lane.sample(work, times[lane.name])[1]
            results[lane.name].seconds.append(seconds / times[lane.name])
    if work.writes:
        undo()
    return results


def measure(lanes: list[AnyLane], works: list[Work], rounds: int, results: Results) -> None:
    began = time.monotonic()
    for number, work in enumerate(works, 1):
        found = measure_work(lanes, work, rounds)
        results.works[work.key], results.titles[work.key] = found, work.title
        elapsed = time.monotonic() - began
        head = f"[{number}/{len(works)}, {elapsed:.0f} s, load {os.getloadavg()[0]:.1f}]"
        print(f"{head} {work.title}", file=sys.stderr)
        print(f"    {progress(results, work.key)}", file=sys.stderr, flush=True)


def progress(results: Results, key: str) -> str:
    parts = []
    for name, result in results.works[key].items():
        if not result.seconds:
            parts.append(f"{name}: {result.cannot}")
        elif name == BASE:
            parts.append(f"{median(result.seconds) * 1e6:,.0f} µs")
        else:
            parts.append(f"{name} {median(results.ratios(key, name)):.2f}")
    return " · ".join(parts)
