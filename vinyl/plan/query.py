"""A Query that takes down what is done to it and is built only when more of it is needed."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from django.core.exceptions import EmptyResultSet, FullResultSet
from django.db.models import Model, Q
from django.db.models.lookups import Lookup
from django.db.models.sql.query import Query

from vinyl.originals import unchanged

from .aggregates import COUNT, aggregation
from .fetch import fetch_row
from .node import Node, leaves, root_of, with_values
from .shape import filter_shape
from .statement import compiler_for

__all__ = ["PlannedQuery"]

#: Types of attributes that may be read off another query of the same history.
_FIXED = (bool, int, str, tuple, frozenset, type(None))
_STATE = (
    "model",
    "_vinyl_node",
    "_vinyl_calls",
    "_vinyl_lookups",
    "_vinyl_compiled",
    "_vinyl_told",
)


class PlannedQuery(Query):
    """Django's Query of a model, not built yet.

    The steps that querysets take most (``add_q``, ``set_limits`` …) only move it from node to node
    of what was done to queries before.  Any other use turns it into the plain Query that Django
    would have made, in place; so whoever looks meets Django's own class, and nothing has to be
    known here of what it does there.
    """

    _vinyl_node: Node
    #: (method, arguments) of each step, to do them again on a Query.
    _vinyl_calls: tuple[tuple[str, tuple[Any, ...]], ...]
    #: For the values of all filters so far, as they were when the filter was made: Django's
    #: lookups, or the value itself where it is plain.
    _vinyl_lookups: tuple[Any, ...]
    #: The alias it was compiled for last: Django's compiler leaves its marks on a Query.
    _vinyl_compiled: str | None
    #: Where the query that is executed in the end is put down, with what it has learned by then.
    _vinyl_told: list[Any] | None

    def __init__(self, model: type[Model]) -> None:
        _start(self, model, root_of(model), (), ())

    # --- what is planned

    def clone(self) -> Any:
        copy = _EMPTY(PlannedQuery)
        _start(copy, self.model, self._vinyl_node, self._vinyl_calls, self._vinyl_lookups)
        if self._vinyl_told is not None:
            copy.__dict__["_vinyl_told"] = self._vinyl_told
        return copy

    def chain(self, klass: type | None = None) -> Any:
        if klass is not None and klass is not Query:
            return _built(self).chain(klass)
        copy = self.clone()
        # What Django forgets here decides whether the next filter shares a join.
        known = copy._vinyl_node.query
        if known.used_aliases or known.filter_is_sticky:
            copy._vinyl_step("chain", ())
        return copy

    def add_q(self, q_object: Q, reuse_all: bool = False) -> None:
        shape = None if reuse_all else filter_shape(q_object)
        if shape is None:
            return become(self).add_q(q_object, *([True] if reuse_all else []))
        key, values = shape
        node = self._vinyl_node.children.get(key)
        call = ("add_q", (q_object,))
        if node is None:
            return self._vinyl_learn_filter(key, call, values)
        lookups = None if node.slots is None else _filled(node.slots, values)
        if lookups is None:
            return become(self).add_q(q_object)
        self._vinyl_move(node, call, lookups)
        return None

    def _vinyl_learn_filter(self, key: Any, call: tuple[str, Any], values: list[Any]) -> None:
        before = leaves(self._vinyl_node.query.where) or []
        query = _built(self)
        query.add_q(*call[1])
        after = leaves(query.where)
        added = None if after is None else with_values(after[len(before) :])
        if added is not None and not _fits(added, values):
            added = None
        node = self._vinyl_node.add(key, query.clone(), added)
        if added is None:
            _turn_into(self, query)
        else:
            self._vinyl_move(node, call, tuple(added))

    def _vinyl_step(self, name: str, args: tuple[Any, ...]) -> None:
        """A step whose arguments are part of the shape."""
        call = (name, args)
        node = self._vinyl_node.children.get(call)
        if node is None:
            query = _built(self)
            result = getattr(query, name)(*args)
            node = self._vinyl_node.add(call, (query if result is None else result).clone(), [])
        self._vinyl_move(node, call, ())

    def _vinyl_move(self, node: Node, call: tuple[str, Any], lookups: tuple[Any, ...]) -> None:
        state = self.__dict__
        state["_vinyl_node"] = node
        state["_vinyl_calls"] = (*self._vinyl_calls, call)
        if lookups:
            state["_vinyl_lookups"] = self._vinyl_lookups + lookups

    def get_compiler(
        self, using: str | None = None, connection: Any = None, elide_empty: bool = True
    ) -> Any:
        if using is None or connection is not None or not elide_empty:
            return become(self).get_compiler(using, connection, elide_empty)
        self.__dict__["_vinyl_compiled"] = using
        self._vinyl_tell()
        return compiler_for(self, using)

    def _vinyl_tell(self) -> None:
        if self._vinyl_told is not None:
            self._vinyl_told.append((self._vinyl_node, self._vinyl_lookups))

    def has_results(self, using: str) -> bool:
        query = self.clone()
        query._vinyl_step("exists", ())
        row = fetch_row(query, using)
        return bool(query.get_compiler(using).has_results() if row is False else row)

    def get_aggregation(self, using: str, aggregate_exprs: dict[str, Any]) -> Any:
        answer = aggregation(self, using, aggregate_exprs)
        return become(self).get_aggregation(using, aggregate_exprs) if answer is None else answer

    def get_count(self, using: str) -> int:
        if not unchanged(Query):
            return become(self).get_count(using)  # type: ignore[no-any-return]
        count: int = self.clone().get_aggregation(using, COUNT)["__count"]
        return count

    def _vinyl_built(self) -> Query:
        return _built(self)

    # --- what may be read

    @property
    def extra_select(self) -> Any:
        return self._vinyl_node.query.extra_select

    @property
    def annotation_select(self) -> Any:
        return self._vinyl_node.query.annotation_select

    @property
    def selected(self) -> Any:
        return self._vinyl_node.query.selected

    #: only() and defer() look into it; planned queries have none.
    _filtered_relations: Any = MappingProxyType({})

    # --- everything else

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in _STATE:
            raise AttributeError(name)
        return getattr(become(self), name)

    def __setattr__(self, name: str, value: Any) -> None:
        # What a many-to-many manager asks for: the next filter shares the join of this one.
        if name == "filter_is_sticky" and type(value) is bool:
            self._vinyl_step("__setattr__", (name, value))
        else:
            setattr(become(self), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(become(self), name)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return become(self).__reduce_ex__(protocol)


_EMPTY: Callable[[type], PlannedQuery] = object.__new__


def _start(
    query: PlannedQuery, model: Any, node: Node, calls: tuple[Any, ...], lookups: tuple[Any, ...]
) -> PlannedQuery:
    state = query.__dict__
    state["model"] = model
    state["_vinyl_node"] = node
    state["_vinyl_calls"] = calls
    state["_vinyl_lookups"] = lookups
    state["_vinyl_compiled"] = None
    state["_vinyl_told"] = None
    return query


def _built(query: PlannedQuery) -> Query:
    """The Query that Django would have made, as a new object."""
    built = Query(query.model)
    calls, lookups = query._vinyl_calls, query._vinyl_lookups
    filters = sum(name == "add_q" for name, _ in calls)
    for name, args in calls:
        result = getattr(built, name)(*args)
        if result is not None:
            built = result
        filters -= name == "add_q"
        if lookups and not filters:
            # A value may have changed since (an instance its key): what counts is what it was.
            for new, kept in zip(with_values(leaves(built.where) or []), lookups, strict=True):
                new.rhs = kept.rhs if isinstance(kept, Lookup) else kept
            lookups = ()
    # A cached property: Django's last clone() was without it.
    built.__dict__.pop("base_table", None)
    return built


def become(query: PlannedQuery) -> Any:
    """Turns ``query`` into that Query, in place."""
    built = _built(query)
    if (using := query._vinyl_compiled) is not None:
        with contextlib.suppress(EmptyResultSet, FullResultSet):
            built.get_compiler(using).as_sql()
        # Without what the compiler asked it, for it may yet be added to: a clone knows nothing.
        built.where = built.where.clone()
    return _turn_into(query, built)


def _turn_into(query: PlannedQuery, built: Query) -> Any:
    state = query.__dict__
    state.clear()
    state.update(built.__dict__)
    object.__setattr__(query, "__class__", Query)
    return query


def _filled(slots: tuple[Any, ...], values: list[Any]) -> tuple[Any, ...] | None:
    """Django's lookups for the values, None where it might make others."""
    lookups = []
    for slot, value in zip(slots, values, strict=True):
        lookup = slot.fill(value)
        if lookup is None:
            return None
        lookups.append(lookup)
    return tuple(lookups)


def _fits(lookups: list[Any], values: list[Any]) -> bool:
    """Whether each value is the one of the lookup at its place."""
    if len(lookups) != len(values):
        return False
    for lookup, value in zip(lookups, values, strict=True):
        again = type(lookup)(lookup.lhs, value).rhs
        if type(again) is not type(lookup.rhs) or again != lookup.rhs:
            return False
    return True


# --- steps whose arguments are names and numbers


def _constant_step(name: str) -> Any:
    django = getattr(Query, name)
    known = [
        parameter
        for parameter in list(inspect.signature(django).parameters.values())[1:]
        if parameter.kind is not inspect.Parameter.VAR_POSITIONAL
    ]
    names = [parameter.name for parameter in known]
    defaults = [parameter.default for parameter in known]

    @functools.wraps(django)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        fixed = _fixed(args)
        if fixed is not None and kwargs:
            given = dict(zip(names, defaults, strict=True))
            given.update(zip(names, args, strict=False))
            given.update(kwargs)
            fixed = _fixed(tuple(given.values())) if len(given) == len(names) else None
        if fixed is None:
            return getattr(become(self), name)(*args, **kwargs)
        self._vinyl_step(name, fixed)
        return None

    return step


def _fixed(args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The arguments as part of a key, None if one is not a name, a number or a list of names."""
    for each in args:
        if type(each) in (list, tuple):
            if not all(type(inner) is str for inner in each):
                return None
        elif type(each) not in _ATOMS:
            return None
    return tuple([tuple(each) if type(each) is list else each for each in args])


_ATOMS = (str, int, bool, type(None))
for _name in (
    "add_deferred_loading",
    "add_immediate_loading",
    "add_ordering",
    "add_select_related",
    "clear_deferred_loading",
    "clear_ordering",
    "set_limits",
    "set_values",
):
    setattr(PlannedQuery, _name, _constant_step(_name))


# --- attributes that Query has as a class


def _readable(name: str) -> property:
    def read(self: Any) -> Any:
        value = getattr(self._vinyl_node.query, name)
        return value if type(value) in _FIXED else getattr(become(self), name)

    return property(read)


for _name, _value in vars(Query).items():
    if type(_value) in _FIXED and not _name.startswith("__") and _name not in vars(PlannedQuery):
        setattr(PlannedQuery, _name, _readable(_name))
