"""The errors that vinyl adds to Django's."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import SynchronousOnlyOperation
from django.db.utils import DataError, OperationalError

__all__ = ["IntegerOutOfRange", "NeedsEventLoop", "NotFetched", "PoolTimeout"]


class NotFetched(SynchronousOnlyOperation):
    """A value was used that has to be awaited first.

    The message names what was used and the cure: ``await`` it, or run the
    synchronous code that needs it with ``vinyl.run``.
    """

    #: The un-awaited operation that was used, if it was one.
    operation: Any = None


class PoolTimeout(OperationalError):
    """No connection became free within ``OPTIONS["pool"]["timeout"]`` seconds."""


class IntegerOutOfRange(DataError, OverflowError):
    """An integer that no column of the database can hold.

    An OverflowError too, which Django's own SQLite backend lets through.
    """

    @classmethod
    def of(cls, value: int, position: int) -> IntegerOutOfRange:
        """For the parameter at `position`, from 1; a value of many digits is not spelt out."""
        bits = value.bit_length()
        shown = int.__repr__(value) if bits <= 256 else f"an integer of {bits} bits"
        return cls(
            f"Python int too large to convert to SQLite INTEGER: parameter {position} is {shown}"
        )


class NeedsEventLoop(RuntimeError):
    """Blocking mode met an awaitable that only an event loop can complete."""
