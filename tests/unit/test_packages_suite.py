"""tools/packages_suite: a package's own tests, run by its own means on other databases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django_suite.compare import read_known
from django_suite.outcome import Outcomes, read_results
from packages_suite.packages import PACKAGES

TOOLS = Path(__file__).parents[2] / "tools"
SETTINGS = {
    "SECRET_KEY": "x",
    "USE_TZ": True,
    "INSTALLED_APPS": ["django.contrib.contenttypes", "django.contrib.auth"],
    "DATABASES": {
        "default": {"ENGINE": "django.db.backends.mysql", "NAME": "theirs", "HOST": "elsewhere"},
        "copy": {"ENGINE": "django.db.backends.mysql", "TEST": {"MIRROR": "default"}},
    },
}
PYTESTS = """
import pytest
from django.conf import settings
from django.contrib.auth.models import Group
from django.db import connection, connections
from django.test import TestCase

def test_engine():
    assert settings.DATABASES["default"]["ENGINE"].startswith("vinyl.backends.sqlite3")
    assert connections["copy"].settings_dict["TEST"]["MIRROR"] == "default"
    connection.ensure_connection()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)
    connection.close()

def test_app():
    assert Group.vinyl

def test_fails():
    assert "one" == "two"

@pytest.mark.skip(reason="for another engine")
def test_unskipped():
    pass

@pytest.mark.skip(reason="for ever")
def test_skipped():
    pass

@pytest.mark.xfail
def test_expected():
    raise LookupError

@pytest.fixture
def broken():
    raise LookupError("in the fixture")

def test_error(broken):
    pass
"""
CONFTEST = """
from django.conf import settings

def pytest_configure():
    import django
    settings.configure(**{settings})
    django.setup()
"""
DJANGO_TESTS = """
from django.contrib.auth.models import Group
from django.test import TestCase

class Tests(TestCase):
    def test_good(self):
        Group.objects.create(name="a")
        self.assertEqual(Group.objects.get().name, "a")

    def test_bad(self):
        self.fail("it must")
"""


def run(directory: Path, mode: str, **more: Any) -> tuple[int, Outcomes]:
    """A package's tests in ``directory``, on vinyl's SQLite in ``mode``; the exit code."""
    told = {
        "source": str(directory),
        "runner": "pytest",
        "arguments": ["tests"],
        "settings": "",
        "engine": "vinyl.backends.sqlite3",
        "server": None,
        "apps": ["vinyl"],
        "unskip": "for another engine",
    } | more
    env = os.environ | {
        "VINYL_PACKAGE": json.dumps(told),
        "VINYL_SUITE_RESULTS": str(directory / "results"),
        "PYTHONPATH": str(TOOLS),
        "PYTEST_ADDOPTS": "-p no:django",
    }
    env.pop("DJANGO_SETTINGS_MODULE")
    launch = [TOOLS / "django_suite" / "launch.py", mode, directory, TOOLS / "packages_suite"]
    done = subprocess.run(
        [sys.executable, *map(str, launch)], env=env, cwd=directory, capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    outcomes = read_results(directory / "results")
    outcomes.counters |= json.loads((directory / "counters.json").read_text())
    assert outcomes.tests, done.stdout + done.stderr
    return done.returncode, outcomes


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").touch()
    return tmp_path


@pytest.mark.parametrize("way", ["fiber", "blocking"])
def test_pytest_and_settings_in_code(way: str, package: Path) -> None:
    conftest = CONFTEST.replace("{settings}", repr(SETTINGS))
    (package / "conftest.py").write_text(conftest)
    (package / "tests" / "test_it.py").write_text(PYTESTS)
    code, outcomes = run(package, way)
    assert code == 1
    found = {test.rpartition("::")[2]: each.status for test, each in outcomes.tests.items()}
    assert found == {
        "test_engine": "pass",
        "test_app": "pass",
        "test_fails": "fail",
        "test_unskipped": "pass",
        "test_skipped": "skip",
        "test_expected": "xfail",
        "test_error": "error",
    }
    texts = {test.rpartition("::")[2]: each.text for test, each in outcomes.tests.items()}
    assert "'one' == 'two'" in texts["test_fails"]
    assert "for ever" in texts["test_skipped"]
    assert outcomes.counters["statements"] > 0
    assert bool(outcomes.counters["operations"]) is (way == "fiber")


def test_djangos_runner_and_a_settings_module(package: Path) -> None:
    text = "\n".join(f"{name} = {value!r}" for name, value in SETTINGS.items())
    (package / "their_settings.py").write_text(text)
    (package / "tests" / "test_it.py").write_text(DJANGO_TESTS)
    code, outcomes = run(package, "fiber", runner="django", settings="their_settings")
    assert code == 1
    statuses = {test: each.status for test, each in outcomes.tests.items()}
    assert statuses == {
        "tests.test_it.Tests.test_good": "pass",
        "tests.test_it.Tests.test_bad": "fail",
    }
    assert outcomes.counters["suspends"] > 0


def test_what_is_known_has_its_reason() -> None:
    for line in read_known(TOOLS / "packages_suite" / "known.txt"):
        assert line.django in PACKAGES  # the first column is a package here
        assert line.reason
