"""A Query that takes down what is done to it and is built only when more of it is needed."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

from django.core.exceptions import EmptyResultSet, FullResultSet
from django.db.models import Model, Q
from django.db.models.lookups import Lookup
from django.db.models.sql.query import Query
from django.db.models.sql.where import WhereNode

from vinyl.originals import unchanged

from .aggregates import COUNT, aggregation
from .fetch import fetch_row
from .node import Node, has_value, leaves, root_of
from .shape import filter_shape
from .statement import compiler_for

__all__ = ["PlannedQuery"]

#: Types of attributes that may be read off another query of the same history.
_FIXED = (bool, int, str, tuple, frozenset, type(None))
_OWN = ("_vinyl_node", "_vinyl_lookups", "_vinyl_compiled", "_vinyl_told")
_STATE = ("model", *_OWN)


class PlannedQuery(Query):
    """Django's Query of a model, not built yet.

    The steps that querysets take most (``add_q``, ``set_limits`` …) only move it from node to node
    of what was done to queries before.  Any other use turns it into the plain Query that Django
    would have made, in place; so whoever looks meets Django's own class, and nothing has to be
    known here of what it does there.
    """

    _vinyl_node: Node
    #: For the values of all filters so far, as they were when the filter was made: Django's
    #: lookups, or the value itself where it is plain.
    _vinyl_lookups: tuple[Any, ...]
    #: The alias it was compiled for last: Django's compiler leaves its marks on a Query.
    _vinyl_compiled: str | None
    #: Where the query that is executed in the end is put down, with what it has learned by then.
    _vinyl_told: list[Any] | None

    def __init__(self, model: type[Model]) -> None:
        _start(self, model, root_of(model), ())

    # --- what is planned

    def clone(self) -> Any:
        state = self.__dict__.copy()
        node = state.get("_vinyl_node")
        if node is None:  # another thread has just built it
            return Query.clone(self)
        clone = _start(_EMPTY(PlannedQuery), state["model"], node, state["_vinyl_lookups"])
        if state["_vinyl_told"] is not None:
            clone.__dict__["_vinyl_told"] = state["_vinyl_told"]
        return clone

    def chain(self, klass: type | None = None) -> Any:
        if klass is not None and klass is not Query:
            return _built(self).chain(klass)
        clone = self.clone()
        if type(clone) is not PlannedQuery:
            return clone.chain()
        # What Django forgets here decides whether the next filter shares a join.
        known = clone._vinyl_node.query
        if known.used_aliases or known.filter_is_sticky:
            clone._vinyl_step("chain", ())
        return clone

    def add_q(self, q_object: Q, reuse_all: bool = False) -> None:
        shape = None if reuse_all else filter_shape(q_object)
        if shape is None:
            return become(self).add_q(q_object, *([True] if reuse_all else []))
        key, values = shape
        node = self._vinyl_node.child(key)
        if node is None:
            return self._vinyl_learn_filter(key, q_object, values)
        lookups = node.filled(values)
        if lookups is None:
            return become(self).add_q(q_object)
        self._vinyl_move(node, lookups)
        return None

    def _vinyl_learn_filter(self, key: Any, q_object: Q, values: list[Any]) -> None:
        before = leaves(self._vinyl_node.query.where) or []
        query = _built(self)
        query.add_q(q_object)
        after = leaves(query.where)
        added = None if after is None else after[len(before) :]
        given = None if added is None else list(filter(has_value, added))
        if given is None or not _fits(given, values):
            self._vinyl_node.add(key, query.clone(), None)
            _turn_into(self, query)
        else:
            self._vinyl_move(self._vinyl_node.add(key, query.clone(), added), tuple(given))

    def _vinyl_step(self, name: str, args: tuple[Any, ...]) -> None:
        """A step whose arguments are part of the shape."""
        key = (name, args)
        node = self._vinyl_node.child(key)
        if node is None:
            query = _built(self)
            result = getattr(query, name)(*args)
            node = self._vinyl_node.add(key, (query if result is None else result).clone(), [])
        self._vinyl_move(node, ())

    def _vinyl_move(self, node: Node, lookups: tuple[Any, ...]) -> None:
        state = self.__dict__
        state["_vinyl_node"] = node
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


def _start(query: PlannedQuery, model: Any, node: Node, lookups: tuple[Any, ...]) -> PlannedQuery:
    state = query.__dict__
    state["model"] = model
    state["_vinyl_node"] = node
    state["_vinyl_lookups"] = lookups
    state["_vinyl_compiled"] = None
    state["_vinyl_told"] = None
    return query


def _built(query: PlannedQuery) -> Any:
    """The Query that Django would have made, as a new object.

    Not made by the same calls again: what they were given (a Q, a list, an instance) may have
    changed since, and what it was then counts.
    """
    state = query.__dict__.copy()
    node = state.get("_vinyl_node")
    if node is None:  # another thread has just built it
        return Query.clone(query)
    built = node.query.clone()
    lookups = state["_vinyl_lookups"]
    if lookups:
        _put(built.where, iter(lookups))
    return built


def _put(where: WhereNode, lookups: Iterator[Any]) -> None:
    """Gives the conditions these values in their order; the lookups are of all who have them."""
    for n, child in enumerate(where.children):
        if type(child) is WhereNode:
            _put(child, lookups)
        elif isinstance(child, Lookup) and has_value(child):
            kept = next(lookups)
            where.children[n] = again = copy.copy(child)
            again.rhs = kept.rhs if isinstance(kept, Lookup) else kept


def become(query: PlannedQuery) -> Any:
    """Turns ``query`` into that Query, in place."""
    if type(query) is not PlannedQuery:
        return query
    built = _built(query)
    if (using := query.__dict__.get("_vinyl_compiled")) is not None:
        with contextlib.suppress(EmptyResultSet, FullResultSet):
            built.get_compiler(using).as_sql()
        # Without what the compiler asked it, for it may yet be added to: a clone knows nothing.
        built.where = built.where.clone()
    return _turn_into(query, built)


def _turn_into(query: PlannedQuery, built: Query) -> Any:
    """In an order in which other threads always find a whole query."""
    state = query.__dict__
    state.update(built.__dict__)
    object.__setattr__(query, "__class__", Query)
    for name in _OWN:
        state.pop(name, None)
    return query


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


_MISSING: Any = object()


def _readable(name: str) -> property:
    def read(self: Any) -> Any:
        node = self.__dict__.get("_vinyl_node")
        value = _MISSING if node is None else getattr(node.query, name)
        return value if type(value) in _FIXED else getattr(become(self), name)

    return property(read)


for _name, _value in vars(Query).items():
    if type(_value) in _FIXED and not _name.startswith("__") and _name not in vars(PlannedQuery):
        setattr(PlannedQuery, _name, _readable(_name))
