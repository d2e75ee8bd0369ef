"""``update()`` and ``delete()`` of planned querysets, with the SQL that Django executed before.

They take the places of QuerySet's. The first time Django does it, and what it sends is seen: one
statement on one table, whose parameters are those of the new values and of the filter's lookups.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import django
from django.core.exceptions import EmptyResultSet, FieldDoesNotExist, FullResultSet
from django.db import connections, router, transaction
from django.db.models import query as django_query
from django.db.models.deletion import Collector
from django.db.models.query import QuerySet
from django.db.models.sql import DeleteQuery, UpdateQuery
from greenlet import getcurrent

from vinyl import conf, direct
from vinyl._core import Parameters
from vinyl.originals import methods_unchanged, unchanged

from .check import PlanMismatch, same
from .fetch import bound
from .query import PlannedQuery
from .statement import Statement, stats
from .table import Table, table_of

__all__ = ["delete", "update"]

_update: Any = QuerySet.__dict__["update"]
_delete: Any = QuerySet.__dict__["delete"]
#: What they call of a queryset's class.
_PASSED = ("_chain", "_clone", "_not_support_combined_queries", "_raw_delete", "db", "query")


class Write(Statement):
    """``table``: whose new values it has, None: it has none."""

    __slots__ = ("table",)
    table: Table | None


def update(self: Any, **kwargs: Any) -> int:
    """As Django's."""
    if kwargs and _may_be_planned(self, UpdateQuery):
        using = _alias(self)
        new = using and _new_values(self.model, using, kwargs)
        if using and new:
            self._for_write = True
            key = "update", tuple(kwargs)
            count = _written(self, UpdateQuery, key, using, new, lambda: _update(self, **kwargs))
            self._result_cache = None
            return count  # type: ignore[no-any-return]
    return _update(self, **kwargs)  # type: ignore[no-any-return]


def delete(self: Any) -> tuple[int, dict[str, int]]:
    """As Django's."""
    if (
        self._fields is None
        and _may_be_planned(self, DeleteQuery)
        and django_query.Collector is Collector
        and unchanged(Collector)
    ):
        using = _alias(self)
        if using and Collector(using=using, origin=self).can_fast_delete(self):
            session = connections[using]
            if session.connection is None and not session.in_atomic_block:
                session.ensure_connection()  # who hears of it may want to see Django's transaction
            answer = _written(self, DeleteQuery, ("delete",), using, None, lambda: _delete(self))
            self._result_cache = None
            if type(answer) is int:
                return answer, ({self.model._meta.label: answer} if answer else {})
            return answer  # type: ignore[no-any-return]
    return _delete(self)  # type: ignore[no-any-return]


def _may_be_planned(queryset: Any, kind: type) -> bool:
    return (
        type(queryset.query) is PlannedQuery
        and bool(conf.get("PLAN_CACHE"))
        and unchanged(kind)
        and methods_unchanged(type(queryset), _PASSED)
    )


def _alias(queryset: Any) -> str | None:
    """Where it writes; None where Django has to ask the routers, which is done once."""
    if queryset._db is None and router.routers:
        return None
    using: str = queryset.db  # without routers the same for reading and writing
    return using if getattr(connections[using], "vinyl", False) else None


def _new_values(model: Any, using: str, kwargs: dict[str, Any]) -> Any:
    """(table, the values' parameters), None where Django has to look at a name or a value."""
    session = connections[using]
    table = table_of(model._meta.concrete_model, using, session)
    names = tuple(kwargs)
    known = table.writes.get(names, _UNSEEN)
    if known is _UNSEEN:
        known = table.keep(names, _parameters(table, names))
    if known is None:
        return None
    parameters, attnames = known
    row = SimpleNamespace(**dict(zip(attnames, kwargs.values(), strict=True)))
    own = parameters.of(row, session)
    # Before Django 6.1 an UPDATE has its NULLs in the SQL.
    if own is None or (django.VERSION < (6, 1) and any(each is None for each in own)):
        return None
    return table, own


_UNSEEN: Any = object()


def _parameters(table: Table, names: tuple[str, ...]) -> tuple[Parameters, list[str]] | None:
    meta: Any = table.model._meta
    try:
        fields = [meta.get_field(name) for name in names]
    except FieldDoesNotExist:
        return None
    known = dict(table.fields or ())
    if len({*fields}) != len(fields) or not known.keys() >= {*fields}:
        return None
    # Fields' pre_save() is for instances.
    entries = [(name, None, *rest) for name, _before, *rest in map(known.__getitem__, fields)]
    return Parameters(False, tuple(entries), False), [field.attname for field in fields]


def _written(
    queryset: Any, kind: type, key: Any, using: str, new: Any, django_does: Callable[[], Any]
) -> Any:
    """How many rows were written, or Django's answer."""
    query = queryset.query
    session = connections[using]
    node = query._vinyl_node.children.get(key)
    write: Any = node.statements.get(using) if node is not None else None
    if node is None or using not in node.statements or _is_old(write, new, session):
        return _learn(query, kind, key, using, new, django_does)
    params = None if write is None else bound(node, query._vinyl_lookups, write, session)
    if params is None:
        stats["uncached"] += 1
        return django_does()
    if new is not None:
        params = (*new[1], *params)
    if conf.get("PLAN_CACHE") == "check":
        answer, seen = _watched(session, django_does)
        if len(seen) != 1 or seen[0][0] != write.sql or not same(tuple(seen[0][1]), params):
            raise PlanMismatch(
                f"The plan cache had {write.sql!r} with {params!r}; Django executed {seen!r}."
            )
        return answer
    with transaction.mark_for_rollback_on_error(using=using):
        cursor = direct.execute(session, write.sql, params)
        try:
            return cursor.rowcount
        finally:
            cursor.close()


def _is_old(write: Write | None, new: Any, session: Any) -> bool:
    return write is not None and (
        not write.is_current(session) or (new is not None and write.table is not new[0])
    )


def _watched(session: Any, call: Callable[[], Any]) -> tuple[Any, list[tuple[str, Any]]]:
    """What the call answers, and what it sent."""
    seen: list[tuple[str, Any]] = []
    here = getcurrent()

    def watch(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        # SQLite's BEGIN goes the same way; other fibers may use the session meanwhile.
        if getcurrent() is here and not sql.startswith("BEGIN"):
            seen.append((sql, params))
        return execute(sql, params, many, context)

    wrappers = session.execute_wrappers
    wrappers.append(watch)
    try:
        return call(), seen
    finally:
        wrappers.remove(watch)


def _learn(
    query: Any, kind: type, key: Any, using: str, new: Any, django_does: Callable[[], Any]
) -> Any:
    """Django's answer, and from now on the statement for it."""
    session = connections[using]
    if session.execute_wrappers:
        return django_does()  # they may change what is sent
    parent, built = query._vinyl_node, query._vinyl_built()
    answer, seen = _watched(session, django_does)
    if len(seen) == 0:
        return answer  # no row fits
    stats["misses"] += 1
    node = parent.children.get(key) or parent.add(key, built, [])
    write = None
    if len(seen) == 1:
        try:
            write = _new_write(built, kind, using, new, *seen[0])
        except (EmptyResultSet, FullResultSet):
            return answer
    node.statements[using] = write
    return answer


def _new_write(built: Any, kind: Any, using: str, new: Any, sql: str, params: Any) -> Write | None:
    built.clear_ordering(force=True)
    built.select_related = False
    built.get_initial_alias()
    if sum(count > 0 for count in built.alias_refcount.values()) != 1:
        return None
    compiler = built.get_compiler(using)
    write = Write(compiler, sql, {})
    write.compiler = type(kind(built.model).get_compiler(using))
    write.table, own = (None, ()) if new is None else new
    return write if write.learn(compiler, tuple(params), own) else None
