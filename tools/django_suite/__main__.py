"""Runs Django's own test suite, unmodified, on a vinyl engine and compares it with the same run on
Django's own backend.

    python -m django_suite --django 6.1 --db postgresql --mode fiber --apps "queries expressions"

Ends with 0 when no test differs but those in known.txt, with 1 otherwise.  The runs on Django's own
backends are kept in .cache/django-suite/; so is what is found: result.md, and a file for each
difference, in .cache/django-suite/<django>/<database>-<mode>/.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import os
import re
import shutil
import signal
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from private_postgres import PostgresUnavailable, PrivatePostgres

from . import environment as environments
from .batches import make_batches
from .compare import Difference, differences, read_known, shows_nothing, table
from .environment import Environment, say
from .outcome import Outcomes
from .place import choose_user, home, readable_python
from .processes import SETTINGS, Processes, Side

MODES = ("fiber", "tasks", "native", "blocking")
PLANS = ("hits", "misses", "uncached")
DATABASES = {"sqlite": "sqlite3", "sqlite3": "sqlite3", "postgresql": "postgresql"}
HEAD = ("app", "tests", "passed", "skipped", "failed", "differences")


@dataclass
class Run:
    """What was asked for, and what is needed to do it."""

    options: argparse.Namespace
    environment: Environment
    processes: Processes
    server: PrivatePostgres | None
    cache: Path

    @property
    def configuration(self) -> str:
        """The databases' configuration, as far as it changes results."""
        options = self.options
        return options.db + ("-file" if options.db == "sqlite3" and options.sqlite_file else "")

    def side(self, mode: str) -> Side:
        package = "django" if mode == "django" else "vinyl"
        engine = f"{package}{'.db' if mode == 'django' else ''}.backends.{self.options.db}"

        def databases(number: int) -> dict[str, Any]:
            if self.server is not None:
                return {
                    alias: self.server.django(engine, f"{alias}_{number}")
                    for alias in ("default", "other")
                }
            if not self.options.sqlite_file:
                return {alias: {"ENGINE": engine} for alias in ("default", "other")}
            place = self.processes.scratch / str(number)
            return {
                alias: {"ENGINE": engine, "TEST": {"NAME": str(place / f"{alias}.sqlite3")}}
                for alias in ("default", "other")
            }

        return Side(mode, databases, self.options.plans and mode != "django")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="django_suite", description=__doc__)
    parser.add_argument("--django", default="6.1", help="6.1, or exactly 6.1.3")
    parser.add_argument("--db", default="sqlite3", choices=sorted(DATABASES))
    parser.add_argument("--mode", default="fiber", choices=(*MODES, "django"))
    parser.add_argument("--apps", default="", help="names of test apps; none: all but GIS")
    parser.add_argument("--without", default="", help="names of test apps to leave out")
    parser.add_argument("--parallel", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--sqlite-file", action="store_true", help="SQLite in files, not in memory")
    parser.add_argument("--plans", action="store_true", help="the plan cache, checked at each hit")
    options = parser.parse_args()
    options.db = DATABASES[options.db]
    return options


@contextlib.contextmanager
def prepared(options: argparse.Namespace) -> Iterator[Run]:
    """Everything in place: sources, environment, build, server."""
    place, user = home(), choose_user()
    cache = place / ".cache" / "django-suite"
    source = environments.fetch_django(options.django, cache)
    interpreter = readable_python(cache)
    environment = environments.make(source, interpreter, user, place)
    work = cache
    cache /= environment.version
    logs = cache / (f"{options.db}-{options.mode}" + "-plans" * options.plans) / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    processes = Processes(environment, user, cache, logs)
    try:
        with contextlib.ExitStack() as stack:
            if options.mode != "django":
                stack.enter_context(environments.vinyl_installed(environment, work))
            server = None
            if options.db == "postgresql":
                server = stack.enter_context(PrivatePostgres())
            yield Run(options, environment, processes, server, cache)
    finally:
        processes.close()


def baseline(run: Run, batches: list[tuple[str, ...]]) -> dict[tuple[str, ...], Outcomes]:
    """The runs on Django's own backend, from the cache as far as they are there."""
    place = run.cache / "baseline" / run.configuration
    place.mkdir(parents=True, exist_ok=True)
    digests = {
        apps: hashlib.sha256("\0".join([SETTINGS, *apps]).encode()).hexdigest()[:8]
        for apps in batches
    }
    files = {apps: place / f"{apps[0]}-{digest}.json" for apps, digest in digests.items()}
    missing = [apps for apps in batches if not files[apps].exists()]
    if missing:
        say(f"Django's own backend first ({len(missing)} of {len(batches)} batches)")
    side = run.side("django")
    for apps, outcomes in run.processes.run(side, missing, run.options.parallel):
        show(apps, outcomes)
        if outcomes.lost() or not outcomes.tests:
            say(f"{apps[0]} did not end well on Django's own backend; see {run.processes.logs}")
        files[apps].write_text(outcomes.dump())
    return {apps: Outcomes.load(file.read_text()) for apps, file in files.items()}


def show(apps: tuple[str, ...], ours: Outcomes, found: list[Difference] | None = None) -> None:
    tests = len(ours.tests)
    bad = "" if found is None else f"  {len(found)} differences" if found else "  same"
    more = f" and {len(apps) - 1} more" if len(apps) > 1 else ""
    print(f"{apps[0]}{more}: {tests} tests in {ours.seconds:.0f} s{bad}", flush=True)


def save(directory: Path, found: list[Difference]) -> None:
    """A file for each difference, with its traceback."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for difference in found:
        name = re.sub(r"[^\w.]+", "_", difference.test)[:200]
        head = f"{difference.test}\nDjango: {difference.theirs}, vinyl: {difference.ours}\n\n"
        (directory / f"{name}.txt").write_text(head + difference.text)


def report(run: Run, rows: list[tuple[str | int, ...]], ours: Outcomes, known: int) -> str:
    """The table, in Markdown, with what it was made by."""
    options = run.options
    server = run.server.psql("SHOW server_version") if run.server else sqlite3.sqlite_version
    lines = [
        f"Django {run.environment.version}, {run.configuration} {server}, mode {options.mode}, "
        f"Python {sys.version.split()[0]}, {datetime.date.today()}; "
        f"{ours.own('statements')} statements, "
        f"{ours.own('suspends')} suspensions, {ours.seconds:.0f} s of processes; "
        f"{known} of the failed are in known.txt"
        + "".join(f", {ours.counters.get(each, 0)} plan {each}" for each in PLANS if options.plans),
        "",
        f"| {' | '.join(HEAD)} |",
        f"|---|{'---:|' * (len(HEAD) - 1)}",
    ]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)]) + "\n"


def judge(run: Run, batches: list[tuple[str, ...]]) -> int:
    options = run.options
    theirs_by_batch = baseline(run, batches)
    if options.mode == "django":
        return 0
    known = read_known()
    ours, theirs, found = Outcomes(), Outcomes(), []
    say(f"vinyl, mode {options.mode}")
    for apps, outcomes in run.processes.run(run.side(options.mode), batches, options.parallel):
        new = differences(theirs_by_batch[apps], outcomes)
        show(apps, outcomes, new)
        ours.add(outcomes)
        theirs.add(theirs_by_batch[apps])
        found += new
    directory = run.processes.logs.parent
    facts = (run.environment.version, options.db, options.mode)
    open_ = [one for one in found if not any(line.holds(*facts, one.test) for line in known)]
    save(directory / "differences", open_)
    text = report(run, table(theirs, ours, open_), ours, len(found) - len(open_))
    (directory / "result.md").write_text(text)
    print(text)
    for difference in open_:
        print(f"{difference.theirs} -> {difference.ours}: {difference.test}")
    print(f"{len(open_)} differences, {len(found) - len(open_)} known; {directory}")
    nothing = shows_nothing(options.mode, ours, whole=not options.apps)
    for reason in nothing:
        print(f"{reason} This run shows nothing about vinyl.")
    if not nothing and not ours.counters.get("probes"):
        print("These apps use no database: nothing is shown about the driver.")
    return int(bool(open_ or nothing))


def main() -> int:
    options = parse()
    # A run begun in the background ignores SIGINT; either way nothing is left behind.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit("vinyl: stopped"))
    try:
        with prepared(options) as run:
            tests = run.environment.source / "tests"
            batches = make_batches(tests, options.apps.split(), options.without.split())
            return judge(run, batches)
    except PostgresUnavailable as error:
        sys.exit(f"vinyl: {error}")


if __name__ == "__main__":
    sys.exit(main())
