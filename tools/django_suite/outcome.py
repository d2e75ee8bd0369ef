"""What became of the tests of a run, as record.py noted it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

#: Of several notes on one test the worst holds ("lost": it was begun and never ended).
WORST = ("pass", "xfail", "skip", "upass", "fail", "error", "lost")
GOOD = frozenset({"pass", "xfail"})
BAD = frozenset({"upass", "fail", "error", "lost"})


@dataclass
class Outcome:
    """Of one test. ``status``: one of WORST. ``text``: tracebacks, or the reason of a skip."""

    status: str
    text: str = ""


@dataclass
class Outcomes:
    """Of the tests of one process: by test id, and the core's counters."""

    tests: dict[str, Outcome] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def note(self, event: str, test: str, text: str) -> None:
        known = self.tests.get(test)
        if event == "start":
            self.tests.setdefault(test, Outcome("lost"))
        elif known is None or known.status == "lost":
            self.tests[test] = Outcome(event, text)
        else:
            known.status = max(known.status, event, key=WORST.index)
            known.text = f"{known.text}\n{text}" if known.text and text else known.text or text

    def note_probe(self, statements: int, suspends: int) -> None:
        """What a probe of a test database added to the core's counters."""
        more = {
            "probes": 1,
            "probe_statements": statements,
            "probe_suspends": suspends,
            "probes_without_statements": int(not statements),
            "probes_without_suspends": int(not suspends),
        }
        for name, value in more.items():
            self.counters[name] = self.counters.get(name, 0) + value

    def own(self, name: str) -> int:
        """The counter ``name`` without what the probes added to it."""
        return self.counters.get(name, 0) - self.counters.get(f"probe_{name}", 0)

    def lost(self) -> list[str]:
        """The tests that were begun and never ended: the process died or was stopped in them."""
        return [test for test, outcome in self.tests.items() if outcome.status == "lost"]

    def add(self, other: Outcomes) -> None:
        self.tests.update(other.tests)
        self.seconds += other.seconds
        for name, value in other.counters.items():
            self.counters[name] = self.counters.get(name, 0) + value

    def dump(self) -> str:
        tests = {test: [outcome.status, outcome.text] for test, outcome in self.tests.items()}
        return json.dumps({"tests": tests, "counters": self.counters, "seconds": self.seconds})

    @classmethod
    def load(cls, text: str) -> Outcomes:
        data = json.loads(text)
        tests = {test: Outcome(*pair) for test, pair in data["tests"].items()}
        return cls(tests, data["counters"], data["seconds"])


def read_results(path: Path) -> Outcomes:
    """The notes in a results file; a line cut off by a crash is left out."""
    outcomes = Outcomes()
    if path.exists():
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                note = json.loads(line)
                if note["event"] == "probe":
                    outcomes.note_probe(note["statements"], note["suspends"])
                else:
                    outcomes.note(note["event"], note["id"], note["text"])
    return outcomes


def app_of(test: str) -> str:
    """The app of a test id; that of a class for ``setUpClass (queries.tests.X)``."""
    return test.rpartition("(")[2].partition(".")[0]
