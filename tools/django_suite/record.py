"""In the suite's process: the TEST_RUNNER that notes what became of each test.

One JSON object per line goes to the file named by VINYL_SUITE_RESULTS: ``{"event": "start"|"pass"|
"fail"|"error"|"skip"|"xfail"|"upass", "id": …, "text": traceback or reason, "seconds": …}``.
"""

from __future__ import annotations

import json
import os
import time
import unittest
from typing import Any

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


class RecordingRunner(DiscoverRunner):
    """Django's runner with that result class."""

    def get_resultclass(self) -> type[unittest.TextTestResult]:
        return RecordingResult
