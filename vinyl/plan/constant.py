"""Which statements are the same each time, but for the values of their WHERE clause."""

from __future__ import annotations

from typing import Any

from django.db.models import Avg, Count, Max, Min, Sum, Value
from django.db.models.expressions import Col, OrderBy, Ref, Star
from django.db.models.functions import Random
from django.db.models.sql.compiler import PositionRef

from vinyl.originals import is_original

__all__ = ["is_constant"]

#: Their SQL and parameters are made of their attributes alone.  Others may ask for the time
#: zone or the language, as ``published__date`` does.
_EXPRESSIONS = frozenset(
    {Avg, Col, Count, Max, Min, OrderBy, PositionRef, Random, Ref, Star, Sum, Value}
)


def is_constant(compiler: Any) -> bool:
    """Whether what a SELECT has beside its WHERE clause, which the compiler has just compiled, is
    made of columns."""
    return (
        all(_is_constant(column) for column, *_ in compiler.select)
        and all(map(_is_plain_join, compiler.query.alias_map.values()))
        and all(map(_is_constant, _order(compiler)))
    )


def _is_constant(expression: Any) -> bool:
    return all(
        type(each) in _EXPRESSIONS and (type(each) is not Col or _is_selected_plainly(each))
        for each in expression.flatten()
    )


def _is_selected_plainly(column: Any) -> bool:
    field = column.output_field
    own = "select_format" in vars(field)
    return not own and is_original(getattr(type(field), "select_format", None))


def _is_plain_join(join: Any) -> bool:
    """Whether two tables are joined by their columns alone: a generic relation asks for a content
    type each time."""
    field = getattr(join, "join_field", None)
    return field is None or field.get_extra_restriction(join.table_alias, join.parent_alias) is None


def _order(compiler: Any) -> list[Any]:
    """What is ordered by; a model may say that by expressions."""
    query = compiler.query
    before = query.alias_refcount.copy()
    try:
        return [each for each, _compiled in compiler.get_order_by()]
    finally:
        query.reset_refcounts(before)
