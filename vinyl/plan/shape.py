"""A filter without its values: what it has to have in common with another one for Django to build
the same SQL."""

from __future__ import annotations

import datetime
import decimal
import uuid
from typing import Any

from django.db.models import Model, Q

__all__ = ["filter_shape"]

#: Types of which every value but a field's out-of-range one makes the same SQL.  Exactly these, no
#: subclasses: one could have an as_sql() or a resolve_expression().
PLAIN = frozenset(
    {
        int, float, str, bytes, decimal.Decimal, uuid.UUID,
        datetime.date, datetime.datetime, datetime.time, datetime.timedelta,
    }
)  # fmt: skip
#: Values that are part of the shape: Django's SQL depends on them.
PART_OF_SHAPE = frozenset({bool})
LISTS = frozenset({list, tuple})
#: Longer lists are compiled by Django each time: every length is a shape of its own.
LONGEST_LIST = 64


def filter_shape(q: Q) -> tuple[Any, list[Any]] | None:
    """The shape of ``q``, hashable, and its values in the order in which Django meets them; None
    where SQL may depend on more than names and types."""
    values: list[Any] = []
    key = _node(q, values)
    return None if key is None else (key, values)


def _node(q: Q, values: list[Any]) -> Any:
    parts: list[Any] = [q.connector, q.negated]
    for child in q.children:
        if type(child) is tuple:
            name, value = child
            kind = _kind(value)
            if kind is None or type(name) is not str:
                return None
            if type(kind) is not _Constant:
                values.append(value)
            parts.append((name, kind))
        elif type(child) is Q:
            inner = _node(child, values)
            if inner is None:
                return None
            parts.append(inner)
        else:
            return None
    return tuple(parts)


class _Constant(tuple):
    """A value that is part of the shape, with its type: True is not 1 there."""

    __slots__ = ()


def _kind(value: Any) -> Any:
    kind = type(value)
    if kind in PLAIN:
        return kind
    if kind in PART_OF_SHAPE:
        return _Constant((kind, value))
    if kind in LISTS:
        if not 0 < len(value) <= LONGEST_LIST:
            return None
        kinds = tuple(map(type, value))
        return (kind, kinds) if PLAIN.issuperset(kinds) else None
    if isinstance(value, Model):
        return kind
    return None
