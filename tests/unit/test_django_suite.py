"""The harness of Django's own suite: what counts as a difference, and what is let through."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from django_suite.batches import make_batches
from django_suite.compare import Difference, differences, read_known, shows_nothing, table
from django_suite.outcome import Outcome, Outcomes, read_results


def outcomes(**statuses: str) -> Outcomes:
    tests = {f"app.T.{name}": Outcome(status, "why") for name, status in statuses.items()}
    return Outcomes(tests)


def found(theirs: Outcomes, ours: Outcomes) -> list[tuple[str, str, str]]:
    return [(each.test[6:], each.theirs, each.ours) for each in differences(theirs, ours)]


def test_the_same_is_no_difference() -> None:
    both = outcomes(a="pass", b="skip", c="fail", d="xfail", e="error")
    assert found(both, both) == []


@pytest.mark.parametrize("status", ["fail", "error", "skip", "upass", "lost", "xfail"])
def test_what_passes_there_and_does_not_here(status: str) -> None:
    assert found(outcomes(a="pass"), outcomes(a=status)) == [("a", "pass", status)]


def test_what_fails_as_expected_there_has_to_do_so_here() -> None:
    assert found(outcomes(a="xfail"), outcomes(a="pass")) == [("a", "xfail", "pass")]


def test_what_fails_there_may_fail_or_pass_here() -> None:
    theirs = outcomes(a="fail", b="error", c="lost")
    assert found(theirs, outcomes(a="pass", b="fail", c="error")) == []


def test_what_is_skipped_there_may_pass_but_not_fail_here() -> None:
    theirs = outcomes(a="skip", b="skip")
    assert found(theirs, outcomes(a="pass", b="fail", c="error")) == [
        ("b", "skip", "fail"),
        ("c", "missing", "error"),
    ]


def test_tests_that_did_not_run_name_their_class_set_up() -> None:
    ours = Outcomes({"setUpClass (app.T)": Outcome("error", "no table")})
    [missing, set_up] = differences(outcomes(a="pass"), ours)
    assert missing == Difference("app.T.a", "pass", "missing", "setUpClass (app.T): no table")
    assert set_up.ours == "error"


def write_notes(path: Path, *notes: tuple[str, str], rest: str = "") -> Outcomes:
    lines = [json.dumps({"event": event, "id": test, "text": event}) for event, test in notes]
    path.write_text("".join(line + "\n" for line in lines) + rest)
    return read_results(path)


def test_a_test_that_never_ended_is_lost(tmp_path: Path) -> None:
    read = write_notes(
        tmp_path / "results", ("start", "a"), ("pass", "a"), ("start", "b"), rest='{"event": "pa'
    )
    assert {test: outcome.status for test, outcome in read.tests.items()} == {
        "a": "pass",
        "b": "lost",
    }
    assert read.lost() == ["b"]


def test_of_several_notes_the_worst_holds(tmp_path: Path) -> None:
    read = write_notes(
        tmp_path / "results", ("start", "a"), ("pass", "a"), ("error", "a"), ("fail", "a")
    )
    assert read.tests["a"] == Outcome("error", "pass\nerror\nfail")


def test_outcomes_are_kept_and_added() -> None:
    one = Outcomes({"app.T.a": Outcome("pass")}, {"statements": 2}, 1.5)
    again = Outcomes.load(one.dump())
    assert again == one
    again.add(Outcomes({"app.T.b": Outcome("skip", "no")}, {"statements": 3}, 1.0))
    assert again.counters == {"statements": 5}
    assert again.seconds == 2.5
    assert list(again.tests) == ["app.T.a", "app.T.b"]


def test_probes_are_counted_apart(tmp_path: Path) -> None:
    path = tmp_path / "results"
    probes = [{"event": "probe", "id": "default", "statements": 1, "suspends": n} for n in (3, 0)]
    path.write_text("".join(json.dumps(line) + "\n" for line in probes))
    read = read_results(path)
    assert read.tests == {}
    assert read.counters["probes"] == 2
    assert read.counters["probes_without_suspends"] == 1
    assert read.counters["probes_without_statements"] == 0
    read.counters |= {"statements": 12, "suspends": 3}
    assert (read.own("statements"), read.own("suspends")) == (10, 0)


def nothing(mode: str, whole: bool = False, **counters: int) -> list[str]:
    return shows_nothing(mode, Outcomes({}, counters), whole=whole)


def test_a_run_that_shows_nothing_says_why() -> None:
    good = {
        "probes": 1, "probe_statements": 1, "probe_suspends": 2, "statements": 9, "suspends": 5,
        "probes_without_statements": 0, "probes_without_suspends": 0, "test_tasks": 4,
    }  # fmt: skip
    for mode in ("fiber", "tasks", "native", "blocking"):
        assert nothing(mode, whole=True, **good) == []
    # Quick tests on SQLite suspend no fiber; the probe does.
    assert nothing("fiber", **good | {"suspends": 2}) == []
    assert nothing("fiber", whole=True, **good | {"suspends": 2}) == ["The tests made no suspends."]
    [reason] = nothing("fiber", **good | {"probes_without_suspends": 1})
    assert reason == "On a test database no fiber was suspended."
    assert nothing("blocking", **good | {"probes_without_suspends": 1}) == []
    assert len(nothing("blocking", **good | {"probes_without_statements": 1})) == 1
    assert nothing("tasks", **good | {"test_tasks": 0}) == ["No test ran in a task of its own."]
    # Apps without a database, and a run that lost its probes.
    assert nothing("fiber") == []
    assert nothing("fiber", whole=True) == nothing("fiber", statements=1) != []


def test_table_counts_by_app() -> None:
    theirs, ours = outcomes(a="pass", b="pass", c="skip"), outcomes(a="pass", b="fail", c="skip")
    ours.tests["other.T.a"] = Outcome("xfail")
    rows = table(theirs, ours, differences(theirs, ours))
    assert rows == [("app", 3, 1, 1, 1, 1), ("other", 1, 1, 0, 0, 0), ("all", 4, 2, 1, 1, 1)]


def test_known_lines_are_few_and_give_reasons(tmp_path: Path) -> None:
    file = tmp_path / "known.txt"
    file.write_text("# a comment\n6.1.* sqlite3 [ft]* app.T.te*: it asserts a thread\n")
    [line] = read_known(file)
    assert line.reason == "it asserts a thread"
    assert line.holds("6.1.3", "sqlite3", "tasks", "app.T.test")
    assert not line.holds("6.1.3", "sqlite3", "blocking", "app.T.test")
    assert not line.holds("6.0.1", "sqlite3", "fiber", "app.T.test")
    assert not line.holds("6.1.3", "postgresql", "fiber", "app.T.test")
    for bad in ("* * * app.T.a", "* * * app.T.a: ", "* * app.T.a: why"):
        file.write_text(bad + "\n")
        with pytest.raises(SystemExit, match="not 'DJANGO DB MODE TEST: REASON'"):
            read_known(file)
    file.write_text("* * * app.T.a: why\n" * 15 + "* * native app.T.a: why\n" * 15)
    assert len(read_known(file)) == 30
    for mode in ("*", "native"):
        file.write_text(f"* * {mode} app.T.a: why\n" * 16)
        with pytest.raises(SystemExit, match="16 lines, 15 are allowed"):
            read_known(file)


def test_our_own_list_is_well_formed() -> None:
    assert all(line.reason for line in read_known())


def test_batches_hold_every_app_once(tmp_path: Path) -> None:
    names = [f"app{number:02}" for number in range(40)] + ["queries", "gis_tests"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "templates").mkdir()
    whole = make_batches(tmp_path, [], [])
    assert whole[0] == ("queries",)
    assert sorted(app for apps in whole for app in apps) == sorted(set(names) - {"gis_tests"})
    assert make_batches(tmp_path, ["app03", "app02"], []) == [("app02",), ("app03",)]
    without = make_batches(tmp_path, [], ["app01", "queries"])
    assert without == [tuple(a for a in apps if a != "app01") for apps in whole[1:]]
    with pytest.raises(SystemExit, match="no app nowhere"):
        make_batches(tmp_path, ["nowhere"], [])
