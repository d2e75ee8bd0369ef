"""In the suite's process: the TEST_RUNNER that notes what became of each test.

One JSON object per line goes to the file named by VINYL_SUITE_RESULTS: ``{"event": "start"|"pass"|
"fail"|"error"|"skip"|"xfail"|"upass", "id": …, "text": traceback or reason, "seconds": …}``.  The
probe of a test database notes ``{"event": "probe", "id": alias, "statements": …, "suspends": …}``.
"""

from __future__ import annotations

import json
import os
import time
import unittest
from typing import Any

from django.db import connections
from django.test.runner import DiscoverRunner

# Tests start subprocesses with our environment: none of them is to write into our file.
_results = os.open(os.environ.pop("VINYL_SUITE_RESULTS"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)


class RecordingResult(unittest.TextTestResult):
    """Notes each event, then does what unittest does."""

    _started = 0.0

    def _note(self, event: str, test: Any, text: str = "") -> None:
        seconds = round(time.monotonic() - self._started, 4) if event != "start" else 0.0
        line = {"event": event, "id": test.id(), "text": text, "seconds": seconds}
        os.write(_results, json.dumps(line).encode() + b"\n")

    def startTest(self, test: Any) -> None:  # noqa: N802
        self._started = time.monotonic()
        self._note("start", test)
        super().startTest(test)

    def addSuccess(self, test: Any) -> None:  # noqa: N802
        self._note("pass", test)
        super().addSuccess(test)

    def addError(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addError(test, err)
        self._note("error", test, self.errors[-1][1])

    def addFailure(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addFailure(test, err)
        self._note("fail", test, self.failures[-1][1])

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:  # noqa: N802
        super().addSubTest(test, subtest, err)
        if err is not None:
            failed = issubclass(err[0], test.failureException)
            text = (self.failures if failed else self.errors)[-1][1]
            self._note("fail" if failed else "error", test, f"{subtest}\n{text}")

    def addSkip(self, test: Any, reason: str) -> None:  # noqa: N802
        # A skipped subtest: its test goes on, and passes or fails under its own name.
        case = getattr(test, "test_case", test)
        self._note("skip", case, str(reason))
        super().addSkip(test, reason)

    def addExpectedFailure(self, test: Any, err: Any) -> None:  # noqa: N802
        self._note("xfail", test)
        super().addExpectedFailure(test, err)

    def addUnexpectedSuccess(self, test: Any) -> None:  # noqa: N802
        self._note("upass", test)
        super().addUnexpectedSuccess(test)


#: Statements of about 10 ms, in which a fiber is suspended for certain: a shared-cache database of
#: SQLite, as the suite has it in memory, gives the loop a turn only between rows.
PROBES = {
    "postgresql": "SELECT pg_sleep(0.01)",
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) "
    "SELECT i FROM n",
}


def probe(alias: str) -> None:
    """Notes what one statement on ``alias`` adds to the counters of vinyl's core.

    The tests of an app may be too few, and on SQLite too quick, ever to suspend a fiber: this
    shows that the run is in one all the same, and on vinyl's driver.
    """
    from vinyl import _core

    connection = connections[alias]
    before = _core.stats()
    with connection.cursor() as cursor:
        cursor.execute(PROBES[connection.vendor])
        cursor.fetchall()
    after = _core.stats()
    line = {"event": "probe", "id": alias}
    line |= {name: after[name] - before[name] for name in ("statements", "suspends")}
    os.write(_results, json.dumps(line).encode() + b"\n")


class RecordingRunner(DiscoverRunner):
    """Django's runner with that result class, and with a probe of each test database."""

    def get_resultclass(self) -> type[unittest.TextTestResult]:
        return RecordingResult

    def setup_databases(self, **kwargs: Any) -> Any:
        config = super().setup_databases(**kwargs)
        for alias in kwargs.get("aliases") or ():
            if connections[alias].settings_dict["ENGINE"].startswith("vinyl."):
                probe(alias)
        return config
