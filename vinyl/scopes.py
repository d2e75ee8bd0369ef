"""`vinyl.independent()`: a connection of its own, whatever transaction is open around it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from django.db.transaction import TransactionManagementError

from vinyl import _core

__all__ = ["independent"]


@asynccontextmanager
async def independent() -> AsyncIterator[None]:
    """Give the running task sessions of its own for the length of the block.

    What is awaited inside is in no transaction but those opened inside. For a
    task that was started inside another task's atomic block, and for what must
    last even if the open block is rolled back.

    Raises TransactionManagementError in a test whose tasks share one transaction.
    """
    if _core.is_pinned():
        raise TransactionManagementError(
            "vinyl.independent() needs a connection outside the test's transaction: "
            "use vinyl.test.TransactionTestCase."
        )
    scope = _core.Scope()
    before = _core.exchange_scope(scope)
    block = _core.hide_blocks()
    try:
        yield
    finally:
        try:
            await _core.run(_close_sessions, scope)
        finally:
            _core.show_blocks(block)
            _core.exchange_scope(before)


def _close_sessions(scope: _core.Scope) -> None:
    for session in scope.sessions.values():
        session.close()
