"""Async tests, in every mode.

An ``async def`` test runs once per mode: on asyncio's own loop, on uvloop, and without a loop under
``vinyl.drive``.  ``@pytest.mark.modes("asyncio", "uvloop")`` is for a test that is about the loop.
A sync test, or a fixture, that asks for ``mode`` is given its name.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from vinyl import _core

MODES = ("asyncio", "uvloop", "blocking")
LOOP_MODES = ("asyncio", "uvloop")
# A test that waits for ever is a failure with a traceback that says where it waits.
TEST_SECONDS = float(os.environ.get("VINYL_TEST_SECONDS", "60"))


async def _limited(coroutine: Coroutine[Any, Any, Any]) -> None:
    async with asyncio.timeout(TEST_SECONDS):
        await coroutine


def run_in_mode(
    mode: str, function: Callable[..., Coroutine[Any, Any, Any]], /, **kwargs: Any
) -> None:
    """Runs ``await function(**kwargs)`` to its end in ``mode``."""
    if mode == "blocking":
        _core.drive(function(**kwargs))
        return
    factory = uvloop.new_event_loop if mode == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_limited(function(**kwargs)))


def _modes_of(metafunc: pytest.Metafunc) -> tuple[str, ...]:
    marker = metafunc.definition.get_closest_marker("modes")
    if marker is None:
        return MODES
    unknown = set(marker.args) - set(MODES)
    if unknown or not marker.args:
        raise pytest.UsageError(f"{metafunc.definition.nodeid}: modes{marker.args} names no mode")
    return marker.args


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if inspect.iscoroutinefunction(metafunc.function) and "mode" not in metafunc.fixturenames:
        metafunc.fixturenames.append("mode")
    if "mode" in metafunc.fixturenames:
        metafunc.parametrize("mode", _modes_of(metafunc))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    function = pyfuncitem.obj
    if not inspect.iscoroutinefunction(function):
        return None
    names = inspect.signature(function).parameters
    kwargs = {name: pyfuncitem.funcargs[name] for name in names}
    run_in_mode(pyfuncitem.callspec.params["mode"], function, **kwargs)
    return True
