"""``PLAN_CACHE`` set to "check": what Django makes of the same query and the same rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.models import Model
from django.db.models.sql.constants import CURSOR, MULTI

from vinyl.rows import _DJANGO

__all__ = ["PlanMismatch", "check_aggregation", "check_rows", "check_sql", "same"]


class PlanMismatch(AssertionError):
    """Django compiles, or makes of the rows, something else than the cache had."""


def same(some: Any, others: Any) -> bool:
    """Whether two sequences have values of the same types that are equal, or shown alike: NaN is
    not itself, and psycopg's wrappers have no equality."""
    return len(some) == len(others) and all(map(_alike, some, others))


def _alike(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if one == other:
        return True
    if hasattr(one, "obj"):  # a wrapper's text is four times as long as the bytes in it
        return _alike(one.obj, other.obj) and getattr(one, "dumps", None) is getattr(
            other, "dumps", None
        )
    return repr(one) == repr(other)


def check_sql(query: Any, using: str, sql: str, params: tuple[Any, ...]) -> None:
    _same_statement(query._vinyl_built().get_compiler(using).as_sql(), sql, params)


def _same_statement(django: tuple[str, Any], sql: str, params: tuple[Any, ...]) -> None:
    theirs_sql, theirs = django
    if theirs_sql != sql or not same(tuple(theirs), params):
        raise PlanMismatch(
            f"The plan cache had {sql!r} with {params!r}; Django compiles {theirs_sql!r} with "
            f"{theirs!r}."
        )


def check_rows(
    queryset: Any,
    using: str,
    rows: list[Any],
    make: Callable[[Any, Any, Any], list[Any]],
    session: Any,
) -> list[Any]:
    """What ``make`` makes of the rows, after it was compared with what Django does."""
    made = make(rows, session, queryset)
    theirs = queryset._chain()
    theirs._db = using  # the routers were asked
    theirs.query = _Answered(queryset.query._vinyl_built(), rows)
    theirs._iterable_class = queryset._iterable_class
    expected = list(_DJANGO[queryset._iterable_class](queryset._iterable_class(theirs)))
    ours, djangos = [_shown(each) for each in made], [_shown(each) for each in expected]
    if ours != djangos and repr(ours) != repr(djangos):
        raise PlanMismatch(f"The plan cache made {ours!r} of the rows; Django makes {djangos!r}.")
    return made


def check_aggregation(
    built: Any, using: str, expressions: Any, sql: str, params: Any, row: Any, made: dict[str, Any]
) -> None:
    """Compares with what Django compiles, and with what it makes of the row."""
    get_compiler = built.get_compiler

    def answered(*args: Any, **kwargs: Any) -> Any:
        compiler = get_compiler(*args, **kwargs)

        def execute_sql(result_type: Any = MULTI) -> Any:
            _same_statement(compiler.as_sql(), sql, params)
            return row

        compiler.execute_sql = execute_sql
        return compiler

    built.get_compiler = answered
    theirs = built.get_aggregation(using, expressions)
    if [*made] != [*theirs] or not same([*made.values()], [*theirs.values()]):
        raise PlanMismatch(f"The plan cache made {made!r} of the row; Django makes {theirs!r}.")


class _Answered:
    """A query whose compiler has its rows already."""

    def __init__(self, query: Any, rows: list[Any]) -> None:
        self._query = query
        self._rows = rows

    def get_compiler(self, using: str | None = None, *args: Any, **kwargs: Any) -> Any:
        compiler = self._query.get_compiler(using, *args, **kwargs)
        rows = self._rows

        def execute_sql(result_type: Any = MULTI, *args: Any, **kwargs: Any) -> Any:
            compiler.as_sql()
            if result_type == CURSOR:
                return _Cursor(rows)
            end = compiler.col_count if compiler.has_extra_select else None
            return iter([[row[:end] for row in rows]])

        compiler.execute_sql = execute_sql
        return compiler

    def __getattr__(self, name: str) -> Any:
        return getattr(self._query, name)


class _Cursor:
    def __init__(self, rows: list[Any]) -> None:
        self.cursor = iter(rows)

    def close(self) -> None:
        return None


def _shown(result: Any, around: tuple[Any, ...] = ()) -> Any:
    """A result with everything that is in it, to be compared."""
    if not isinstance(result, Model):
        return type(result), result
    if any(result is each for each in around):
        return type(result)
    state = dict(vars(result))
    kept = dict(vars(state.pop("_state")))
    cache = kept.pop("fields_cache", {})
    kept.pop("peers", None)
    return (
        type(result),
        [(name, type(value), value) for name, value in state.items()],
        sorted((name, repr(value)) for name, value in kept.items()),
        [(name, _shown(value, (*around, result))) for name, value in cache.items()],
    )
