"""Which tables' rows are written by plans, and how each field's attribute becomes a parameter."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.backends.base.operations import BaseDatabaseOperations
from django.db.models import BinaryField, FileField, ForeignKey, Manager, Model
from django.db.models.fields import DateField, DateTimeField, Field, TimeField

from vinyl._core import Unchanged
from vinyl.inserting import METHODS, methods_of, value_rule
from vinyl.originals import is_original

from .node import SAFE_LOOKUPS

__all__ = ["Table", "table_of"]

#: Django's own ways to take a value off an instance.
_CALENDAR = (DateField.pre_save, DateTimeField.pre_save, TimeField.pre_save)
_PLACEHOLDERS = ("get_placeholder_sql", "get_placeholder")
#: Where Django's own placeholders are the same for every value.
_CONSTANT = ("django.contrib.postgres.fields.array", "django.contrib.postgres.fields.ranges")
#: SQL is kept for so many sets of fields of one table.
MOST_WRITES = 64


class Table:
    """One model's table on one alias.

    ``fields``: for each column (field, its entry for `_core.Parameters`); None: Django writes it.
    ``key``: the primary key's entry in a WHERE clause and its bounds; None: no UPDATE is planned.
    ``writes``: what was compiled, by set of fields; None where that is not cached.
    """

    __slots__ = (
        "attnames",
        "columns",
        "connection",
        "dicts",
        "fields",
        "guard",
        "key",
        "manager",
        "methods",
        "model",
        "name",
        "patched",
        "pk",
        "size",
        "types",
        "use_tz",
        "writes",
    )

    def __init__(self, model: type[Model], connection: Any) -> None:
        meta: Any = model._meta
        self.model = model
        self.columns = meta.local_concrete_fields
        self.name = meta.db_table
        self.manager = meta.base_manager
        self.connection = type(connection)
        self.use_tz = settings.USE_TZ
        self.attnames = frozenset([field.attname for field in meta.concrete_fields])
        self.pk = meta.pk
        self.writes: dict[Any, Any] = {}
        self.fields = self.key = None
        fields = [*self.columns, *[_target(field) for field in self.columns]]
        self.guard = Unchanged(type(connection.ops))
        self.types = tuple({type(field) for field in fields})
        self.methods = [*map(methods_of, self.types)]
        self.dicts = [field.__dict__ for field in fields]
        self.size, self.patched = self._looked_up()
        if _is_plain(meta) and not self.patched:
            entries = [(field, _entry(field, connection)) for field in self.columns]
            if None not in [entry for _, entry in entries]:
                self.fields = entries
                self.key = _key(meta.pk, connection)

    def holds(self, meta: Any, connection: Any) -> bool:
        """Whether the model and the engine are still as they were then."""
        return (
            self.columns is meta.local_concrete_fields
            and self.connection is type(connection)
            and self.manager is meta.base_manager
            and self.name == meta.db_table
            and self.use_tz is settings.USE_TZ
            and self.guard()
            and [*map(methods_of, self.types)] == self.methods
            and (sum(map(len, self.dicts)) == self.size or self._has_same_methods())
        )

    def _looked_up(self) -> tuple[int, bool]:
        """How many attributes the fields have, and whether methods are among them."""
        return sum(map(len, self.dicts)), not all(map(METHODS.isdisjoint, self.dicts))

    def _has_same_methods(self) -> bool:
        before = self.patched
        self.size, self.patched = self._looked_up()
        return self.patched is before

    def keep(self, key: Any, write: Any) -> Any:
        if len(self.writes) >= MOST_WRITES:
            # Other threads may be doing the same.
            oldest, *_ = self.writes
            self.writes.pop(oldest, None)
        self.writes[key] = write
        return write


def _target(field: Any) -> Any:
    """The field whose values a foreign key has."""
    while isinstance(field, ForeignKey):
        field = field.target_field
    return field


def table_of(model: type[Model], using: str, connection: Any) -> Table:
    meta = model._meta
    tables = meta.__dict__.get("_vinyl_tables")
    if tables is None:
        tables = meta._vinyl_tables = {}  # type: ignore[attr-defined]
    table: Table | None = tables.get(using)
    if table is None or not table.holds(meta, connection):
        table = tables[using] = Table(model, connection)
    return table


def _is_plain(meta: Any) -> bool:
    return (
        meta.pk in meta.local_concrete_fields
        and not meta.order_with_respect_to
        and not any(field.generated for field in meta.local_concrete_fields)
        and type(meta.base_manager) is Manager
        and type(meta.pk).get_pk_value_on_save is Field.get_pk_value_on_save
    )


def _entry(field: Any, connection: Any) -> tuple[Any, ...] | None:
    """The field for `_core.Parameters`, None where its SQL may depend on more than its name."""
    pre_save = type(field).pre_save
    before = None
    if not is_original(pre_save):
        return None
    if pre_save in _CALENDAR:
        before = field.pre_save if field.auto_now or field.auto_now_add else None
    elif pre_save is FileField.pre_save:
        before = field.pre_save
    elif pre_save is not Field.pre_save:
        return None
    if not _has_one_placeholder(field, connection):
        return None
    types, test, wrap = value_rule(field, connection) or ((), None, None)
    # A session's operations are its own: they are given with each row.
    extra = None
    function = getattr(wrap, "func", wrap)
    if getattr(function, "__self__", None) is connection.ops:
        keywords = getattr(wrap, "keywords", {})
        extra, wrap = tuple(keywords.values()), function.__func__
    return (field.attname, before, types, test, wrap, extra, field.get_db_prep_save)


def _has_one_placeholder(field: Any, connection: Any) -> bool:
    for name in _PLACEHOLDERS:
        method = getattr(field, name, None)
        if method is None:
            continue
        function = getattr(method, "__func__", None)
        if function is getattr(BinaryField, name, None):
            base = BaseDatabaseOperations.binary_placeholder_sql
            return type(connection.ops).binary_placeholder_sql is base
        return getattr(function, "__module__", "") in _CONSTANT
    return True


def _key(pk: Any, connection: Any) -> tuple[Any, ...] | None:
    """(entry, low, high): values of which Django's ``pk=`` makes the same SQL."""
    if pk.get_lookup("exact") not in SAFE_LOOKUPS:
        return None
    rule = value_rule(pk, connection)
    if rule is None or len(rule[0]) != 1:
        return None
    types, test, wrap = rule
    low = high = None
    if types[0] is int:
        low, high = connection.ops.integer_field_range(_target(pk).get_internal_type())
    elif types[0].__name__ not in ("UUID", "str"):
        return None
    return (pk.attname, None, types, test, wrap, None, pk.get_db_prep_save), low, high
