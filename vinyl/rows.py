"""The rows of a queryset on a vinyl engine, made into instances, tuples and dicts in C.

Django's row loops are the ``__iter__`` of its iterable classes. They are replaced, in place: where
the connection is not vinyl's, or a model's instances are not plain (`hydrator_of`), Django's
own go on. The query, its compiler and the way to the cursor are Django's everywhere.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator
from itertools import chain, islice
from types import BuiltinFunctionType, FunctionType
from typing import Any

import django
from django.db.models import query as django_query
from django.db.models.fields.mixins import FieldCacheMixin
from django.db.models.query import (
    FlatValuesListIterable,
    ModelIterable,
    NamedValuesListIterable,
    ValuesIterable,
    ValuesListIterable,
    get_related_populators,
)
from django.db.models.sql import compiler as django_compiler
from django.db.models.sql.compiler import SQLCompiler
from django.db.models.sql.constants import CURSOR, GET_ITERATOR_CHUNK_SIZE
from greenlet import getcurrent

from vinyl import _core
from vinyl.compiler import FastRows, hydrator_of
from vinyl.originals import is_original

__all__ = ["DICTS", "finished", "free_converters", "install"]

TUPLES, DICTS, FLAT, NAMED = range(4)

_DJANGO = {
    cls: cls.__iter__
    for cls in (ModelIterable, ValuesIterable, ValuesListIterable, FlatValuesListIterable)
} | {NamedValuesListIterable: NamedValuesListIterable.__iter__}

#: Somebody who replaces this method (a cache of results) gets to see every result.
_execute_sql = SQLCompiler.execute_sql

#: The same of this function, and of the rows of `iterator()`.
_cursor_iter = django_compiler.cursor_iter

#: The results of the rows, or of as many of the next ones.
_Make = Callable[..., list[Any]]


def install() -> None:
    """Take the place of Django's row loops. Idempotent."""
    for cls, loop in _loops().items():
        cls.__iter__ = loop


def _begun_by_next(cls: Any, loop: Callable[[Any], Iterator[Any]]) -> Any:
    # A generator, as Django's: aiterator() makes it in a coroutine and begins it elsewhere.
    @functools.wraps(_DJANGO[cls])
    def __iter__(self: Any) -> Iterator[Any]:  # noqa: N807
        yield from loop(self)

    return __iter__


@functools.cache
def _loops() -> dict[Any, Any]:
    ours = (
        (ModelIterable, _instances),
        (ValuesIterable, _dicts),
        (ValuesListIterable, _tuples),
        (NamedValuesListIterable, _named),
        (FlatValuesListIterable, _flat),
    )
    return {cls: _begun_by_next(cls, loop) for cls, loop in ours}


def _compiler(iterable: Any) -> FastRows | None:
    db = iterable.queryset.db
    compiler = iterable.queryset.query.get_compiler(using=db)
    if isinstance(compiler, FastRows):
        return compiler
    iterable.queryset = _Routed(iterable.queryset, db)
    return None


class _Routed:
    """A queryset for Django's loop whose routers have been asked: they are asked once a query."""

    def __init__(self, queryset: Any, db: str) -> None:
        self._queryset = queryset
        self.db = db

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queryset, name)


def _rows(iterable: Any, compiler: Any, make_from: Callable[[Any], _Make]) -> Iterator[Any]:
    """Runs the query; ``make_from(compiler)`` is asked afterwards, when the columns are known."""
    whole = not iterable.chunked_fetch and iterable.chunk_size == GET_ITERATOR_CHUNK_SIZE
    if whole and SQLCompiler.execute_sql is _execute_sql:
        cursor = compiler.execute_sql(CURSOR)
        if cursor is None:
            return iter(())
        try:
            make = make_from(compiler)
            with compiler.connection.wrap_database_errors:
                return iter(make(cursor.cursor))
        finally:
            cursor.close()
    if iterable.chunked_fetch and _is_chunked(compiler):
        cursor = compiler.execute_sql(CURSOR, chunked_fetch=True)
        if cursor is None:
            return iter(())
        return chain.from_iterable(_chunks(compiler, cursor, make_from, iterable.chunk_size))
    results = compiler.execute_sql(
        chunked_fetch=iterable.chunked_fetch, chunk_size=iterable.chunk_size
    )
    make = make_from(compiler)
    if whole:
        return iter(make(chain.from_iterable(results)))
    return chain.from_iterable(map(make, results))


def _is_chunked(compiler: Any) -> bool:
    return (
        compiler.connection.features.can_use_chunked_reads
        and SQLCompiler.execute_sql is _execute_sql
        and django_compiler.cursor_iter is _cursor_iter
    )


def _chunks(
    compiler: Any, cursor: Any, make_from: Callable[[Any], _Make], size: int
) -> Iterator[list[Any]]:
    """What Django's `cursor_iter` does, without a tuple for each row."""
    session = compiler.connection
    try:
        make = make_from(compiler)
        rows = cursor.cursor
        if not _core.reads_cells(rows):
            while found := cursor.fetchmany(size):
                yield make(found)
            return
        session.reads_chunks(rows, size)
        while True:
            with session.wrap_database_errors:
                made = make(rows, size)
            if not made:
                return
            yield made
            del made  # else it lives until the next one is there
    finally:
        cursor.close()


def _converters(compiler: Any) -> dict[int, Any]:
    found: dict[int, Any] = compiler.get_converters(
        [column[0] for column in compiler.select[: compiler.col_count]]
    )
    return found


# --- instances


def _instances(self: Any) -> Iterator[Any]:
    plain = hydrator_of(self.queryset.model) is not None and not _fetches_more(self.queryset)
    compiler = _compiler(self) if plain else None
    if compiler is None:
        return _DJANGO[ModelIterable](self)
    queryset = self.queryset
    known = _prefetch_of(queryset) if prefetches else None
    if known is None:
        return _rows(self, compiler, lambda compiler: _model_plan(queryset, compiler).make)

    def make_from(compiler: Any) -> _Make:
        plan = _model_plan(queryset, compiler, known)

        def make(rows: Any, most: int = -1) -> list[Any]:
            made = plan.make(rows, most)
            known.made()
            return made

        return make

    return _rows(self, compiler, make_from)


#: Those that are under way: of `related`.
prefetches: list[Any] = []


def _prefetch_of(queryset: Any) -> Any:
    """The prefetch that this queryset is the query of: Django makes it with the first instance
    as a hint. The prefetch looks at the queryset again when it has it."""
    instance = queryset._hints.get("instance")
    here = getcurrent()
    for known in prefetches:
        if known.model is queryset.model and known.first is instance and known.fiber is here:
            if not queryset._prefetch_related_lookups:
                return known
            # Django fetches what these lead to, the relation itself perhaps, and relates then.
            known.model = None
    return None


def _fetches_more(queryset: Any) -> bool:
    """Whether Django's loop fetches a deferred key of each row, as before 6.1 for what is known."""
    return bool(
        django.VERSION < (6, 1)
        and queryset._known_related_objects
        and queryset.query.deferred_loading != (frozenset(), True)
    )


def _model_plan(queryset: Any, compiler: Any, prefetch: Any = None) -> _core.RowPlan:
    known = tuple(_known(queryset, compiler))
    if prefetch is not None:
        first, _last, names = _own_columns(compiler)
        if prefetch.attname in names:
            known = (*known, (prefetch.relation, first + names.index(prefetch.attname)))
            prefetch.queryset = queryset
    return _core.RowPlan(*_plan_parts(queryset, compiler), known)


def _plan_parts(queryset: Any, compiler: Any) -> tuple[Any, ...]:
    """All of a RowPlan but the objects that are known."""
    info = compiler.klass_info
    select = compiler.select
    db = compiler.using
    fetch_mode = getattr(queryset, "_fetch_mode", None)
    first, last, names = _own_columns(compiler)
    more = () if fetch_mode is None else (fetch_mode,)
    populators: list[Any] = []
    if info.get("related_klass_infos"):
        populators = get_related_populators(info, select, db, *more)
    peers = [] if getattr(fetch_mode, "track_peers", False) else None
    model = info["model"]
    maker = hydrator_of(model) if _are_own(model, names, compiler.query) else None
    if maker is None:
        maker = functools.partial(model.from_db, **({"fetch_mode": fetch_mode} if more else {}))
    root = (
        maker,
        names,
        tuple(range(first, last + 1)),
        -1,
        None,
        None,
        tuple(_related_node(each, peers is not None) for each in populators),
        peers,
    )
    return (
        root,
        db,
        fetch_mode,
        _converters(compiler),
        compiler.connection,
        tuple((compiler.annotation_col_map or {}).items()),
    )


def _are_own(model: Any, names: tuple[str, ...], query: Any) -> bool:
    """Whether the columns are each one of the model's: `queryset | queryset.values(…)` has those of
    the right one."""
    if query.default_cols:
        return True
    own = {field.attname for field in model._meta.concrete_fields}
    return len({*names}) == len(names) and own.issuperset(names)


def _own_columns(compiler: Any) -> tuple[int, int, tuple[str, ...]]:
    """The first and the last column of the model itself, and the attributes that they become."""
    selected = compiler.klass_info["select_fields"]
    first, last = selected[0], selected[-1]
    columns = compiler.select[first : last + 1]
    return first, last, tuple(column[0].target.attname for column in columns)


def _related_node(populator: Any, tracks_peers: bool) -> tuple[Any, ...]:
    """What one of Django's RelatedPopulators does, for a plan."""
    if populator.reorder_for_init is None:
        columns = tuple(range(populator.cols_start, populator.cols_end))
    else:
        found = populator.reorder_for_init(range(_MOST_COLUMNS))
        columns = found if isinstance(found, tuple) else (found,)
    hydrator = hydrator_of(populator.model_cls)
    from_db = getattr(populator, "from_db", None) or populator.model_cls.from_db
    return (
        from_db if hydrator is None else hydrator,
        tuple(populator.init_list),
        columns,
        columns[populator.pk_idx],
        _setter(populator.local_setter),
        _setter(populator.remote_setter),
        tuple(_related_node(each, tracks_peers) for each in populator.related_populators),
        populator.peers if tracks_peers else None,
    )


#: More than any server sends.
_MOST_COLUMNS = 1 << 20


def _nothing(x: Any, y: Any) -> None:
    return None


def _setter(function: Any) -> Any:
    """The name in the cache, where that is all that is set; None for nothing at all."""
    if getattr(function, "__func__", None) is FieldCacheMixin.set_cached_value:
        return function.__self__.cache_name
    code = getattr(function, "__code__", None)
    if code is not None and code.co_code == _NOTHING.co_code and code.co_consts == (None,):
        return None
    return function


_NOTHING = (lambda x, y: None).__code__


def _known(queryset: Any, compiler: Any) -> Iterator[tuple[Any, ...]]:
    if not queryset._known_related_objects:
        return
    first, _last, names = _own_columns(compiler)
    for field, objects in queryset._known_related_objects.items():
        attnames = [
            field.attname if name == "self" else queryset.model._meta.get_field(name).attname
            for name in field.from_fields
        ]
        # Deferred ones would have to be fetched.
        if all(attname in names for attname in attnames):
            columns = tuple(first + names.index(attname) for attname in attnames)
            yield field.name, field.cache_name, objects, columns


# --- values


def _values(self: Any, cls: Any, kind: int, shape: Callable[[Any], Any]) -> Iterator[Any]:
    compiler = _compiler(self)
    if compiler is None:
        return _DJANGO[cls](self)
    # Now: the compiler adds to a union's columns what it is ordered by.
    made = shape(self.queryset)

    def make_from(compiler: Any) -> _Make:
        fields = [column[0] for column in compiler.select[: compiler.col_count]]
        converters = compiler.get_converters(fields)

        def make(rows: Any, most: int = -1) -> list[Any]:
            if compiler.has_extra_select or compiler.has_composite_fields(fields):
                rows, most = (rows if most < 0 else islice(rows, most)), -1
            if compiler.has_extra_select:  # what the rows are ordered by, at their end
                rows = map(operator.itemgetter(slice(compiler.col_count)), rows)
            if compiler.has_composite_fields(fields):
                rows = compiler.apply_converters(rows, converters) if converters else rows
                rows = compiler.composite_fields_to_tuples(rows, fields)
                return _core.value_rows(rows, kind, made, {}, compiler.connection)
            return _core.value_rows(rows, kind, made, converters, compiler.connection, most)

        return make

    return _rows(self, compiler, make_from)


def _names(queryset: Any) -> tuple[str, ...]:
    query = queryset.query
    if getattr(query, "selected", None):
        return tuple(query.selected)
    return (*query.extra_select, *query.values_select, *query.annotation_select)


def _named_class(queryset: Any) -> Any:
    return django_query.create_namedtuple_class(*(queryset._fields or _names(queryset)))


def _none(queryset: Any) -> None:
    return None


def _dicts(self: Any) -> Iterator[Any]:
    return _values(self, ValuesIterable, DICTS, _names)


def _tuples(self: Any) -> Iterator[Any]:
    return _values(self, ValuesListIterable, TUPLES, _none)


def _named(self: Any) -> Iterator[Any]:
    return _values(self, NamedValuesListIterable, NAMED, _named_class)


def _flat(self: Any) -> Iterator[Any]:
    return _values(self, FlatValuesListIterable, FLAT, _none)


# --- plans that are kept


def finished(queryset: Any, compiler: Any) -> Callable[[Any, Any, Any], list[Any]] | None:
    """What makes the results from a cursor's rows, for every queryset of this class and query.

    It is called with the rows, their session and the queryset: of its own it may have the
    objects that are known, of these fields. None where Django's loop has to do it.
    """
    if queryset._known_related_objects and _fetches_more(queryset):
        return None
    converters = _converters(compiler)
    if not free_converters(converters):
        return None
    iterable = queryset._iterable_class
    if iterable is ModelIterable:
        peers = getattr(getattr(queryset, "_fetch_mode", None), "track_peers", False)
        if peers or hydrator_of(queryset.model) is None:
            return None
        if not queryset._known_related_objects:
            make = _model_plan(queryset, compiler).make
            return lambda rows, session, queryset: make(rows)
        parts = _plan_parts(queryset, compiler)
        return lambda rows, session, queryset: _core.RowPlan(
            *parts, tuple(_known(queryset, compiler))
        ).make(rows)
    kind = _VALUES.get(iterable)
    fields = [column[0] for column in compiler.select[: compiler.col_count]]
    if kind is None or compiler.has_extra_select or compiler.has_composite_fields(fields):
        return None
    number, shape = kind
    made = shape(queryset)
    return lambda rows, session, queryset: _core.value_rows(rows, number, made, converters, session)


_VALUES: dict[Any, tuple[int, Callable[[Any], Any]]] = {
    ValuesIterable: (DICTS, _names),
    ValuesListIterable: (TUPLES, _none),
    NamedValuesListIterable: (NAMED, _named_class),
    FlatValuesListIterable: (FLAT, _none),
}


def free_converters(converters: dict[int, Any]) -> bool:
    """Whether all of them give every session the same."""
    return all(_free(each) for each, _expression in converters.values())


def _free(functions: list[Any]) -> bool:
    """Whether converters give every session the same: Django's own, and C's for these."""
    for each in functions:
        own = getattr(each, "__self__", None)
        if isinstance(each, BuiltinFunctionType) and type(own) is tuple:
            each = own[0]  # of vinyl._sqlite3, which has Django's for what it does not know
        function = getattr(each, "__func__", each)
        if not isinstance(function, FunctionType) or not is_original(function):
            return False
    return True
