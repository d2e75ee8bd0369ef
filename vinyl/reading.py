"""Reading a relation by an expression in a coroutine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.models import Model

from vinyl._core import awaited_expression, written_in_coroutine
from vinyl.exceptions import NotFetched
from vinyl.instance import awaits
from vinyl.pending import Pending, Ready


def in_coroutine(instance: Model) -> bool:
    """Whether a vinyl instance is read by an expression in a coroutine, two frames above."""
    return awaits(instance) and written_in_coroutine(1)


def read_relation(label: str, unfetched: bool, get: Callable[..., Any], *args: Any) -> Any:
    """The value, if no I/O is needed (awaitable when it is awaited at once), else a stand-in.

    Called by a descriptor's ``__get__``. Where `unfetched` cannot tell, Django's own
    `get` finds out: it is refused before any I/O.
    """
    if unfetched:
        return Pending(label, get, *args)
    awaited = awaited_expression(1)
    try:
        value = get(*args)
    except NotFetched:
        return Pending(label, get, *args)
    return Ready(value) if awaited else value
