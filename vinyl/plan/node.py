"""What was done to queries of one model so far, as a tree: equal calls lead to the same node."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import Field, Model
from django.db.models.expressions import Col
from django.db.models.fields import related_lookups
from django.db.models.lookups import (
    Exact,
    GreaterThan,
    GreaterThanOrEqual,
    In,
    IntegerFieldExact,
    IntegerGreaterThan,
    IntegerGreaterThanOrEqual,
    IntegerLessThan,
    IntegerLessThanOrEqual,
    IsNull,
    LessThan,
    LessThanOrEqual,
)
from django.db.models.sql.query import Query
from django.db.models.sql.where import AND, OR, WhereNode

from vinyl._core import Unchanged
from vinyl.originals import methods_unchanged

from .plain import plain_type

__all__ = ["Node", "Slot", "count_nodes", "has_value", "joined_by", "leaves", "root_of"]

#: Lookups whose SQL is the same for every value that process_rhs() gives the same SQL.
SAFE_LOOKUPS = frozenset(
    {
        Exact, GreaterThan, GreaterThanOrEqual, LessThan, LessThanOrEqual, In,
        IntegerFieldExact, IntegerGreaterThan, IntegerGreaterThanOrEqual, IntegerLessThan,
        IntegerLessThanOrEqual, related_lookups.RelatedExact, related_lookups.RelatedIn,
        related_lookups.RelatedGreaterThan, related_lookups.RelatedGreaterThanOrEqual,
        related_lookups.RelatedLessThan, related_lookups.RelatedLessThanOrEqual,
    }
)  # fmt: skip


_FINDS_LOOKUPS = ("get_lookup", "_get_lookup", "get_lookups", "get_class_lookups")


class Slot:
    """A place in the WHERE clause: the lookup that Django made there.

    ``has_value``: it is one for a value, and not a constant's.  ``plain``: the type of value that
    it takes as it is, or None.
    """

    __slots__ = (
        "_field", "_guard", "_null", "_registered", "has_value", "lhs", "lookup", "name", "plain",
    )  # fmt: skip

    def __init__(self, lookup: Any) -> None:
        self.lookup = type(lookup)
        self.lhs = lookup.lhs
        self.name = lookup.lookup_name
        self.has_value = has_value(lookup)
        self._look()
        # None: of a relation, or of a field that finds lookups in its own way.
        field = self.lhs.output_field
        plain = isinstance(field, Field) and methods_unchanged(type(field), _FINDS_LOOKUPS)
        self._field: Any = field if plain else None
        self._registered: Any = None

    def _look(self) -> None:
        """At what is known of Django's methods, and may be replaced."""
        self._guard = Unchanged(self.lookup)
        self.plain = plain_type(self.lookup, self.lhs)
        #: What Django takes for None: Oracle's text of no letters. It asks this alias, too.
        self._null: Any = None
        if connections[DEFAULT_DB_ALIAS].features.interprets_empty_strings_as_nulls:
            self.plain, self._null = None, ""

    def is_current(self) -> bool:
        """Whether Django would make this lookup again: another one may have been registered."""
        if not self._guard():
            self._look()
        if self._field is None:
            return self.lhs.get_lookup(self.name) is self.lookup
        # A cached dict, and another one after each registration.
        registered = self._field.get_class_lookups()
        if registered is self._registered and "instance_lookups" not in self._field.__dict__:
            return True
        if self.lhs.get_lookup(self.name) is not self.lookup:
            return False
        self._registered = registered
        return True

    def fill(self, value: Any) -> Any:
        """Django's lookup for ``value``, or the value where that is just what the lookup has, or
        None where Django might make another lookup.

        Raises what Django raises for a value that the field refuses.
        """
        if not self.is_current():
            return None
        if type(value) is self.plain:
            return value
        lookup = self.lookup(self.lhs, value)
        rhs = lookup.rhs
        if rhs is None or type(rhs) is bool or (self._null is not None and rhs == self._null):
            return None
        return lookup


class Joined:
    """The models that a query joins, as they were when it was made; its own is `root_of`'s to look
    at."""

    __slots__ = ("_models",)

    def __init__(self, metas: set[Any]) -> None:
        self._models = [
            (meta, meta.concrete_fields, meta.db_table, meta.ordering) for meta in metas
        ]

    def holds(self) -> bool:
        return all(
            meta.concrete_fields is fields and meta.db_table == table and meta.ordering is ordering
            for meta, fields, table, ordering in self._models
        )


def joined_by(query: Query) -> Joined | None:
    """None where it joins nothing."""
    fields = [getattr(join, "join_field", None) for join in query.alias_map.values()]
    metas = {field.related_model._meta for field in fields if field is not None}
    return Joined(metas) if metas else None


class Node:
    """A query's history up to here.

    ``query``: as Django built it, for one set of values; read, never changed.  ``slots``: of the
    last step; None: nothing from here on is cached.  ``children``: the next steps, by what was
    done.  ``statements``: by alias; None is one that is not cached.  ``target``: of a whole call
    (``calls``), the node of the query that it executes.
    """

    __slots__ = ("children", "joined", "key", "parent", "query", "slots", "statements", "target")

    def __init__(
        self,
        query: Query | None,
        slots: tuple[Slot, ...] | None = (),
        parent: Node | None = None,
        key: Any = None,
    ) -> None:
        self.query: Any = query
        self.joined = None if query is None else joined_by(query)
        self.slots = slots
        self.parent = parent
        self.key = key
        self.children: dict[Any, Node] = {}
        self.statements: dict[str, Any] = {}
        self.target: Node | None = None

    def child(self, key: Any) -> Node | None:
        """The child for a step, if what it was made of is as it was."""
        child = self.children.get(key)
        return child if child is None or child.joined is None or child.joined.holds() else None

    def filled(self, values: list[Any]) -> tuple[Any, ...] | None:
        """Django's lookups for the step's values, None where it might make others."""
        if self.slots is None:
            return None
        given = iter(values)
        lookups = []
        for slot in self.slots:
            if slot.has_value:
                lookup = slot.fill(next(given))
                if lookup is None:
                    return None
                lookups.append(lookup)
            elif not slot.is_current():
                return None
        return tuple(lookups)

    def add(self, key: Any, query: Query, lookups: list[Any] | None) -> Node:
        """The child for a step that led to ``query``; ``lookups``: those that the step added to
        WHERE, None where the place of a value is not certain."""
        if lookups is None:
            child = Node(None, None, self, key)
        else:
            child = Node(query, tuple(map(Slot, lookups)), self, key)
        return self._keep(child)

    def add_call(self, key: Any, target: Node | None) -> Node:
        """The child for a whole call that led to ``target``, a node below this one; None: to none
        that is known."""
        slots: list[Slot] = []
        node: Any = target
        while node is not None and node is not self:
            slots[:0] = node.slots or ()
            node = node.parent
        child = Node(None, None if node is None else tuple(slots), self, key)
        child.target = target
        child.joined = None if target is None else target.joined
        return self._keep(child)

    def _keep(self, child: Node) -> Node:
        self.children[child.key] = child
        _recent[child] = None
        if len(_recent) > most_nodes:
            _forget_oldest()
        return child

    def used(self) -> None:
        """Called at each hit: the nodes not used for longest go first."""
        try:
            _recent.move_to_end(self)
        except KeyError:
            return  # it has just gone


#: So many nodes are kept, of all models together: some 4 KiB each, more with a statement.
most_nodes = 4000
_recent: OrderedDict[Node, None] = OrderedDict()


def _forget_oldest() -> None:
    """Forgets a node that nothing was built on, among those not used for longest."""
    for _ in range(len(_recent)):
        try:
            node, _nothing = _recent.popitem(last=False)
        except KeyError:
            return
        parent = node.parent
        if not node.children:
            if parent is not None and parent.children.get(node.key) is node:
                del parent.children[node.key]
            return
        _recent[node] = None


def count_nodes() -> int:
    """How many are kept."""
    return len(_recent)


class Root(Node):
    """The node of a model's untouched query."""

    __slots__ = ("fields", "ordering", "table")

    def __init__(self, model: type[Model]) -> None:
        super().__init__(Query(model))
        self.fields = model._meta.concrete_fields
        self.table = model._meta.db_table
        self.ordering = model._meta.ordering


def root_of(model: type[Model]) -> Root:
    """The model's root: another one when its fields or its table have changed."""
    meta = model._meta
    root: Root | None = meta.__dict__.get("_vinyl_plans")
    if (
        root is None
        or root.fields is not meta.concrete_fields
        or root.table != meta.db_table
        or root.ordering is not meta.ordering
    ):
        root = Root(model)
        meta._vinyl_plans = root  # type: ignore[attr-defined]
    return root


def leaves(where: WhereNode) -> list[Any] | None:
    """The lookups of a WHERE clause in the order of their SQL, None if there is anything else."""
    if where.connector not in (AND, OR):
        return None  # XOR is made of other expressions where the database has none
    found: list[Any] = []
    for child in where.children:
        if type(child) is WhereNode:
            inner = leaves(child)
            if inner is None:
                return None
            found += inner
        elif type(child) in SAFE_LOOKUPS or type(child) is IsNull:
            if type(child.lhs) is not Col or child.bilateral_transforms:
                return None
            found.append(child)
        else:
            return None
    return found


def has_value(lookup: Any) -> bool:
    """Whether it has a parameter for a value, and not a constant's."""
    return type(lookup) is not IsNull and type(lookup.rhs) is not bool
