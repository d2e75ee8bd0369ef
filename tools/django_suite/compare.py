"""Differences between two runs, and those that are known and accounted for."""

from __future__ import annotations

import fnmatch
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from .outcome import BAD, GOOD, Outcome, Outcomes, app_of

KNOWN = Path(__file__).with_name("known.txt")
#: So many lines at most, and as many again for the mode native alone: the list is for what cannot
#: hold by its nature.
KNOWN_LINES = 15


@dataclass(frozen=True)
class Difference:
    """A test that is not on vinyl what it is on Django's own backend."""

    test: str
    theirs: str
    ours: str
    text: str


@dataclass(frozen=True)
class Known:
    """A line of known.txt: ``DJANGO DB MODE TEST: REASON``; the first three may be ``*``, and TEST
    may hold one, as fnmatch has it."""

    django: str
    database: str
    mode: str
    test: str
    reason: str

    def holds(self, django: str, database: str, mode: str, test: str) -> bool:
        pairs = ((django, self.django), (database, self.database), (mode, self.mode))
        return all(fnmatch.fnmatchcase(*pair) for pair in (*pairs, (test, self.test)))


def read_known(path: Path = KNOWN) -> list[Known]:
    """The lines of known.txt; exits when there are too many or one is not as it should be."""
    known = []
    for line in path.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        what, colon, reason = line.partition(": ")
        if not colon or not reason.strip() or len(what.split()) != 4:
            sys.exit(f"vinyl: {path.name}: not 'DJANGO DB MODE TEST: REASON': {line!r}")
        known.append(Known(*what.split(), reason.strip()))
    native = sum(line.mode == "native" for line in known)
    for count in (len(known) - native, native):
        if count > KNOWN_LINES:
            sys.exit(f"vinyl: {path.name} has {count} lines, {KNOWN_LINES} are allowed")
    return known


def _explanation(test: str, ours: Outcomes) -> str:
    """Why a test did not run at all: what its class's or module's set-up said."""
    for other, outcome in ours.tests.items():
        holder = other.rpartition("(")[2].removesuffix(")")
        if other != holder and outcome.status in BAD and test.startswith(holder + "."):
            return f"{other}: {outcome.text}"
    return "It did not run."


def differences(theirs: Outcomes, ours: Outcomes) -> list[Difference]:
    """Tests that are good there and not the same here, or bad here and not bad there."""
    found = []
    for test, outcome in theirs.tests.items():
        mine = ours.tests.get(test)
        if outcome.status in GOOD:
            if mine is None:
                text = _explanation(test, ours)
                found.append(Difference(test, outcome.status, "missing", text))
            elif mine.status != outcome.status:
                found.append(Difference(test, outcome.status, mine.status, mine.text))
    for test, mine in ours.tests.items():
        there = theirs.tests.get(test, Outcome("missing"))
        if mine.status in BAD and there.status not in BAD | GOOD:
            found.append(Difference(test, there.status, mine.status, mine.text))
    return sorted(found, key=lambda difference: difference.test)


def table(theirs: Outcomes, ours: Outcomes, found: list[Difference]) -> list[tuple[str | int, ...]]:
    """Rows (app, tests, passed, skipped, failed, differences), the last one of all apps."""
    ids = sorted(set(theirs.tests) | set(ours.tests), key=app_of)
    tests, passed, skipped, failed = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for test in ids:
        app = app_of(test)
        mine = ours.tests.get(test)
        if mine is None:
            continue
        tests[app] += 1
        passed[app] += mine.status in GOOD
        skipped[app] += mine.status == "skip"
        failed[app] += mine.status in BAD
    differ = Counter(app_of(difference.test) for difference in found)
    columns = (tests, passed, skipped, failed, differ)
    apps = sorted(set(tests) | set(differ))
    rows = [(app, *(column[app] for column in columns)) for app in apps]
    return [*rows, ("all", *(sum(column.values()) for column in columns))]


def shows_nothing(mode: str, ours: Outcomes, *, whole: bool) -> list[str]:
    """Why a run says nothing about vinyl, whatever its tests say; empty if it does.

    ``whole``: no apps were chosen.  Chosen apps may be without a database.
    """
    count = ours.counters
    reasons = []
    if mode == "tasks" and not count.get("test_tasks"):
        reasons.append("No test ran in a task of its own.")
    if not count.get("probes"):
        if whole or count.get("statements"):
            reasons.append("No test database was probed.")
        return reasons
    if count["probes_without_statements"]:
        reasons.append("On a test database no statement went through vinyl's driver.")
    if mode != "blocking" and count["probes_without_suspends"]:
        reasons.append("On a test database no fiber was suspended.")
    for name in ("statements",) if mode == "blocking" else ("statements", "suspends"):
        if whole and not ours.own(name):
            reasons.append(f"The tests made no {name}.")
    return reasons
