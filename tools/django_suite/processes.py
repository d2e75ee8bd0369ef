"""Runs batches of apps, several processes at a time, and watches that they get on."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .environment import Environment
from .launch import COUNTERS
from .outcome import Outcome, Outcomes, read_results
from .place import User, public_path

#: No test of Django's takes so long: a process that notes nothing for this long hangs.
HANG_SECONDS = float(os.environ.get("VINYL_SUITE_HANG_SECONDS", "240"))
PROGRESS_SECONDS = 15.0
#: A process that dies is begun again with the tests it had not come to, so many times.
RESTARTS = 5

SETTINGS = '''"""Generated: the settings of this Django's tests, with other databases."""

from test_sqlite import *

DATABASES = {databases!r}
TEST_RUNNER = "django_suite.record.RecordingRunner"
VINYL = {{"NATIVE_ASYNC_API": {native}, "PLAN_CACHE": "check"}}
'''


@dataclass(frozen=True)
class Side:
    """One side of the comparison. ``databases``: an entry of DATABASES, for a process number.
    ``plans``: with vinyl's plan cache for all querysets, checked at each hit."""

    mode: str
    databases: Any
    plans: bool = False


@dataclass
class Process:
    """A process at work on ``apps``; ``done`` is what earlier ones, which died, had finished."""

    apps: tuple[str, ...]
    directory: Path
    child: subprocess.Popen[bytes]
    began: float
    restarts: int = 0
    done: Outcomes = field(default_factory=Outcomes)
    size: int = 0
    moved: float = 0.0

    @property
    def results(self) -> Path:
        return self.directory / "results"

    def hangs(self) -> bool:
        """Whether nothing was noted for HANG_SECONDS."""
        size = self.results.stat().st_size if self.results.exists() else 0
        now = time.monotonic()
        if size != self.size or not self.moved:
            self.size, self.moved = size, now
        return now - self.moved > HANG_SECONDS


class Processes:
    """``run`` yields (apps, outcomes) as batches end."""

    def __init__(self, environment: Environment, user: User, work: Path, logs: Path) -> None:
        self.environment = environment
        self.user = user
        self.logs = logs
        # Short: the path of a unix socket that a test makes below it must fit into 108 bytes.
        self.scratch = Path(tempfile.mkdtemp(prefix="vinyl-suite-"))
        self.scratch.chmod(0o755)
        package = Path(__file__).parent
        self.launcher = self.scratch / "lib" / "django_suite" / "launch.py"
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package, self.launcher.parent, ignore=ignored)
        self.numbers = itertools.count(1)

    def close(self) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _start(self, side: Side, apps: tuple[str, ...], labels: list[str]) -> Process:
        number = next(self.numbers)
        directory = self.scratch / str(number)
        (directory / "tmp").mkdir(parents=True)
        settings = directory / "vinyl_suite_settings.py"
        settings.write_text(
            SETTINGS.format(databases=side.databases(number), native=side.mode == "native")
        )
        self.user.own(directory)
        tests = self.environment.source / "tests"
        env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "VIRTUAL_ENV", "PG", "DJANGO"))
        }
        env |= self.environment.env | {
            "VINYL_SUITE_RESULTS": str(directory / "results"),
            "TMPDIR": str(directory / "tmp"),
            "HOME": str(directory / "tmp"),
            "PATH": os.pathsep.join([str(self.environment.python.parent), *public_path()]),
            "LC_ALL": "C.UTF-8",
        }
        if side.plans:
            env["VINYL_SUITE_PLANS"] = "1"
        arguments = ["--settings=vinyl_suite_settings", "--noinput", "--parallel=1", *labels]
        command = [self.environment.python, self.launcher, side.mode, directory, tests, *arguments]
        with open(self._log(apps), "ab") as log:
            child = subprocess.Popen(
                [str(part) for part in command], cwd=tests, env=env, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True, **self.user.switch,
            )  # fmt: skip
        return Process(apps, directory, child, time.monotonic())

    def _log(self, apps: tuple[str, ...]) -> Path:
        return self.logs / f"{apps[0]}{'+' if len(apps) > 1 else ''}.log"

    def _finish(self, process: Process) -> Outcomes:
        outcomes = read_results(process.results)
        outcomes.seconds = time.monotonic() - process.began
        counters = process.directory / COUNTERS
        if counters.exists():
            outcomes.counters |= json.loads(counters.read_text())
        shutil.rmtree(process.directory, ignore_errors=True)
        return outcomes

    def _explain(self, process: Process, outcomes: Outcomes, hung: bool) -> None:
        """A lost test's text: how the process ended, and the end of its log."""
        log = self._log(process.apps).read_text(errors="replace")
        how = "hung and was aborted" if hung else f"ended with {process.child.returncode}"
        for test in outcomes.lost():
            outcomes.tests[test] = Outcome(
                "lost", f"The process {how} in this test.\n{log[-6000:]}"
            )

    def _again(self, side: Side, process: Process, outcomes: Outcomes) -> Process | None:
        """A process for what a dead one had not come to, or None."""
        process.done.add(outcomes)
        reached = {test.partition(".")[0] for test in process.done.tests}
        if not outcomes.tests or process.restarts >= RESTARTS:
            return None
        # runtests.py cannot be told to leave tests out: what is left are the apps not begun.
        left = [app for app in process.apps if app not in reached]
        if not left:
            return None
        new = self._start(side, process.apps, left)
        new.restarts, new.done = process.restarts + 1, process.done
        return new

    def run(self, side: Side, batches: list[tuple[str, ...]], parallel: int) -> Any:
        waiting, running = list(batches), []
        told = time.monotonic()
        try:
            while waiting or running:
                while waiting and len(running) < parallel:
                    apps = waiting.pop(0)
                    self._log(apps).unlink(missing_ok=True)
                    running.append(self._start(side, apps, list(apps)))
                time.sleep(0.05)
                for process in list(running):
                    hung = process.child.poll() is None and process.hangs()
                    if hung:
                        # faulthandler writes every thread's stack.
                        process.child.send_signal(signal.SIGABRT)
                    elif process.child.poll() is None:
                        continue
                    process.child.wait()
                    running.remove(process)
                    self._end_group(process)
                    outcomes = self._finish(process)
                    self._explain(process, outcomes, hung)
                    broken = hung or process.child.returncode not in (0, 1)
                    if broken and (new := self._again(side, process, outcomes)):
                        running.append(new)
                        continue
                    if not broken:
                        process.done.add(outcomes)
                    yield process.apps, process.done
                if time.monotonic() - told > PROGRESS_SECONDS:
                    told = time.monotonic()
                    self._tell(running, len(waiting))
        finally:
            for process in running:
                self._end_group(process)

    def _end_group(self, process: Process) -> None:
        """Ends what the process left behind: servers and shells that its tests had started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.child.pid, signal.SIGKILL)
        process.child.wait()

    def _tell(self, running: list[Process], waiting: int) -> None:
        parts = []
        for process in running:
            outcomes = read_results(process.results)
            name = process.apps[0] + ("…" if len(process.apps) > 1 else "")
            parts.append(f"{name} {len(outcomes.tests)}")
        print(f"  … {', '.join(parts)}; {waiting} batches wait", file=sys.stderr, flush=True)
