"""``aggregate()`` and ``count()`` of a planned query, straight to the driver.

Django makes, in place, a query of the aggregates alone; what it compiles is kept at a child of the
query's node. A query that Django puts into a subquery for it (a slice) is Django's each time.
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import EmptyResultSet, FullResultSet
from django.db import connections
from django.db.models import Avg, Count, F, Max, Min, Sum
from django.db.models.expressions import Star
from django.db.models.sql.compiler import SQLCompiler
from django.db.models.sql.query import Query

from vinyl import conf, direct
from vinyl._core import Unchanged, aggregates_key, value_rows
from vinyl.originals import unchanged
from vinyl.rows import DICTS, free_converters

from .check import check_aggregation
from .fetch import Kept, bound, template
from .node import Node
from .statement import Statement, remember, stats

__all__ = ["COUNT", "aggregation"]

#: As in Query.get_count().
COUNT: dict[str, Any] = {"__count": Count("*")}

_KINDS = frozenset({Avg, Count, Max, Min, Sum})
#: Their SQL is made of their attributes, too: not even those may be others than at first.
_as_they_were = Unchanged(*_KINDS, F, Star)


def aggregation(query: Any, using: str, expressions: dict[str, Any]) -> dict[str, Any] | None:
    """What ``Query.get_aggregation()`` gives for a planned query; None: Django has to do it."""
    columns = aggregates_key(expressions, _KINDS, F, Star)
    if not columns or not unchanged(Query, SQLCompiler) or not _as_they_were():
        return None
    key = "aggregate", columns
    parent: Node = query._vinyl_node
    node = parent.child(key)
    session = connections[using]
    statement = node.statements.get(using) if node is not None else None
    if (
        node is None
        or using not in node.statements
        or (statement is not None and not statement.is_current(session))
    ):
        return _learn(query, key, using, expressions)
    plan = _plan(statement, using, session)
    params = None if plan is None else bound(node, query._vinyl_lookups, statement, session)
    if plan is None or params is None:
        stats["uncached"] += 1
        return None
    cursor = direct.execute(session, statement.sql, params, reads=True)
    try:
        with session.wrap_database_errors:
            if conf.get("PLAN_CACHE") == "check":
                row = cursor.fetchone()
                (made,) = plan.make([row], session, None)
                built = query._vinyl_built()
                check_aggregation(built, using, expressions, statement.sql, params, row, made)
            else:
                (made,) = plan.make(cursor, session, None)
    finally:
        cursor.close()
    return made  # type: ignore[no-any-return]


def _learn(query: Any, key: Any, using: str, expressions: dict[str, Any]) -> dict[str, Any] | None:
    """Django's answer, and from now on the statement for it."""
    before = query._vinyl_node.query
    if before.is_sliced or before.distinct or before.combinator or before.annotations:
        return None
    built = query._vinyl_built()
    answer: dict[str, Any] = built.get_aggregation(using, expressions)
    compiler = built.get_compiler(using)
    try:
        sql, params = compiler.as_sql()
    except (EmptyResultSet, FullResultSet):
        return answer
    node = query._vinyl_node.child(key) or query._vinyl_node.add(key, built.clone(), [])
    if tuple(built.annotation_select) == tuple(expressions) and not built.select:
        stats["misses"] += 1
        remember(node, using, compiler, sql, params)
    else:
        node.statements[using] = None
    return answer


def _plan(statement: Statement | None, using: str, session: Any) -> Kept | None:
    """What makes the answer from the row."""
    if statement is None:
        return None
    plan = statement.plans.get(Count)
    if plan is None or not plan.holds(session):
        plan = statement.plans[Count] = _new_plan(statement, using)
    return plan if plan is None or plan.holds(session) else None


def _new_plan(statement: Statement, using: str) -> Kept | None:
    session = template(using)
    if statement.features is not type(session):
        return None
    compiler = statement.again(session, using, ())
    columns = compiler.query.annotation_select
    converters = compiler.get_converters(columns.values())
    if not free_converters(converters) or compiler.has_composite_fields(columns.values()):
        return None
    names = tuple(columns)
    return Kept(
        lambda rows, session, _queryset: value_rows(rows, DICTS, names, converters, session),
        compiler,
        session,
    )
