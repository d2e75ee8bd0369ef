"""After each test nothing of it may be left: no live fiber, no un-awaited operation.

Warnings are errors (pyproject.toml), so an operation that is dropped un-awaited fails the test in
which the collection below finds it.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from vinyl import _core


def live_fibers() -> int:
    """Fibers that run or wait; not those that are kept for reuse."""
    return _core.stats()["fibers_live"]


@pytest.fixture(autouse=True, scope="module")
def earlier_objects_are_set_aside() -> None:
    """What is there before a module's first test (Django, the tests, pytest's reports of earlier
    ones) is left out of the collections from there on: going through it for each test took more
    than the tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    before = live_fibers()
    yield
    gc.collect()
    after = live_fibers()
    if after > before:
        pytest.fail(f"{after - before} fibers are still alive after the test")
