"""Copies of tests/testing_project, each on an engine, and runs of their tests in a process."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from private_postgres import PrivatePostgres

import vinyl

SOURCE = Path(__file__).parent / "testing_project"
ENGINES = ("sqlite", "postgresql")
WAYS = ("drop-in", "twin")
SECONDS = 240


class Project:
    """A copy of the project in ``directory``, on one engine, turned on one way.

    Its test databases are named after ``name``; on SQLite they are files when ``in_file``,
    else in memory.
    """

    def __init__(
        self,
        directory: Path,
        engine: str,
        way: str,
        name: str,
        server: PrivatePostgres | None = None,
        *,
        in_file: bool = False,
    ) -> None:
        self.directory = directory / "project"
        self.engine = engine
        self.way = way
        self.name = name
        self.server = server
        shutil.copytree(SOURCE, self.directory, ignore=shutil.ignore_patterns("__pycache__"))
        self.databases = self._databases(in_file)

    def _databases(self, in_file: bool) -> dict[str, dict[str, Any]]:
        entry: dict[str, Any]
        if self.engine == "postgresql":
            assert self.server is not None
            entry = self.server.django("django.db.backends.postgresql", self.name)
        else:
            entry = {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": str(self.directory / "real.sqlite3"),
            }
            if in_file:
                entry["TEST"] = {"NAME": str(self.directory / "test.sqlite3")}
        if self.way == "twin":
            return {"default": entry, "vinyl": vinyl.twin(entry, of="default")}
        return {"default": entry | {"ENGINE": entry["ENGINE"].replace("django.db", "vinyl")}}

    def run(self, *command: str) -> Run:
        """Runs Python with these arguments in the project."""
        env = os.environ | {
            "DJANGO_SETTINGS_MODULE": "settings",
            "PROJECT_DATABASES": json.dumps(self.databases),
            "PYTHONPATH": str(self.directory),
        }
        done = subprocess.run(
            [sys.executable, "-W", "error::RuntimeWarning", *command],
            cwd=self.directory, env=env, capture_output=True, text=True,
            timeout=SECONDS, check=False,
        )  # fmt: skip
        return Run(done)

    def test(self, *arguments: str) -> Run:
        """Django's runner: ``manage.py test``."""
        return self.run("manage.py", "test", "--noinput", *arguments)

    def pytest(self, *arguments: str) -> Run:
        return self.run("-m", "pytest", "-p", "no:cacheprovider", *arguments)

    def test_databases(self) -> list[str]:
        """The test databases that exist."""
        if self.server is not None:
            return self.server.psql(
                "SELECT datname FROM pg_database WHERE datname LIKE "
                f"'test\\_{self.name}%' ORDER BY 1"
            ).split()
        return sorted(path.name for path in self.directory.glob("test*.sqlite3"))


class Run:
    """A finished process."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code = done.returncode
        self.output = done.stdout + done.stderr

    @property
    def count(self) -> int:
        """How many tests ran (Django's runner) or passed (pytest)."""
        found = re.search(r"Ran (\d+) tests?", self.output) or re.search(
            r"(\d+) passed", self.output
        )
        return int(found[1]) if found else 0

    def assert_passed(self, count: int) -> None:
        assert self.code == 0, self.output
        assert self.count == count, self.output
        for word in ("Traceback", "Warning", "unraisable", "Exception ignored", "never awaited"):
            assert word not in self.output, self.output
