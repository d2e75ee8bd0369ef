"""Contract, section 8: a project's tests under Django's runner, each engine, each way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import django
import pytest
from fix_postgres import waived
from project_support import ENGINES, WAYS, Project

CASES = ("shop", "-p", "cases_*.py")
TESTS = 37
# The part that commits.
COMMITTING = ("shop", "-p", "cases_transaction.py")
COMMITTED = 7


def make_project(
    request: pytest.FixtureRequest, directory: Path, engine: str, way: str, *, in_file: bool = False
) -> Project:
    if engine in waived():
        pytest.skip(f"{engine} waived by VINYL_TEST_WAIVE")
    server = request.getfixturevalue("postgres_server") if engine == "postgresql" else None
    name = f"project_{request.node.name.partition('[')[0].removeprefix('test_')}_{way}"[:50]
    return Project(directory, engine, way, name.replace("-", "_"), server, in_file=in_file)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=ENGINES)
def project(request: pytest.FixtureRequest, tmp_path: Path, way: str) -> Iterator[Project]:
    made = make_project(request, tmp_path, request.param, way)
    yield made
    assert made.test_databases() == []


@pytest.fixture(params=ENGINES)
def lasting(request: pytest.FixtureRequest, tmp_path: Path, way: str) -> Iterator[Project]:
    """A project whose test databases are not in memory."""
    made = make_project(request, tmp_path, request.param, way, in_file=True)
    yield made
    if made.server is not None:
        for name in made.test_databases():
            made.server.psql(f'DROP DATABASE "{name}"')


def test_one_process(project: Project) -> None:
    project.test(*CASES).assert_passed(TESTS)


def test_serialized_rollback(project: Project) -> None:
    project.test("shop.serialized").assert_passed(2)


def test_parallel(project: Project) -> None:
    project.test("--parallel", "2", *CASES).assert_passed(TESTS)


def test_kept_databases(lasting: Project) -> None:
    lasting.test("--keepdb", *COMMITTING).assert_passed(COMMITTED)
    kept = lasting.test_databases()
    assert len(kept) == 1
    again = lasting.test("--keepdb", "--parallel", "2", *COMMITTING)
    again.assert_passed(COMMITTED)
    assert "Using existing test database" in again.output
    assert len(lasting.test_databases()) == 3
    assert kept[0] in lasting.test_databases()


FORKSERVER = pytest.param(
    "forkserver",
    marks=pytest.mark.skipif(django.VERSION < (6, 0), reason="Django 6.0 began to support it"),
)


@pytest.mark.parametrize("start", [FORKSERVER, "spawn"])
def test_processes_that_are_not_forked(
    request: pytest.FixtureRequest, tmp_path: Path, start: str, way: str
) -> None:
    made = make_project(request, tmp_path, "postgresql", way)
    (made.directory / "start.py").write_text(
        "import multiprocessing, runpy, sys\n"
        "if __name__ == '__main__':\n"
        f"    multiprocessing.set_start_method({start!r})\n"
        "    sys.argv = ['manage.py', *sys.argv[1:]]\n"
        "    runpy.run_path('manage.py', run_name='__main__')\n"
    )
    run = made.run("start.py", "test", "--noinput", "--parallel", "2", *CASES)
    run.assert_passed(TESTS)
    assert made.test_databases() == []


# --- what has to fail ----------------------------------------------------------


def one(project: Project, name: str, module: str = "cases_wrong") -> str:
    """The output of a test that has to fail."""
    run = project.test(f"wrong.{module}.{name}")
    assert run.code == 1, run.output
    return run.output


def test_no_database_in_simple_test_case(project: Project) -> None:
    output = one(project, "NoDatabase")
    assert "DatabaseOperationForbidden" in output
    assert "are not allowed in SimpleTestCase" in output


def test_a_block_left_open_is_told_and_harms_nobody(project: Project) -> None:
    output = one(project, "LeftOpen")
    assert "was still open at the end of the test" in output
    assert "Ran 2 tests" in output
    assert "FAILED (errors=1)" in output


def test_a_leak_is_noticed(project: Project) -> None:
    output = one(project, "Leaks")
    assert "IntegrityError" in output
    assert "FAILED (errors=1)" in output


def test_waiting_for_a_task_that_waits_for_the_block(project: Project) -> None:
    vinyls = "vinyl" if project.way == "twin" else "default"
    project.databases[vinyls]["OPTIONS"] = {"pool": {"timeout": 0.3}}
    output = one(project, "Waits")
    assert "For 0.3 s another task has had an atomic block open" in output
    assert "TransactionTestCase" in output


def test_only_the_twin_is_named(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    made = make_project(request, tmp_path, "sqlite", "twin")
    output = one(made, "OnlyTwin", "cases_twin")
    assert "ImproperlyConfigured" in output
    assert "no test database was made for 'default'" in output
    made.test("wrong.cases_twin.OnlyTwinOfOurs").assert_passed(1)
