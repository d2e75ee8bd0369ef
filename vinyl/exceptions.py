"""The errors that vinyl adds to Django's."""

from django.core.exceptions import SynchronousOnlyOperation
from django.db.utils import OperationalError

__all__ = ["NeedsEventLoop", "NotFetched", "PoolTimeout"]


class NotFetched(SynchronousOnlyOperation):
    """A value was used that has to be awaited first.

    The message names what was used and the cure: ``await`` it, or run the
    synchronous code that needs it with ``vinyl.run``.
    """


class PoolTimeout(OperationalError):
    """No connection became free within ``OPTIONS["pool"]["timeout"]`` seconds."""


class NeedsEventLoop(RuntimeError):
    """Blocking mode met an awaitable that only an event loop can complete."""
