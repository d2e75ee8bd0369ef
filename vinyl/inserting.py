"""Many rows in one INSERT: Django's statement, with its values prepared column by column in C.

Django's `SQLInsertCompiler.as_sql` asks ``pre_save_val`` and ``prepare_value`` for each value
of each instance. Here it is given one stand-in for all instances, whose value for a field is
the whole column, and asked for its statement as ever; ``assemble_as_sql``, which would write
the placeholders of that one row, writes those of all of them. What a field does to a value is
left out only where it is known to do nothing (`value_rule`); else Django's own methods are called
for each value.
"""

from __future__ import annotations

import datetime
import decimal
import functools
import operator
import uuid
from itertools import chain
from typing import Any

from django.conf import settings
from django.db.backends.base.operations import BaseDatabaseOperations
from django.db.models import ForeignKey, Model
from django.db.models import fields as django_fields
from django.db.models.fields import Field

from vinyl import _core
from vinyl.originals import is_original

__all__ = ["BulkInsert", "BulkInsertOperations", "assign_returned", "split_new"]

#: The methods that prepare a value.
_METHODS = ("get_prep_value", "get_db_prep_value", "get_db_prep_save", "to_python")
#: Of a field's class.
methods_of = operator.attrgetter(*_METHODS, "pre_save")
#: On the field itself, somebody has replaced them: a test, say.
METHODS = frozenset((*_METHODS, "pre_save", "get_placeholder", "get_placeholder_sql"))

#: Django's fields whose methods give a value of this class back as it is, but for what the
#: backend's `adapt_…` does.
_CLASSES: dict[type[Field[Any, Any]], type] = {
    django_fields.BooleanField: bool,
    django_fields.CharField: str,
    django_fields.DateField: datetime.date,
    django_fields.DateTimeField: datetime.datetime,
    django_fields.DecimalField: decimal.Decimal,
    django_fields.DurationField: datetime.timedelta,
    django_fields.FloatField: float,
    django_fields.IntegerField: int,
    django_fields.TextField: str,
    django_fields.TimeField: datetime.time,
    django_fields.UUIDField: uuid.UUID,
}

#: The backend's method that such a value goes through.
_ADAPTERS = {
    django_fields.DateField: "adapt_datefield_value",
    django_fields.DateTimeField: "adapt_datetimefield_value",
    django_fields.DecimalField: "adapt_decimalfield_value",
    django_fields.TimeField: "adapt_timefield_value",
}

_AUTO_FIELDS = (
    django_fields.AutoField,
    django_fields.BigAutoField,
    django_fields.SmallAutoField,
)

#: (classes, test, wrap): see `_core.plain_column`.
Rule = tuple[tuple[type, ...], Any, Any]


@functools.cache
def _known(cls: type[Field[Any, Any]]) -> type[Field[Any, Any]] | None:
    """The class of `_CLASSES`, or Django's automatic field, whose way with values this one has."""
    for base in cls.__mro__:
        if base in _CLASSES or base in _AUTO_FIELDS:
            same = all(getattr(cls, name) is getattr(base, name) for name in _METHODS)
            return base if same else None
    return None


def value_rule(field: Any, connection: Any) -> Rule | None:
    """How to see that a value needs no preparing, or None when each has to be asked."""
    cls = type(field)
    if not METHODS.isdisjoint(field.__dict__):
        return None
    if isinstance(field, ForeignKey):
        if cls.get_db_prep_save is not ForeignKey.get_db_prep_save:
            return None
        if not is_original(cls.get_db_prep_save):
            return None
        rule = value_rule(field.target_field, connection)
        # "" is no value for most fields' foreign keys.
        return rule if rule is not None and str not in rule[0] else None
    base = _known(cls)
    if base is None or not all(map(is_original, methods_of(cls))):
        return None
    ops = connection.ops
    if base in _AUTO_FIELDS:
        same = type(ops).validate_autopk_value is BaseDatabaseOperations.validate_autopk_value
        return ((int,), None, None) if same else None
    classes = (_CLASSES[base],)
    if base is django_fields.IntegerField:
        return _integers(field, ops)
    if base is django_fields.UUIDField:
        native = connection.features.has_native_uuid_field
        return classes, None, None if native else ops.uuid_hex
    if base is django_fields.DurationField:
        return (classes, None, None) if connection.features.has_native_duration_field else None
    test = None
    if base is django_fields.DecimalField:
        test = decimal.Decimal.is_finite
    elif base is django_fields.DateTimeField and settings.USE_TZ:
        test = _core.is_aware
    name = _ADAPTERS.get(base)
    return classes, test, None if name is None else _adapter(field, ops, name)


def _adapter(field: Any, ops: Any, name: str) -> Any:
    """What the backend's method does to a value that is not None; None for nothing."""
    method = getattr(ops, name)
    if getattr(method, "__func__", None) in ops.adapts_nothing:
        return None
    if name == "adapt_decimalfield_value":
        return functools.partial(
            method, max_digits=field.max_digits, decimal_places=field.decimal_places
        )
    return method


def _integers(field: Any, ops: Any) -> Rule | None:
    method = type(ops).adapt_integerfield_value
    if method is BaseDatabaseOperations.adapt_integerfield_value:
        return (int,), None, None
    if method in ops.adapts_nothing:
        return (int,), None, ops.integerfield_type_map.get(field.get_internal_type())
    return None


def _is_read_plainly(field: Any) -> bool:
    """Whether the value before an INSERT is the attribute as it is."""
    pre_save = type(field).pre_save
    if "pre_save" in field.__dict__ or not is_original(pre_save):
        return False
    if pre_save is Field.pre_save:
        return True
    known = (django_fields.DateField, django_fields.DateTimeField, django_fields.TimeField)
    return pre_save in [cls.pre_save for cls in known] and not (
        field.auto_now or field.auto_now_add
    )


class Column:
    """The values of one field, prepared. ``plain``: no expression is among them."""

    __slots__ = ("plain", "values")

    def __init__(self, values: list[Any], plain: bool) -> None:
        self.values = values
        self.plain = plain


class PlainRows(list[Any]):
    """The placeholders of many equal rows; ``text`` is VALUES with all of them."""

    text = ""


def _itself(field: Any, value: Any) -> Any:
    return value


class BulkInsert:
    """Mixin of each engine's SQLInsertCompiler."""

    query: Any
    connection: Any

    def as_sql(self, *args: Any, **kwargs: Any) -> Any:
        query = self.query
        objs = query.objs
        if (
            len(objs) < 2
            or not query.fields
            or any(field.has_db_default() for field in query.fields)
        ):
            return super().as_sql(*args, **kwargs)  # type: ignore[misc]
        self._objs = objs if type(objs) is list else list(objs)
        query.objs = [None]
        try:
            self.pre_save_val, self.prepare_value = self._column, _itself
            return super().as_sql(*args, **kwargs)  # type: ignore[misc]
        finally:
            del self._objs, self.pre_save_val, self.prepare_value
            query.objs = objs

    def _column(self, field: Any, obj: Any) -> Column:
        rule = None
        if self.query.raw or _is_read_plainly(field):
            rule = value_rule(field, self.connection)
        if rule is not None:
            values = _core.plain_column(self._objs, field.attname, *rule)
            if values is not None:
                return Column(values, True)
        before, prepare = super().pre_save_val, super().prepare_value  # type: ignore[misc]
        return Column([prepare(field, before(field, obj)) for obj in self._objs], False)

    def assemble_as_sql(self, fields: Any, value_rows: Any) -> Any:
        assemble = super().assemble_as_sql  # type: ignore[misc]
        row = value_rows[0] if len(value_rows) == 1 else ()
        if not row or not isinstance(row[0], Column):
            return assemble(fields, value_rows)
        columns = [column.values for column in row]
        if any(map(self.has_placeholder, fields)) or any(
            hasattr(value, "as_sql")
            for column in row
            if not column.plain
            for value in column.values
        ):
            return assemble(fields, list(zip(*columns, strict=True)))
        placeholders, params = assemble(fields, list(zip(*(c[:2] for c in columns), strict=True)))
        return self.assemble_rows(columns, placeholders, params)

    def has_placeholder(self, field: Any) -> bool:
        """Whether the field may write another placeholder for a value than for the next."""
        return hasattr(field, "get_placeholder") or hasattr(field, "get_placeholder_sql")

    def assemble_rows(self, columns: list[list[Any]], placeholders: Any, params: Any) -> Any:
        """The placeholders and parameters of all rows, from those of the first two."""
        count = len(columns[0])
        rows = PlainRows([placeholders[0]] * count)
        row = "(" + ", ".join(placeholders[0]) + ")"
        rows.text = "VALUES " + ", ".join([row] * count)
        return rows, [list(chain.from_iterable(zip(*columns, strict=True)))]


class BulkInsertOperations:
    """Mixin of each engine's DatabaseOperations."""

    #: Functions of the backend that give a value back as it is.
    adapts_nothing: frozenset[Any] = frozenset({BaseDatabaseOperations.adapt_decimalfield_value})

    @staticmethod
    def uuid_hex(value: uuid.UUID) -> str:
        """A UUID as it is stored where there is no type of its own."""
        return value.hex

    def bulk_insert_sql(self, fields: Any, placeholder_rows: Any) -> str:
        if isinstance(placeholder_rows, PlainRows):
            return placeholder_rows.text
        return super().bulk_insert_sql(fields, placeholder_rows)  # type: ignore[misc]


# --- around the statement: what QuerySet.bulk_create() does for each instance

_MODEL_METHODS = (
    "_get_pk_val",
    "_set_pk_val",
    "_is_pk_set",
    "_prepare_related_fields_for_save",
    "__setattr__",
    "pk",
)


def _has_plain_pk(model: type[Model]) -> bool:
    """Whether a new instance without a primary key is one whose attribute is None."""
    pk = model._meta.pk
    return (
        # First: one of several columns is a descriptor that no class can be asked for.
        isinstance(pk, _AUTO_FIELDS)
        and all(getattr(model, name) is getattr(Model, name) for name in _MODEL_METHODS)
        and type(pk).get_pk_value_on_save is Field.get_pk_value_on_save
        and not pk.has_default()
    )


def split_new(model: type[Model], objs: Any) -> tuple[list[Any], list[Any]] | None:
    """Those that have a primary key and those that have none; None where Django has to look."""
    opts = model._meta
    if not _has_plain_pk(model) or any(field.has_db_default() for field in opts.concrete_fields):
        return None
    return _core.split_new(
        objs,
        model,
        opts.pk.attname,
        any(field.is_relation for field in (*opts.concrete_fields, *opts.private_fields)),
    )


class Assigned(list[Any]):
    """The rows of an INSERT whose values the instances have: there are as many, but
    nothing is left to be done with them."""

    def __iter__(self) -> Any:
        return iter(())


def assign_returned(
    model: type[Model], objs: Any, fields: Any, rows: list[Any], db: str
) -> list[Any]:
    """Gives new instances what the server has returned for them."""
    opts = model._meta
    if opts.pk in fields or type(objs) is not list or not 1 < len(rows) == len(objs):
        return rows
    names = tuple(field.attname for field in opts.db_returning_fields)
    _core.assign_rows(objs, names, rows, db)
    return Assigned(rows)
