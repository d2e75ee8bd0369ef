"""Contract, section 8: pytest-django's marks with pytest-asyncio and anyio, on each engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fix_postgres import waived
from project_support import ENGINES, WAYS, Project

TESTS = 23


@pytest.fixture(params=[(engine, way) for engine in ENGINES for way in WAYS], ids="-".join)
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    engine, way = request.param
    if engine in waived():
        pytest.skip(f"{engine} waived by VINYL_TEST_WAIVE")
    server = request.getfixturevalue("postgres_server") if engine == "postgresql" else None
    name = f"project_pytest_{way}".replace("-", "_")
    made = Project(tmp_path, engine, way, name, server, in_file=True)
    yield made
    if server is not None:
        for left in made.test_databases():
            server.psql(f'DROP DATABASE "{left}"')


def test_marks_and_plugins(project: Project) -> None:
    project.pytest("pytests").assert_passed(TESTS)
    assert project.test_databases() == []


def test_reused_database_and_any_order(project: Project) -> None:
    project.pytest("--reuse-db", "pytests/cases_asyncio.py", "pytests/cases_anyio.py")
    assert len(project.test_databases()) == 1
    run = project.pytest("--reuse-db", "pytests/cases_anyio.py", "pytests/cases_asyncio.py")
    run.assert_passed(TESTS - 6)
    assert len(project.test_databases()) == 1


def test_many_workers(project: Project) -> None:
    project.databases["default"].pop("TEST", None)  # on SQLite in memory, as usual
    project.pytest("-n", "2", "pytests").assert_passed(TESTS)
    assert project.test_databases() == []


def test_project_test_cases_under_pytest(project: Project) -> None:
    project.pytest("shop").assert_passed(37)
    assert project.test_databases() == []
