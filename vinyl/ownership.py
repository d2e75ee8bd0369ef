"""Whose operation it is when what stands for one is awaited by another task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

from vinyl._core import Operation, Scope, current_scope, exchange_scope

Owner = ref[Scope] | None


def owner() -> Owner:
    """The running task's scope while it has an atomic block open, else None."""
    scope = current_scope()
    return ref(scope) if scope is not None and scope.in_block() else None


def owned(by: Owner, fn: Callable[..., Any], args: tuple[Any, ...]) -> Operation[Any]:
    """An operation of the task that `owner()` was asked in, as long as its block is open.

    ``asyncio.gather(queryset, ob.author)`` awaits each in a task of its own: what was written
    inside a block is part of its transaction all the same.
    """
    scope = None if by is None else by()
    if scope is None or not scope.in_block():
        return Operation(fn, args)
    before = exchange_scope(scope)
    try:
        return Operation(fn, args)
    finally:
        exchange_scope(before)
