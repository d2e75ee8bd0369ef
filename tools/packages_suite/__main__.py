"""Runs the tests that a package ships in its source distribution on a vinyl engine, unmodified, and
compares them with the same run on Django's own backend.

    python -m packages_suite --package djangorestframework --db postgresql --mode fiber

Ends with 0 when no test differs but those in known.txt, with 1 otherwise.  Each package has an
environment of its own; it, the source, and what is found are in .cache/packages-suite/<package>/.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fcntl
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from django_suite import environment as environments
from django_suite.compare import Difference, differences, read_known
from django_suite.environment import Environment, run, say
from django_suite.outcome import BAD, GOOD, Outcome, Outcomes, read_results
from django_suite.place import CHECKOUT
from private_postgres import PostgresUnavailable, PrivatePostgres

from .packages import PACKAGES, Package

TOOLS = Path(__file__).resolve().parents[1]
KNOWN = Path(__file__).with_name("known.txt")
CACHE = CHECKOUT / ".cache" / "packages-suite"
DATABASES = {"sqlite": "sqlite3", "sqlite3": "sqlite3", "postgresql": "postgresql"}
#: What no package's tests take: a run of this length hangs.
SECONDS = float(os.environ.get("VINYL_SUITE_SECONDS", "1800"))
HEAD = (
    "package",
    "database",
    "mode",
    "tests",
    "passed",
    "skipped",
    "failed",
    "known",
    "differences",
)


class PackageEnvironment(Environment):
    """Of any package: all share one build of vinyl."""

    @property
    def version(self) -> str:
        return "packages"


@dataclass
class Run:
    """A package, its environment, and where it is to run."""

    name: str
    package: Package
    environment: PackageEnvironment
    database: str
    server: PrivatePostgres | None

    @property
    def place(self) -> Path:
        return CACHE / self.name

    def once(self, mode: str) -> Outcomes:
        """Runs the tests: on Django's own backend when ``mode`` is "django"."""
        with tempfile.TemporaryDirectory(prefix="vinyl-package-") as scratch:
            directory = Path(scratch)
            tests = directory / "tests"
            tests.mkdir()
            shutil.copy(Path(__file__).with_name("runtests.py"), tests)
            if self.package.settings_text:
                (directory / f"{self.package.settings}.py").write_text(self.package.settings_text)
            log = self.place / f"{self.database}-{mode}.log"
            launcher = TOOLS / "django_suite" / "launch.py"
            command = [self.environment.python, launcher, mode, directory, tests]
            with log.open("wb") as out:
                child = subprocess.Popen(
                    [str(part) for part in command], env=self._env(mode, directory),
                    stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
                )  # fmt: skip
                code = self._wait(child)
            outcomes = read_results(directory / "results")
            counters = directory / "counters.json"
            if counters.exists():
                outcomes.counters |= json.loads(counters.read_text())
        for test in outcomes.lost():
            outcomes.tests[test] = Outcome("lost", f"The process ended with {code} in this test.")
        if not outcomes.tests or code not in (0, 1):
            sys.exit(f"vinyl: {self.name} ended with {code} after {len(outcomes.tests)}; see {log}")
        return outcomes

    def _wait(self, child: subprocess.Popen[bytes]) -> int:
        try:
            return child.wait(SECONDS)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGABRT)  # faulthandler writes every thread's stack
            return child.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)

    def _env(self, mode: str, directory: Path) -> dict[str, str]:
        package = "django.db" if mode == "django" else "vinyl"
        engine = f"{package}.backends.{self.database}"
        server = self.server.django(engine, "") if self.server else None
        # What the package adds itself when it sees Django's own name of the engine.
        apps = ["django.contrib.postgres"] if self.server and self.package.unskip else []
        told = {
            "source": str(self.environment.source),
            "runner": self.package.runner,
            "arguments": self.package.arguments,
            "settings": self.package.settings,
            "engine": engine,
            "server": server,
            "apps": [] if mode == "django" else [*apps, "vinyl"],
            "unskip": self.package.unskip if self.server else "",
        }
        dropped = ("PYTHON", "VIRTUAL_ENV", "PG", "DJANGO")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
        if self.server and self.package.postgresql_env[0]:
            kept |= dict([self.package.postgresql_env])
        return kept | self.environment.env | {
            "VINYL_PACKAGE": json.dumps(told),
            "VINYL_SUITE_RESULTS": str(directory / "results"),
            "PATH": os.pathsep.join([str(self.environment.python.parent), os.environ["PATH"]]),
            "PYTHONPATH": str(TOOLS),
            "LC_ALL": "C.UTF-8",
        }  # fmt: skip


def fetch(name: str) -> Path:
    """The unpacked source distribution, the newest; that of an earlier run if there is one."""
    place = CACHE / name
    place.mkdir(parents=True, exist_ok=True)
    if unpacked := sorted(place.glob("source/*/")):
        return unpacked[-1]
    say(f"downloading {name}")
    pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
    run([*pip, "--no-binary", name, "--no-deps", "-d", place, name], f"downloading {name}")
    (archive,) = place.glob("*.tar.gz")
    partly = place / "unpacking"
    shutil.rmtree(partly, ignore_errors=True)
    with tarfile.open(archive) as tar:
        tar.extractall(partly, filter="data")
    return next(partly.rename(place / "source").glob("*/"))


def make(name: str, package: Package, source: Path, django: str) -> PackageEnvironment:
    """The package's environment, with what its tests need."""
    home = CHECKOUT / f".venv-package-{name}"
    python = home / "bin" / "python"
    wanted = [
        str(source), f"django~={django}.0", "pytest>=8", "psycopg[binary]>=3.1.12",
        *package.requires,
    ]  # fmt: skip
    stamp, digest = home / "stamp", hashlib.sha256("\0".join(wanted).encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        say(f"making {home.name}")
        shutil.rmtree(home, ignore_errors=True)
        run([sys.executable, "-m", "venv", home], "python -m venv")
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        run([*pip, *wanted], "pip install")
        stamp.write_text(digest)
    return PackageEnvironment(python, {}, source)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """No other run works in the cache meanwhile."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def explained(run: Run, mode: str) -> tuple[list[str | int], list[Difference]]:
    """A row of the report, and the differences that are not in known.txt."""
    say(f"{run.name} on Django's own backend, {run.database}")
    theirs = run.once("django")
    say(f"{run.name} on vinyl, {run.database}, mode {mode}")
    ours = run.once(mode)
    facts = (run.name, run.database, mode)
    known = read_known(KNOWN)
    found = differences(theirs, ours)
    open_ = [one for one in found if not any(line.holds(*facts, one.test) for line in known)]
    (run.place / f"{run.database}-{mode}-differences.txt").write_text(
        "".join(f"{one.theirs} -> {one.ours}: {one.test}\n{one.text}\n\n" for one in open_)
    )
    wanted = ("statements",) if mode == "blocking" else ("statements", "suspends")
    if idle := [each for each in wanted if not ours.counters.get(each)]:
        sys.exit(f"vinyl: {run.name}: no {' and no '.join(idle)}: this run shows nothing")
    statuses = [outcome.status for outcome in ours.tests.values()]
    passed, failed = sum(each in GOOD for each in statuses), sum(each in BAD for each in statuses)
    counts = (len(statuses), passed, statuses.count("skip"), failed)
    version = run.environment.source.name.rpartition("-")[2]
    cells = (f"{run.name} {version}", run.database, mode, *counts, len(found) - len(open_))
    return [*cells, len(open_)], open_


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="packages_suite", description=__doc__)
    parser.add_argument("--package", default=" ".join(PACKAGES), help="one or more; none: all")
    parser.add_argument("--django", default="6.1")
    parser.add_argument("--db", default="sqlite3", choices=sorted(DATABASES))
    parser.add_argument("--mode", default="fiber", choices=("fiber", "native", "blocking"))
    options = parser.parse_args()
    options.package = options.package.split()
    if unknown := sorted(set(options.package) - set(PACKAGES)):
        parser.error(f"not among {', '.join(PACKAGES)}: {', '.join(unknown)}")
    options.db = DATABASES[options.db]
    return options


def main() -> int:
    options = parse()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit("vinyl: stopped"))
    rows, open_ = [], []
    try:
        with contextlib.ExitStack() as stack:
            server = None
            if options.db == "postgresql":
                server = stack.enter_context(PrivatePostgres())
            stack.enter_context(alone())
            for name in options.package:
                environment = make(name, PACKAGES[name], fetch(name), options.django)
                stack.enter_context(environments.vinyl_installed(environment, CACHE))
                one = Run(name, PACKAGES[name], environment, options.db, server)
                row, found = explained(one, options.mode)
                rows.append(row)
                open_ += found
                for each in found:
                    print(f"{each.theirs} -> {each.ours}: {each.test}")
    except PostgresUnavailable as error:
        sys.exit(f"vinyl: {error}")
    print(
        f"Django {options.django}, SQLite {sqlite3.sqlite_version}, "
        f"Python {sys.version.split()[0]}, {datetime.date.today()}"
    )
    print(f"| {' | '.join(HEAD)} |\n|---|---|---|{'---:|' * (len(HEAD) - 3)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")
    return int(bool(open_))


if __name__ == "__main__":
    sys.exit(main())
