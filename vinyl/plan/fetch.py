"""From a statement that is known straight to its results: bind, execute, make.

Django's queryset, compiler and cursor are left out; where any of them, or what sees statements, is
not as Django wrote it, or where the results are not made by a kept plan, `fetch` says None and
Django goes its way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.db import connections, router
from django.db.models.query import (
    FlatValuesListIterable,
    ModelIterable,
    NamedValuesListIterable,
    QuerySet,
    ValuesIterable,
    ValuesListIterable,
)
from django.db.models.signals import post_init, pre_init
from django.db.models.sql.compiler import SQLCompiler
from django.db.models.sql.query import Query

from vinyl import conf, direct
from vinyl._core import Unchanged
from vinyl.compiler import hydrator_of
from vinyl.originals import methods_unchanged, unchanged
from vinyl.rows import _Routed, finished, install

from .check import check_rows, check_sql
from .node import Node
from .statement import Statement, stats

__all__ = [
    "ITERABLES", "Kept", "bound", "fetch", "fetch_row", "is_djangos", "plan_key", "template",
]  # fmt: skip

#: Before anybody asks whether Django's row loops are what they should be.
install()

ITERABLES = (
    ModelIterable,
    ValuesIterable,
    ValuesListIterable,
    NamedValuesListIterable,
    FlatValuesListIterable,
)
#: Of a queryset's class: what a fetch passes.
_PASSED = ("_fetch_all", "_iterator", "_prefetch_related_objects", "db", "query")


class Kept:
    """A finished plan, and what has to be as it was when it was made."""

    __slots__ = ("fields", "guard", "hydrators", "make", "timezone")

    def __init__(
        self, make: Callable[[Any, Any, Any], list[Any]], compiler: Any, session: Any
    ) -> None:
        self.make = make
        models = _models(compiler.klass_info) if compiler.klass_info else []
        self.hydrators = [(model, hydrator_of(model)) for model in models]
        self.fields = [(model._meta, model._meta.concrete_fields) for model in models]
        self.guard = Unchanged(*models)
        self.timezone = settings.USE_TZ, session.timezone

    def holds(self, session: Any) -> bool:
        if not all(meta.concrete_fields is fields for meta, fields in self.fields):
            return False
        touched = not self.guard() or pre_init.receivers or post_init.receivers
        if touched and not all(hydrator_of(model) is maker for model, maker in self.hydrators):
            return False
        return self.timezone == (settings.USE_TZ, session.timezone)


def _models(info: dict[str, Any]) -> list[Any]:
    found = [info["model"]]
    for related in info.get("related_klass_infos", ()):
        found += _models(related)
    return found


def is_djangos(cls: type) -> bool:
    """Whether querysets of ``cls`` fetch as Django wrote it."""
    return unchanged(QuerySet, Query, SQLCompiler, *ITERABLES) and methods_unchanged(cls, _PASSED)


def bound(
    node: Node, lookups: tuple[Any, ...] | list[Any], statement: Statement | None, session: Any
) -> tuple[Any, ...] | None:
    """The parameters, where the statement may be executed past Django; it counts as a hit."""
    if (
        not statement
        or not statement.is_current(session)
        or not unchanged(statement.compiler)
        or not direct.unseen(session)
    ):
        return None
    params = statement.bind(lookups, session)
    if params is not None:
        stats["hits"] += 1
        node.used()
    return params


def fetch(queryset: Any) -> list[Any] | None:
    """The results of an unfetched queryset whose query is planned, or None."""
    query = queryset.query
    node = query._vinyl_node
    if not node.statements or not is_djangos(type(queryset)):
        return None
    using = queryset.db
    session = connections[using]
    statement = node.statements.get(using)
    plan = _plan(statement, queryset, using, session)
    params = bound(node, query._vinyl_lookups, statement, session) if plan is not None else None
    if plan is None or params is None:
        # Django asks the routers once a query; and that was it.
        return list(queryset._iterable_class(_Routed(queryset, using))) if router.routers else None
    query.__dict__["_vinyl_compiled"] = using
    query._vinyl_tell()
    cursor = direct.execute(session, statement.sql, params, reads=True)
    try:
        with session.wrap_database_errors:
            if conf.get("PLAN_CACHE") == "check":
                check_sql(query, using, statement.sql, params)
                return check_rows(queryset, using, cursor.fetchall(), plan.make, session)
            return plan.make(cursor, session, queryset)
    finally:
        cursor.close()


def fetch_row(query: Any, using: str) -> tuple[Any, ...] | bool | None:
    """The first row of a planned query, None: it has none; False: Django has to do it."""
    node = query._vinyl_node
    statement = node.statements.get(using)
    if not statement or not unchanged(Query, SQLCompiler):
        return False
    session = connections[using]
    params = bound(node, query._vinyl_lookups, statement, session)
    if params is None:
        return False
    query._vinyl_tell()
    if conf.get("PLAN_CACHE") == "check":
        check_sql(query, using, statement.sql, params)
    cursor = direct.execute(session, statement.sql, params, reads=True)
    try:
        with session.wrap_database_errors:
            return cursor.fetchone()
    finally:
        cursor.close()


def plan_key(queryset: Any) -> Any:
    """What of a queryset, beside its query, its results depend on."""
    return (
        queryset._iterable_class,
        queryset._fields,
        getattr(queryset, "_fetch_mode", None),
        tuple(queryset._known_related_objects),
    )


def _plan(statement: Any, queryset: Any, using: str, session: Any) -> Kept | None:
    if not statement:
        return None
    key = plan_key(queryset)
    plans = statement.plans
    try:
        plan = plans[key]
    except KeyError:
        plan = plans[key] = _new_plan(statement, queryset, using)
    if plan is None or plan.holds(session):
        return plan
    plan = plans[key] = _new_plan(statement, queryset, using)
    return plan if plan is None or plan.holds(session) else None


def _new_plan(statement: Any, queryset: Any, using: str) -> Kept | None:
    session = template(using)
    if statement.features is not type(session):
        return None
    compiler = statement.again(session, using, ())
    make = finished(queryset, compiler)
    return None if make is None else Kept(make, compiler, session)


#: Sessions that are never connected: what is kept must not hold a task's.
_templates: dict[str, tuple[Any, Any]] = {}


def template(using: str) -> Any:
    """A session of the alias, with its settings of now, for what is asked of one and kept."""
    entry = connections.settings[using]
    known = _templates.get(using)
    zone = (entry, settings.USE_TZ, settings.TIME_ZONE)
    if known is None or known[0] != zone:
        known = _templates[using] = zone, connections.create_connection(using)
    return known[1]
