"""The test harness itself: async tests run where their mode says."""

from __future__ import annotations

import asyncio

import pytest
import uvloop
from fix_mode import run_in_mode


async def test_runs_where_the_mode_says(mode: str) -> None:
    if mode == "blocking":
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
    else:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, uvloop.Loop) is (mode == "uvloop")


@pytest.mark.modes("asyncio")
async def test_marker_chooses_the_modes(mode: str) -> None:
    assert mode == "asyncio"


def test_failures_come_through(mode: str) -> None:
    async def fails() -> None:
        raise LookupError("from inside")

    with pytest.raises(LookupError, match="from inside"):
        run_in_mode(mode, fails)
