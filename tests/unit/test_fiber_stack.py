"""Fibers do not lie over what their loop has on the stack: whatever they call goes well."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).parents[1] / "fiber_stack_worker.py"
SECONDS = 60.0


@pytest.mark.modes("asyncio", "uvloop")
@pytest.mark.parametrize(
    ("case", "times"),
    [
        ("awaited", 600),
        ("called", 600),
        ("received", 600),
        ("streamed", 600),
        ("loops", 8400),
        ("nested", 10500),
        ("threads", 1800),
    ],
)
def test_at_every_depth(mode: str, case: str, times: int) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", WORKER, mode, case],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{times}\n", "")
