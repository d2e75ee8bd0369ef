"""The private PostgreSQL server of the test session.

A server that cannot be had fails the tests that need it; ``VINYL_TEST_WAIVE=postgresql`` skips them
instead, and says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from private_postgres import PrivatePostgres

WAIVABLE = frozenset({"postgresql", "pgbouncer", "browser"})


def waived() -> frozenset[str]:
    """The engines named in VINYL_TEST_WAIVE."""
    names = frozenset(os.environ.get("VINYL_TEST_WAIVE", "").replace(",", " ").split())
    if names - WAIVABLE:
        raise pytest.UsageError(
            f"VINYL_TEST_WAIVE names {sorted(names - WAIVABLE)}; it knows {sorted(WAIVABLE)}"
        )
    return names


def pytest_report_header() -> str | None:
    return f"waived by VINYL_TEST_WAIVE: {', '.join(sorted(waived()))}" if waived() else None


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PrivatePostgres]:
    """A running server of our own: .host (socket directory), .port, .user, .password, .psql()."""
    if "postgresql" in waived():
        pytest.skip("PostgreSQL waived by VINYL_TEST_WAIVE")
    with PrivatePostgres() as server:
        yield server
