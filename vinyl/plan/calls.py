"""Whole calls: ``Model.vinyl.get(pk=…)`` that was seen before makes no queryset.

A call is a child of the node that it starts at; its ``target`` is the node of the query that
Django executed for it the first time, told by that query itself. Its values are those of the
keyword arguments. All that is not so simple is Django's.
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.db import connections
from django.db.models.manager import BaseManager
from django.db.models.query import QuerySet
from django.db.models.sql.compiler import SQLCompiler
from django.db.models.sql.query import Query

from vinyl import conf, direct
from vinyl._core import Unchanged
from vinyl.originals import methods_unchanged, unchanged
from vinyl.queryset import VinylQuerySet

from .check import PlanMismatch, same
from .fetch import ITERABLES, bound, is_djangos, plan_key
from .node import Node, root_of
from .shape import call_shape

__all__ = ["get"]

#: What a manager's call passes.
_MANAGER = ("get_queryset", "db", "get", "using")


def get(manager: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What ``manager.get_queryset().get(*args, **kwargs)`` gives, in a fiber or in plain code."""
    planned = conf.get("PLAN_CACHE")
    if not planned or args or manager._db is not None or manager._hints or not _is_plain(manager):
        return manager.get_queryset().get(*args, **kwargs)
    shape = call_shape("get", kwargs)
    if shape is None:
        return manager.get_queryset().get(**kwargs)
    key, values = shape
    root = root_of(manager.model)
    call = root.child(key)
    if call is None or planned == "check":
        return _learn(root, key, call, manager, kwargs, values)
    rows = _rows(manager, call, values)
    if rows is None:
        return manager.get_queryset().get(**kwargs)
    if type(rows) is str:  # Django asks the routers once a query, and that was it
        return manager.get_queryset().using(rows).get(**kwargs)
    if len(rows) == 1:
        return rows[0]
    return QuerySet.get(_Fetched(manager.model, rows))  # type: ignore[arg-type]


def _is_plain(manager: Any) -> bool:
    """Whether the manager's querysets are Django's from the first step to the fetch."""
    cls = type(manager)
    known = _plain.get(cls)
    if known is not None and known[0]():
        return known[1]
    guard = Unchanged(cls, VinylQuerySet, QuerySet, Query, SQLCompiler, *ITERABLES)
    plain = (
        manager._queryset_class in plain_querysets
        and cls.get_queryset is BaseManager.get_queryset  # a related manager's is Django's too
        and methods_unchanged(cls, _MANAGER)
        and unchanged(VinylQuerySet)
        and is_djangos(VinylQuerySet)
    )
    _plain[cls] = guard, plain
    return plain


#: The classes of querysets whose calls may be planned as wholes.
plain_querysets: set[type] = {VinylQuerySet}
_plain: dict[type, tuple[Unchanged, bool]] = {}


get.__qualname__ = "QuerySet.get"


def _rows(manager: Any, call: Node, values: list[Any]) -> list[Any] | str | None:
    """The rows, or, where Django has to do it, the alias that the routers answered or None."""
    target = call.target
    key = _default_key()
    if target is None:
        return None
    if not any(each and each.plans.get(key) for each in target.statements.values()):
        return None
    lookups = call.filled(values)
    if lookups is None:
        return None
    using: str = manager.db
    session = connections[using]
    statement = target.statements.get(using)
    plan = statement.plans.get(key) if statement else None
    if plan is None or not plan.holds(session):
        return using
    params = bound(target, lookups, statement, session)
    if params is None:
        return using
    call.used()
    cursor = direct.execute(session, statement.sql, params, reads=True)
    try:
        with session.wrap_database_errors:
            rows: list[Any] = plan.make(cursor, session, None)
            return rows
    finally:
        cursor.close()


_key: Any = None


def _default_key() -> Any:
    global _key
    if _key is None:
        _key = plan_key(QuerySet())
    return _key


def _learn(
    root: Node,
    key: Any,
    call: Node | None,
    manager: Any,
    kwargs: dict[str, Any],
    values: list[Any],
) -> Any:
    """Django's answer; the query that it executes tells which node it came to."""
    queryset = manager.get_queryset()
    told: list[Any] = []
    queryset._query.__dict__["_vinyl_told"] = told
    try:
        answer = queryset.get(**kwargs)
    except ObjectDoesNotExist:
        _learned(root, key, call, told, values)
        raise
    _learned(root, key, call, told, values)
    return answer


def _learned(root: Node, key: Any, call: Node | None, told: list[Any], values: list[Any]) -> None:
    if len(told) != 1:
        if call is None:
            root.add_call(key, None)
        return
    node, lookups = told[0]
    if call is None:
        call = root.add_call(key, node)
    if call.slots is not None and call.target is node:
        _check(call.slots, values, lookups)


def _check(slots: tuple[Any, ...], values: list[Any], lookups: Any) -> None:
    """Whether the call's values are, in their order, those of the query that Django made."""
    valued = [slot for slot in slots if slot.has_value]
    ours = [
        getattr(slot.fill(value), "rhs", value) for slot, value in zip(valued, values, strict=True)
    ]
    theirs = [getattr(lookup, "rhs", lookup) for lookup in lookups]
    if not same(ours, theirs):
        raise PlanMismatch(f"A call was to have the values {ours!r}; Django has {theirs!r}.")


class _Fetched:
    """A queryset that has its results, for Django's ``get()`` to say what is wrong with them."""

    def __init__(self, model: Any, rows: list[Any]) -> None:
        self.model = model
        self._result_cache = rows
        self.query = self

    combinator = distinct_fields = select_for_update = None

    def can_filter(self) -> bool:
        return True

    def filter(self, *args: Any, **kwargs: Any) -> Any:
        return self

    order_by = filter

    def set_limits(self, *args: Any, **kwargs: Any) -> None:
        return None

    def __len__(self) -> int:
        return len(self._result_cache)
