"""Querysets whose fetching is awaited.

Chaining is Django's own.  What fetches makes an `Operation`, which runs Django's
own method in a fiber; inside a fiber everything here steps aside.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from itertools import islice
from types import FunctionType
from typing import Any, NoReturn, TypeVar

from asgiref.sync import markcoroutinefunction
from django.db.models import Model
from django.db.models.query import QuerySet, RawQuerySet
from django.db.models.sql.query import Query

from vinyl import conf
from vinyl._core import FIBER, PLAIN, Operation, awaited_expression, where, written_in_coroutine
from vinyl.aliases import require, vinyl_alias
from vinyl.batches import insert_together, may_travel
from vinyl.exceptions import NotFetched
from vinyl.inserting import assign_returned, split_new
from vinyl.instance import settle
from vinyl.originals import methods_unchanged
from vinyl.ownership import Owner, owned, owner
from vinyl.pending import Known, KnownTruth, Ready
from vinyl.plan.fetch import fetch
from vinyl.plan.query import PlannedQuery

M = TypeVar("M", bound=Model)

# Django's methods that go to the database and end a chain.
TERMINALS = (
    "aggregate",
    "bulk_create",
    "bulk_update",
    "contains",
    "count",
    "create",
    "delete",
    "earliest",
    "exists",
    "explain",
    "first",
    "get",
    "get_or_create",
    "in_bulk",
    "last",
    "latest",
    "update",
    "update_or_create",
)
# Those of them that a fetched queryset answers by itself, and how it does so to sync code: a
# paginator, a template.
KNOWN: dict[str, type[Known]] = {"contains": KnownTruth, "count": Known, "exists": KnownTruth}
DEFAULT_CHUNK = 2000


class _Fetching:
    """What a queryset and a raw queryset share: they are awaited as a whole."""

    # Made by a related manager of an instance: there an awaitable is made only by
    # a call written in a coroutine, and plain sync code is plain Django.
    _vinyl_strict = False
    _vinyl_owner: Owner = None
    _result_cache: list[Any] | None
    _prefetch_related_lookups: tuple[Any, ...]
    _prefetch_done: bool
    _db: str | None
    model: type[Model]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._vinyl_belongs()

    def _vinyl_belongs(self) -> None:
        if (by := owner()) is not None:
            self._vinyl_owner = by

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())  # type: ignore[arg-type]
        state.pop("_vinyl_owner", None)
        return state

    def __await__(self) -> Generator[Any, Any, list[Any]]:
        return self.__vinyl_operation__().__await__()

    def __vinyl_operation__(self) -> Any:
        if self._vinyl_fetched():
            return Ready(list(self._result_cache or ()))
        return owned(self._vinyl_owner, _fetch, (self,))

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._vinyl_rows()

    async def _vinyl_rows(self) -> AsyncIterator[Any]:
        for row in await self:
            yield row

    def _vinyl_fetched(self) -> bool:
        return self._result_cache is not None and (
            self._prefetch_done or not self._prefetch_related_lookups
        )

    def _vinyl_refuses(self) -> bool:
        """Whether fetching here and now would block a loop or go unnoticed."""
        mode = where()
        return mode != FIBER and not (mode == PLAIN and self._vinyl_strict)

    def _vinyl_plain(self, depth: int = 0) -> bool:
        """Whether a terminal method, called `depth` frames above the caller, is Django's."""
        mode = where()
        if mode == FIBER:
            return True
        return self._vinyl_strict and (mode == PLAIN or not written_in_coroutine(depth + 1))

    def _vinyl_unfetched(self) -> NotFetched:
        cure = (
            "in plain synchronous code give it to vinyl.drive(), or use Model.objects."
            if where() == PLAIN
            else "await it first (`await queryset`, `async for`), or run the synchronous code "
            "that needs it with vinyl.run()."
        )
        return NotFetched(f"This queryset of {self.model._meta.label} is not fetched yet: {cure}")

    def _fetch_all(self) -> None:
        if self._vinyl_refuses() and not self._vinyl_fetched():
            raise self._vinyl_unfetched()
        super()._fetch_all()  # type: ignore[misc]


def _fetch(queryset: Any) -> list[Any]:
    queryset._fetch_all()
    return list(queryset._result_cache)


class VinylQuerySetMixin(_Fetching):
    """Put before a QuerySet class, makes its fetching awaitable."""

    def __init__(self, model: Any = None, query: Any = None, *args: Any, **kwargs: Any) -> None:
        if (
            query is None
            and model is not None
            and _starts_as_djangos(type(self))
            and conf.get("PLAN_CACHE")
        ):
            query = PlannedQuery(model)
        super().__init__(model, query, *args, **kwargs)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "_vinyl_base" not in cls.__dict__:
            _run_overrides_whole(cls)

    def _fetch_all(self) -> None:
        if self._result_cache is None:
            if self._vinyl_refuses():
                raise self._vinyl_unfetched()
            # ``query``, not ``_query``: a related manager's filter is only now applied.
            if type(self.query) is PlannedQuery:
                self._result_cache = fetch(self)
        super()._fetch_all()

    # --- which database

    @property
    def db(self) -> str:
        alias: str = self._db or super().db  # type: ignore[misc]
        if not self._vinyl_strict:
            return require(alias, self.model)
        return alias if where() == PLAIN else vinyl_alias(alias) or alias

    def _prepare_for_bulk_create(self, objs: Any) -> Any:
        if any(hasattr(field, "fk_field") for field in self.model._meta.private_fields):
            for each in objs:
                settle(each)
        split = split_new(self.model, objs)
        return super()._prepare_for_bulk_create(objs) if split is None else split  # type: ignore[misc]

    def _batched_insert(self, objs: Any, fields: Any, batch_size: Any, **kwargs: Any) -> Any:
        insert = functools.partial(super()._batched_insert, objs, fields, batch_size, **kwargs)  # type: ignore[misc]
        many = isinstance(batch_size, int) and 0 < 2 * batch_size < len(objs)
        together = many and may_travel(self.db, fields)
        rows = insert_together(self, insert) if together else insert()
        return assign_returned(self.model, objs, fields, rows, self.db)

    def using(self, alias: str | None) -> Any:
        if alias is not None and not (self._vinyl_strict and where() == PLAIN):
            alias = vinyl_alias(alias) or alias
        return super().using(alias)  # type: ignore[misc]

    # --- chaining

    def _clone(self) -> Any:
        clone = super()._clone()  # type: ignore[misc]
        if self._vinyl_strict:
            clone._vinyl_strict = True
        return clone

    def __and__(self, other: Any) -> Any:
        return self._vinyl_combined(super().__and__(other), other)  # type: ignore[misc]

    def __or__(self, other: Any) -> Any:
        return self._vinyl_combined(super().__or__(other), other)  # type: ignore[misc]

    def __xor__(self, other: Any) -> Any:
        return self._vinyl_combined(super().__xor__(other), other)  # type: ignore[misc]

    def _vinyl_combined(self, result: Any, other: Any) -> Any:
        # Django starts from the base manager when the left side is sliced.
        return result if result is other else awaitable_queryset(result, strict=self._vinyl_strict)

    def raw(
        self, raw_query: str, params: Any = (), translations: Any = None, using: str | None = None
    ) -> VinylRawQuerySet:
        alias = self.db if using is None else vinyl_alias(using) or using
        raw = super().raw(raw_query, params, translations, alias)  # type: ignore[misc]
        raw.__class__ = VinylRawQuerySet
        raw._vinyl_belongs()
        raw._vinyl_strict = self._vinyl_strict
        return raw

    # --- values

    def __getitem__(self, k: Any) -> Any:
        get = super().__getitem__  # type: ignore[misc]
        if where() == FIBER:
            return get(k)
        awaited = awaited_expression()
        if self._result_cache is not None:
            return Ready(get(k)) if awaited else get(k)
        if awaited and not (isinstance(k, slice) and k.step is None):
            return Operation(get, (k,))
        return get(k)

    def __repr__(self) -> str:
        mode = where()
        if self._vinyl_fetched() or (self._vinyl_strict and mode in (PLAIN, FIBER)):
            return super().__repr__()
        return f"<{type(self).__name__} of {_label(self.model)}: not fetched, await it>"

    def iterator(self, chunk_size: int | None = None) -> Any:
        rows = super().iterator(chunk_size)  # type: ignore[misc]
        return rows if self._vinyl_plain() else Stream(rows, chunk_size or DEFAULT_CHUNK)

    def aiterator(self, chunk_size: int = DEFAULT_CHUNK) -> Any:
        return Stream(super().iterator(chunk_size), chunk_size)  # type: ignore[misc]


@functools.cache
def _starts_as_djangos(cls: type) -> bool:
    """Whether no class of the user's has an ``__init__``, which may start with its own Query."""
    ours = (QuerySet, VinylQuerySetMixin, _Fetching, object)
    return not any("__init__" in each.__dict__ for each in cls.__mro__ if each not in ours)


#: What a related manager calls of its new queryset: one's own may do more to the Query.
_ON_THE_WAY = (
    "_add_hints", "_chain", "_clone", "_filter_or_exclude", "_next_is_sticky", "filter", "using",
)  # fmt: skip


def start_planned(queryset: Any) -> None:
    """Gives a queryset that starts with a new Query a planned one in its place."""
    started = queryset._query
    if (
        type(started) is Query
        and _starts_as_djangos(type(queryset))
        and methods_unchanged(type(queryset), _ON_THE_WAY)
        and conf.get("PLAN_CACHE")
    ):
        query = PlannedQuery(queryset.model)
        if started.filter_is_sticky:
            query.filter_is_sticky = True
        queryset._query = query


def _label(model: type[Model] | None) -> str:
    return "no model" if model is None else model._meta.label


class Stream:
    """``async for`` over ``iterator()``: one operation per chunk of `size` rows."""

    def __init__(self, rows: Iterator[Any], size: int) -> None:
        self._rows = _stream(rows, size)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._rows.__aiter__()

    def __anext__(self) -> Any:
        return self._rows.__anext__()

    def aclose(self) -> Any:
        return self._rows.aclose()

    def __iter__(self) -> NoReturn:
        raise NotFetched(
            "iterator() of an unfetched queryset is read with `async for`; run the synchronous "
            "code that iterates over it with vinyl.run()."
        )


async def _stream(rows: Any, size: int) -> Any:
    try:
        while chunk := await Operation(_take, (rows, size)):
            for row in chunk:
                yield row
    finally:
        # Left early, the server-side cursor behind the generator is still open.
        if rows.gi_frame is not None:
            await Operation(rows.close)


def _take(rows: Iterator[Any], size: int) -> list[Any]:
    return list(islice(rows, size))


def _terminal(name: str) -> Any:
    @functools.wraps(getattr(QuerySet, name))
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        django = getattr(super(VinylQuerySetMixin, self), name)
        if self._vinyl_plain():
            return django(*args, **kwargs)
        if name in KNOWN and self._result_cache is not None and not written_in_coroutine():
            return KNOWN[name](django(*args, **kwargs))
        return Operation(django, args, kwargs)

    return _ours(method)


def _terminal_async(name: str) -> Any:
    @functools.wraps(getattr(QuerySet, "a" + name))
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return Operation(getattr(self, name), args, kwargs)

    return markcoroutinefunction(_ours(method))


def _ours(method: Any) -> Any:
    method._vinyl_wrapped = True
    return method


for _name in TERMINALS:
    setattr(VinylQuerySetMixin, _name, _terminal(_name))
    setattr(VinylQuerySetMixin, "a" + _name, _terminal_async(_name))


def _run_overrides_whole(cls: type) -> None:
    """A user's own get(), update() … runs in the fiber from its first line, so that what
    its super() call returns is a value there."""
    for name in TERMINALS:
        method = inspect.getattr_static(cls, name)
        if not isinstance(method, FunctionType) or inspect.iscoroutinefunction(method):
            continue
        if not getattr(method, "_vinyl_wrapped", False):
            setattr(cls, name, _whole(method))


def _whole(method: Callable[..., Any]) -> Any:
    @functools.wraps(method)
    def start(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self._vinyl_plain():
            return method(self, *args, **kwargs)
        return Operation(method, (self, *args), kwargs)

    return _ours(start)


class VinylQuerySet(VinylQuerySetMixin, QuerySet[M]):
    """A queryset that is awaited: see the contract's section 2."""

    @classmethod
    def as_manager(cls) -> Any:
        from vinyl.manager import VinylManager

        manager = VinylManager.from_queryset(cls)()
        manager._built_with_as_manager = True
        return manager

    as_manager.__func__.queryset_only = True  # type: ignore[attr-defined]


class VinylRawQuerySet(_Fetching, RawQuerySet):
    """``Model.vinyl.raw()``: awaited as a whole."""

    def __getitem__(self, k: Any) -> Any:
        get = super().__getitem__
        if where() == FIBER or not awaited_expression():
            return get(k)
        return Ready(get(k)) if self._vinyl_fetched() else Operation(get, (k,))

    def __iter__(self) -> Iterator[Any]:
        self._fetch_all()
        return iter(self._result_cache or ())

    def iterator(self) -> Any:
        rows = super().iterator()
        return rows if self._vinyl_plain() or where() == FIBER else Stream(rows, DEFAULT_CHUNK)

    def _clone(self) -> Any:
        clone = super()._clone()
        clone._vinyl_strict = self._vinyl_strict
        return clone

    def using(self, alias: str | None) -> Any:
        raw = super().using(alias if alias is None else vinyl_alias(alias) or alias)
        raw.__class__ = VinylRawQuerySet
        raw._vinyl_belongs()
        raw._vinyl_strict = self._vinyl_strict
        return raw


@functools.cache
def awaitable_class(cls: Any) -> type:
    """The class of `cls`' querysets that are awaited; made when `cls` is plain Django's."""
    if issubclass(cls, VinylQuerySetMixin):
        return cls
    if cls is QuerySet:
        return VinylQuerySet
    names: dict[str, Any] = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "_vinyl_base": cls,
        "__reduce__": _reduce,
    }
    for name in custom_methods(cls, QuerySet):
        names[name] = _custom(getattr(cls, name))
    return type(cls.__name__, (VinylQuerySetMixin, cls), names)


def custom_methods(cls: type, base: type) -> list[str]:
    """The names of the public synchronous methods that `cls` adds to Django's `base`."""
    return [
        name
        for name, method in inspect.getmembers_static(cls, inspect.isfunction)
        if not name.startswith("_")
        and not hasattr(base, name)
        and not inspect.iscoroutinefunction(method)
        and not inspect.isasyncgenfunction(method)
    ]


def tried(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What the call gives without I/O, which is refused before it starts; else an operation
    that makes the call in a fiber."""
    try:
        return call(*args, **kwargs)
    except NotFetched as error:
        if error.operation is not None:
            error.operation.close()  # made and used by the call, which is made again
        return Operation(call, args, kwargs)


def _custom(method: Callable[..., Any]) -> Any:
    """A method of the user's own, on a queryset class that knows nothing of vinyl."""

    @functools.wraps(method)
    def start(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self._vinyl_plain():
            return method(self, *args, **kwargs)
        return tried(method, (self, *args), kwargs)

    return start


def awaitable_queryset(queryset: Any, *, strict: bool) -> Any:
    """Makes a queryset that nobody else holds awaitable, in place."""
    if not isinstance(queryset, VinylQuerySetMixin):
        queryset.__class__ = awaitable_class(type(queryset))
        queryset._vinyl_belongs()
    if strict:
        queryset._vinyl_strict = True
    return queryset


def _reduce(self: Any) -> tuple[Any, ...]:
    return _restore, (self._vinyl_base,), self.__getstate__()


def _restore(base: type[QuerySet[Any]]) -> Any:
    cls: Any = awaitable_class(base)
    return cls.__new__(cls)
