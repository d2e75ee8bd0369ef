"""SQL that was compiled once, and how new values are bound to it."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import EmptyResultSet, FullResultSet
from django.db import connections
from django.db.models.expressions import Col
from django.db.models.lookups import Lookup
from django.db.models.sql.where import WhereNode

from vinyl import conf
from vinyl._core import Binder, Unchanged
from vinyl.originals import unchanged

from .check import PlanMismatch, check_sql, same
from .constant import is_constant
from .node import has_value, joined_by, leaves
from .plain import binding

__all__ = ["PlanMismatch", "Statement", "compiler_for", "remember", "stats"]

#: What the cache did since the process began: hits, misses, and queries that are not cached.
stats = {"hits": 0, "misses": 0, "uncached": 0}


def _ends_with(sql: str, params: list[Any], compiler: Any) -> bool:
    """Whether these are the WHERE clause's parameters, and none comes after it."""
    where, own = compiler.compile(compiler.query.where)
    _before, found, after = sql.rpartition(where)
    return bool(found) and same(tuple(own), params) and "%s" not in after.replace("%%", "")


class Statement:
    """Of one node on one alias.

    ``sql``; ``head``: its parameters before those of the WHERE clause; ``constants``: for each
    lookup of the WHERE clause its parameters, or None when they are those of a value;
    ``placeholders``: what Django put for each value; ``slots``: the lookup and column of each;
    ``binder``: binds plain values in C, where all of them may be plain.  ``state``: of Django's
    compiler after it had compiled, which is all that its later steps read.  ``plans``: what its
    rows become (``fetch``).
    """

    __slots__ = (
        "binder", "compiler", "constants", "features", "guard", "head", "joined", "placeholders",
        "plans", "slots", "sql", "state",
    )  # fmt: skip

    def __init__(self, compiler: Any, sql: str, state: dict[str, Any]) -> None:
        self.compiler = type(compiler)
        self.features = type(compiler.connection)
        self.guard: Any = None
        self.joined = joined_by(compiler.query)
        self.sql = sql
        self.state = state
        self.head: tuple[Any, ...] = ()
        self.constants: list[tuple[Any, ...] | None] = []
        self.placeholders: list[str] = []
        self.slots: list[tuple[Any, Any]] = []
        self.binder: Binder | None = None
        self.plans: dict[Any, Any] = {}

    def is_current(self, connection: Any) -> bool:
        """Whether the engine, what compiles a condition, and the models that are joined are as
        they were."""
        return (
            self.features is type(connection)
            and self.guard()
            and (self.joined is None or self.joined.holds())
        )

    def learn(
        self, compiler: Any, params: tuple[Any, ...], own: tuple[Any, ...] | None = None
    ) -> bool:
        """Finds out which parameter is whose; False where that is not certain.

        ``own``: those before the WHERE clause's, where they are others each time.
        """
        query = compiler.query
        found = leaves(query.where)
        if found is None or query.combined_queries or query.extra or query.group_by is not None:
            return False
        # Fields are not looked at: their class counts them, and changes with each new one.
        kinds = sorted({type(each) for each in found}, key=lambda kind: kind.__name__)
        if not unchanged(WhereNode, Col, *kinds):
            return False
        self.guard = Unchanged(WhereNode, Col, *kinds)
        valued = {id(each) for each in filter(has_value, found)}
        tail: list[Any] = []
        parts: list[Any] = []
        for lookup in found:
            mine = tuple(compiler.compile(lookup)[1])
            if id(lookup) in valued:
                placeholder, bound = lookup.process_rhs(compiler, compiler.connection)
                if tuple(bound) != mine:
                    return False
                self.placeholders.append(placeholder)
                self.slots.append((type(lookup), lookup.lhs))
                self.constants.append(None)
                parts.append(binding(lookup, compiler.connection))
            else:
                self.constants.append(mine)
                parts.append((mine, None, None, 0, 0))
            tail += mine
        at = len(params) - len(tail)
        if at < 0 or not same(params[at:], tail):
            return False
        if own is None:
            self.head = params[:at]
        elif not same(params[:at], own):
            return False
        if tail and not _ends_with(self.sql, tail, compiler):
            return False
        if None not in parts:
            self.binder = Binder(((self.head, None, None, 0, 0), *parts))
        return True

    def bind(self, lookups: tuple[Any, ...], connection: Any) -> tuple[Any, ...] | None:
        """The parameters for these values; None where Django would make other SQL for them."""
        if self.binder is not None and (bound := self.binder(lookups)) is not None:
            return bound
        params = list(self.head)
        at = 0
        for constant in self.constants:
            if constant is not None:
                params += constant
                continue
            lookup = lookups[at]
            if not isinstance(lookup, Lookup):
                cls, lhs = self.slots[at]
                lookup = cls(lhs, lookup)
            try:
                placeholder, bound = lookup.process_rhs(None, connection)
            except (EmptyResultSet, FullResultSet):
                return None
            if placeholder != self.placeholders[at]:
                return None
            params += bound
            at += 1
        return tuple(params)

    def again(self, connection: Any, using: str, params: tuple[Any, ...]) -> Any:
        """A compiler of Django's that has compiled this with ``params``."""
        compiler = object.__new__(self.compiler)
        state = compiler.__dict__
        state.update(self.state)
        state["connection"] = connection
        state["using"] = using
        compiled = (self.sql, params)
        state["as_sql"] = lambda *args, **kwargs: compiled
        return compiler


_UNSEEN: Any = ()


def compiler_for(query: Any, using: str) -> Any:
    """What ``query.get_compiler(using)`` gives: one that has compiled already, or Django's."""
    node = query._vinyl_node
    connection = connections[using]
    statement = node.statements.get(using, _UNSEEN)
    if statement and statement.is_current(connection):
        params = statement.bind(query._vinyl_lookups, connection)
        if params is not None:
            stats["hits"] += 1
            node.used()
            if conf.get("PLAN_CACHE") == "check":
                check_sql(query, using, statement.sql, params)
            return statement.again(connection, using, params)
    built = query._vinyl_built()
    compiler = built.get_compiler(using)
    if statement is None:
        stats["uncached"] += 1
        return compiler
    stats["misses"] += 1
    compile_ = compiler.as_sql

    def as_sql(*args: Any, **kwargs: Any) -> Any:
        sql, params = compile_(*args, **kwargs)
        compiler.__dict__.pop("as_sql", None)  # once, and no cycle stays
        if not args and not kwargs and sql:
            remember(node, using, compiler, sql, params)
        return sql, params

    compiler.as_sql = as_sql
    return compiler


def remember(node: Any, using: str, compiler: Any, sql: str, params: Any) -> None:
    """Keeps what the compiler has just compiled, if the shape is one that may be cached."""
    state = dict(compiler.__dict__)
    state.pop("as_sql", None)
    statement = Statement(compiler, sql, state)
    try:
        learned = is_constant(compiler) and statement.learn(compiler, tuple(params))
    except (EmptyResultSet, FullResultSet):
        return  # a condition that is left out for this value: another one may be cached
    if not learned:
        node.statements[using] = None
        return
    state["query"] = compiler.query.clone()
    state["connection"] = None
    node.statements[using] = statement
