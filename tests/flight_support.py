"""Which statements of a piece of a test travelled together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from vinyl import _core


@contextlib.contextmanager
def flown(*expected: int) -> Iterator[None]:
    """So many statements were in each flight (of more than one)."""
    before = _core.stats()
    yield
    after = _core.stats()
    found = [after[name] - before[name] for name in ("flights", "flown")]
    assert found == [len(expected), sum(expected)]


@contextlib.contextmanager
def sent(*expected: int) -> Iterator[None]:
    """So many statements were in each flight; alone went those that are said to be 1."""
    before = _core.stats()["statements"]
    with flown(*(count for count in expected if count > 1)):
        yield
    assert _core.stats()["statements"] - before == sum(expected)
