"""Adapters that a test registers with sqlite3."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest


class Celsius:
    def __init__(self, degrees: float) -> None:
        self.degrees = degrees


@pytest.fixture
def adapters() -> Iterator[Callable[..., Any]]:
    """``sqlite3.register_adapter``, whose adapters are gone after the test."""
    before = dict(sqlite3.adapters)
    yield sqlite3.register_adapter
    sqlite3.adapters.clear()
    sqlite3.adapters.update(before)
