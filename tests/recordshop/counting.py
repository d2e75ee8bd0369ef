"""Counts the threads of this process: those that Python starts, and those that the system sees."""

from __future__ import annotations

import os
import threading
from typing import Any

started = 0


def install() -> None:
    """From now on ``started`` counts each thread that Python starts in this process."""
    start = threading.Thread.start

    def counted(self: threading.Thread, *args: Any, **kwargs: Any) -> None:
        global started
        started += 1
        start(self, *args, **kwargs)

    if not hasattr(start, "counts"):
        counted.counts = True  # type: ignore[attr-defined]
        threading.Thread.start = counted  # type: ignore[method-assign]


def threads() -> dict[str, Any]:
    """``started`` by Python so far, and the ids of the system's ``tasks`` there are now."""
    return {"started": started, "tasks": sorted(map(int, os.listdir("/proc/self/task")))}
