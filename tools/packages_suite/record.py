"""A pytest plugin, in the suite's process: notes what became of each test, as django_suite's
record.py does for Django's runner, in the same file and form."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

_results = os.open(os.environ.pop("VINYL_SUITE_RESULTS"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
_unskip = json.loads(os.environ["VINYL_PACKAGE"])["unskip"]


def note(event: str, test: str, text: str = "", seconds: float = 0.0) -> None:
    line = {"event": event, "id": test, "text": text, "seconds": round(seconds, 4)}
    os.write(_results, json.dumps(line).encode() + b"\n")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.own_markers[:] = [
            mark
            for mark in item.own_markers
            if not (_unskip and mark.name == "skip" and mark.kwargs.get("reason") == _unskip)
        ]


def pytest_runtest_logstart(nodeid: str, location: Any) -> None:
    note("start", nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    is_expected = hasattr(report, "wasxfail")
    text = report.longreprtext
    if report.failed:
        note("fail" if report.when == "call" else "error", report.nodeid, text, report.duration)
    elif report.skipped:
        reason = str(getattr(report, "wasxfail", "")) or str(report.longrepr)
        note("xfail" if is_expected else "skip", report.nodeid, reason, report.duration)
    elif report.when == "call":
        note("upass" if is_expected else "pass", report.nodeid, "", report.duration)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        note("error", report.nodeid or "collection", report.longreprtext)
