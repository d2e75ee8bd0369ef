"""In the suite's process: runs Django's runtests.py in one of vinyl's modes.

``python launch.py MODE DIRECTORY TESTS ARGUMENTS…``: django (Django's own backend; vinyl is not
imported), blocking (plain code, no loop), fiber (the whole run in one fiber on a running loop),
tasks (as fiber, and each test in a task and fiber of its own), native (as fiber, and asgiref's
bridges lead to fibers instead of threads: the setting NATIVE_ASYNC_API).  DIRECTORY holds the
settings module, and gets the core's counters at the end; TESTS is Django's tests/.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import runpy
import sys
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

COUNTERS = "counters.json"


def run_suite() -> int:
    """Runs runtests.py as a script; its exit code."""
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def each_in_a_task(core: Any, loop: asyncio.AbstractEventLoop) -> dict[str, int]:
    """From now on each test, set-up and clean-up included, runs in a task and fiber of its own.

    What the runner itself does (class set-up, test databases) stays in its fiber.  The runner's
    task makes the operations, so they are in its scope: a class's transaction, opened by the
    runner, is the one its tests work in.
    """
    from django.test import SimpleTestCase

    running = False
    count = {"test_tasks": 0}

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        def __call__(self: unittest.TestCase, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
            nonlocal running
            # Tests that run tests stay in the task they are in.
            if running or core.where() != core.FIBER:
                return call(self, *args, **kwargs)
            running = True
            count["test_tasks"] += 1
            try:
                return core.await_(loop.create_task(core.run(call, self, *args, **kwargs)))
            finally:
                running = False

        return __call__

    for case in (unittest.TestCase, SimpleTestCase):
        case.__call__ = wrap(case.__call__)  # type: ignore[method-assign]
    return count


def plan_every_query() -> Any:
    """From now on plain querysets are planned too, as those of ``Model.vinyl``; the counters."""
    from vinyl.plan import everywhere

    return everywhere.install()


async def on_loop(core: Any, counters: dict[str, int], *, tasks: bool) -> int:
    count = each_in_a_task(core, asyncio.get_running_loop()) if tasks else {}
    try:
        return await core.run(run_suite)
    finally:
        counters.update(count)


def main() -> int:
    mode, directory, tests, *arguments = sys.argv[1:]
    faulthandler.enable()
    os.chdir(tests)
    # As `python runtests.py` would have it; behind that, the settings and this package.
    sys.argv = [str(Path(tests, "runtests.py")), *arguments]
    sys.path[0] = tests
    sys.path += [directory, str(Path(__file__).resolve().parents[1])]
    if mode == "django":
        return run_suite()
    from vinyl import _core

    plans = plan_every_query() if os.environ.pop("VINYL_SUITE_PLANS", "") else {}
    counters: dict[str, int] = {}
    try:
        if mode == "blocking":
            return run_suite()
        if mode == "native":
            from vinyl import native

            native.install()  # as vinyl's AppConfig does; Django's runner does not install our app
        return asyncio.run(on_loop(_core, counters, tasks=mode == "tasks"))
    finally:
        Path(directory, COUNTERS).write_text(json.dumps(counters | plans | _core.stats()))


if __name__ == "__main__":
    sys.exit(main())
