"""The batches of one ``bulk_create()`` or ``bulk_update()``, sent together on PostgreSQL.

Django executes one batch after the other, a round trip each. Here each is executed by Django's
own method in a strand (`_core.together`), and what comes to its statement waits until the others
have too. Of a ``bulk_create()`` Django's loop is run first, and only notes the batches.

The first batch goes alone: with it the transaction begins, and the server sees the statement. So
whatever is wrong with all of them is known before more is sent.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import chain
from typing import Any

from django.db import connections, transaction
from django.db.models.fields import DateField, DateTimeField, Field, TimeField

from vinyl import direct
from vinyl._core import together

__all__ = ["insert_together", "may_travel", "run_together"]

#: So many are sent at once: their values are in memory together.
MOST = 8

#: They give a value that does not depend on what was inserted before, and do nothing else.
_PRE_SAVE = frozenset({cls.pre_save for cls in (Field, DateField, DateTimeField, TimeField)})


def may_travel(alias: str, fields: Any) -> bool:
    """Whether several batches of ``fields`` may be sent together, and nobody would notice."""
    session = connections[alias]
    return (
        session.vendor == "postgresql"
        and direct.unseen(session)
        and all(getattr(type(field), "pre_save", None) in _PRE_SAVE for field in fields)
    )


def run_together(alias: str, calls: list[Callable[[], Any]]) -> list[Any]:
    """What the calls return, which execute a statement each. To be called in a transaction."""
    results = [call() for call in calls[:1]]
    session = connections[alias]
    if not direct.unseen(session):  # since it has connected, for this
        return results + [call() for call in calls[1:]]
    link = session.connection
    link.parks_writes += 1
    try:
        for start in range(1, len(calls), MOST):
            results += _in_order(calls[start : start + MOST])
    finally:
        link.parks_writes -= 1
    return results


def _in_order(calls: list[Callable[[], Any]]) -> list[Any]:
    """What they return, or the error that they would raise one after the other.

    One that refuses a value raises before what is ahead of it has been to the server. So those
    behind are not begun, those ahead are sent, and it is its error only where they have none.
    """
    ended = 0
    refused: list[Exception] = []

    def run(place: int, call: Callable[[], Any]) -> Any:
        nonlocal ended
        if refused:
            return None
        try:
            result = call()
        except Exception as error:
            if ended >= place:
                raise
            refused.append(error)
            return None
        ended += 1
        return result

    results = together([functools.partial(run, *each) for each in enumerate(calls)])
    if refused:
        raise refused.pop()
    return results


def insert_together(queryset: Any, batched_insert: Callable[[], Any]) -> list[Any]:
    """What ``batched_insert``, Django's ``_batched_insert`` of these objects, would return."""
    insert = queryset._insert
    calls: list[Callable[[], Any]] = []

    def note(*args: Any, **kwargs: Any) -> list[Any]:
        calls.append(functools.partial(insert, *args, **kwargs))
        return []

    with transaction.atomic(using=queryset.db, savepoint=False):
        queryset._insert = note
        try:
            batched_insert()
        finally:
            del queryset._insert
        return list(chain.from_iterable(run_together(queryset.db, calls)))
