"""The INSERT or UPDATE of one instance, with the SQL that Django compiled for one like it.

``save`` and ``save_table`` take the place of Django's ``Model.save`` and ``Model._save_table``, in
which all that writes one instance ends.  docs/plans.md has the rule by which this is always
Django's answer; what does not fit it goes on to Django's method.
"""

from __future__ import annotations

import functools
import os
from types import NoneType
from typing import Any

import django
from django.core.exceptions import EmptyResultSet
from django.db import DatabaseError, connections, router, transaction
from django.db.models import Model
from django.db.models.query import QuerySet
from django.db.models.signals import post_save, pre_save
from django.db.models.sql import DeleteQuery, InsertQuery, UpdateQuery
from django.db.models.sql.compiler import SQLInsertCompiler, SQLUpdateCompiler

from vinyl import _core, conf
from vinyl.direct import execute, execute_as_django, unseen
from vinyl.originals import is_original, unchanged

from .check import PlanMismatch, same
from .statement import stats
from .table import Table, table_of

__all__ = ["Write", "executed", "install", "parameters_of", "save", "save_table"]

_save: Any = Model.__dict__["save"]
_save_table: Any = Model.__dict__["_save_table"]
_insert_objects: Any = QuerySet.__dict__["_insert"]
_update_values: Any = QuerySet.__dict__["_update"]

#: What `save_table` leaves out, and what `save` does: where a class has its own, Django's way
#: calls it.
_OF_TABLE = ("_do_insert", "_do_update", "_is_pk_set", "_get_pk_val", "_set_pk_val", "pk",
             "_assign_returned_values", "__getattribute__")  # fmt: skip
_OF_SAVE = ("save_base", "_save_parents", "_validate_force_insert",
            "_prepare_related_fields_for_save")  # fmt: skip
#: On the instance, somebody has replaced them.
_PASSED = frozenset((*_OF_TABLE, *_OF_SAVE, "_save_table"))
_LISTS = (NoneType, list, tuple, set, frozenset)


def _method(cls: Any, name: str) -> Any:
    method = getattr(cls, name, None)
    return getattr(method, "__func__", method)


_DJANGOS = {name: _method(Model, name) for name in _OF_TABLE + _OF_SAVE}


class Write:
    """A statement: ``sql``, how its ``parameters`` are made, the attributes it has ``returned``.

    ``sql`` is None until the first row was written.
    """

    __slots__ = ("fields", "null_in_sql", "parameters", "returned", "sql")

    def __init__(
        self, fields: list[Any], parameters: _core.Parameters, returned: tuple[str, ...] = ()
    ) -> None:
        self.fields = fields
        self.parameters = parameters
        self.returned = returned
        self.sql: str | None = None
        #: Whether Django writes None into the SQL, as it does in an UPDATE before 6.1.
        self.null_in_sql = False


def save(
    self: Any,
    *args: Any,
    force_insert: Any = False,
    force_update: Any = False,
    using: Any = None,
    update_fields: Any = None,
) -> None:
    """As Django's, in one go where the model has no parents and overrides nothing on the way."""
    own = type(self)
    meta = own._meta.concrete_model._meta
    if (
        not args
        and type(force_insert) is bool
        and not (force_insert and (force_update or update_fields))
        and type(update_fields) in _LISTS
        and conf.get("PLAN_CACHE")
        and _plain(own)[1]
        and _PASSED.isdisjoint(self.__dict__)
    ):
        if update_fields is not None:
            update_fields = frozenset(update_fields)
        named = update_fields is None or (
            bool(update_fields) and update_fields <= meta._non_pk_concrete_field_names
        )
        has_related = self._state.__dict__.get("fields_cache")
        # Prepared once, before the routers are asked: what is Django's to save it prepares itself.
        if not has_related or (named and _is_promising(self, meta)):
            if has_related:
                self._prepare_related_fields_for_save(operation_name="save")
            using = using or router.db_for_write(own, instance=self)
            connection = connections[using]
            table = _table(own, meta.model, using, connection)
            if named and table is not None and self.__dict__.keys() >= table.attnames:
                return _save_row(
                    self, table, connection, force_insert, force_update, using, update_fields
                )
    return _save(  # type: ignore[no-any-return]
        self,
        *args,
        force_insert=force_insert,
        force_update=force_update,
        using=using,
        update_fields=update_fields,
    )


def _is_promising(self: Any, meta: Any) -> bool:
    """Whether an instance like this has been saved by a plan, on whatever alias."""
    for table in meta.__dict__.get("_vinyl_tables", {}).values():
        if table.fields is not None:
            return bool(self.__dict__.keys() >= table.attnames)
    return False


def _save_row(
    self: Any,
    table: Table,
    connection: Any,
    force_insert: bool,
    force_update: Any,
    using: Any,
    update_fields: Any,
) -> None:
    sends = not table.model._meta.auto_created
    origin = type(self)
    if sends:
        pre_save.send(
            sender=origin, instance=self, raw=False, using=using, update_fields=update_fields
        )
    try:
        there = _row(self, table, connection, force_insert, force_update, using, update_fields)
    except Exception:
        with transaction.mark_for_rollback_on_error(using=using):
            raise
    state = self._state
    state.db = using
    state.adding = False
    if sends:
        post_save.send(
            sender=origin,
            instance=self,
            created=not there,
            update_fields=update_fields,
            raw=False,
            using=using,
        )


def save_table(
    self: Any,
    raw: Any = False,
    cls: Any = None,
    force_insert: Any = False,
    force_update: Any = False,
    using: Any = None,
    update_fields: Any = None,
) -> Any:
    """As Django's: writes the row of one table; whether it was there."""
    if (
        not raw
        and isinstance(using, str)
        and conf.get("PLAN_CACHE")
        and _PASSED.isdisjoint(self.__dict__)
    ):
        connection = connections[using]
        table = _table(type(self), cls, using, connection)
        if table is not None and type(update_fields) in (frozenset, NoneType):
            return _row(self, table, connection, force_insert, force_update, using, update_fields)
    return _save_table(self, raw, cls, force_insert, force_update, using, update_fields)


def _row(
    self: Any,
    table: Table,
    connection: Any,
    force_insert: Any,
    force_update: Any,
    using: Any,
    update_fields: Any,
) -> Any:
    pk = table.pk
    key = getattr(self, pk.attname)
    if key is None and not force_update and not update_fields:
        key = pk.get_pk_value_on_save(self)
        setattr(self, pk.attname, key)
        force_insert = force_insert or key is None
    if (key is not None or force_insert) and not hasattr(key, "resolve_expression"):
        if force_insert or (not force_update and self._state.adding and _has_default(pk)):
            force_insert = True
        else:
            count = _update(self, table, connection, update_fields)
            if count:
                return True
            if count is not None and (force_update or update_fields):
                raise _not_updated(self, force_update)
            # The UPDATE that goes before the INSERT has been, or is Django's to do.
            force_insert = count is not None
        if force_insert and _insert(self, table, connection, key is not None):
            return False
    return _save_table(self, False, table.model, force_insert, force_update, using, update_fields)


def _table(own: Any, cls: Any, using: str, connection: Any) -> Table | None:
    if not getattr(connection, "vinyl", False):
        return None
    table = table_of(cls, using, connection)
    if (
        table.fields is not None
        and _plain(own)[0]
        and QuerySet._insert is _insert_objects
        and QuerySet._update is _update_values
        # A cache of results, say, replaces these to see every write.
        and unchanged(SQLInsertCompiler, SQLUpdateCompiler)
    ):
        return table
    stats["uncached"] += 1
    return None


def _plain(own: Any) -> tuple[bool, bool]:
    """Whether what `save_table`, and what `save` leaves out is Django's in this class."""
    state = own._meta.__dict__
    kept = state.get("_vinyl_plain")
    if kept is None or not kept[0]():
        same = [[_method(own, name) is _DJANGOS[name] for name in names]
                for names in (_OF_TABLE, _OF_SAVE)]  # fmt: skip
        table = all(same[0])
        kept = state["_vinyl_plain"] = (
            _core.Unchanged(own),
            (
                table,
                table
                and all(same[1])
                and own._save_table is save_table
                and not own._meta.concrete_model._meta.parents
                and own._meta.concrete_model in own.__mro__,
            ),
        )
    return kept[1]  # type: ignore[no-any-return]


def _has_default(pk: Any) -> bool:
    return bool(pk.has_default() or pk.has_db_default())


def _not_updated(self: Any, force_update: bool) -> Exception:
    error: type[Exception] = getattr(self, "NotUpdated", DatabaseError)
    what = "Forced update" if force_update else "Save with update_fields"
    return error(f"{what} did not affect any rows.")


def _write(self: Any, table: Table, key: Any, make: Any) -> Write | None:
    write: Write | None = table.writes.get(key, make)
    if write is make:
        write = table.keep(key, make(self, table, key))
    return write


def parameters_of(
    self: Any, table: Table, key: Any, connection: Any, write: Write | None, compiled: Any
) -> tuple[Any, ...] | None:
    """The parameters for the statement's SQL; None where Django has to."""
    params = None if write is None else write.parameters.of(self, connection)
    if (
        write is None
        or params is None
        or (write.null_in_sql and any(each is None for each in params))
    ):
        stats["uncached"] += 1
        return None
    if write.sql is not None:
        stats["hits"] += 1
        if conf.get("PLAN_CACHE") == "check":
            sql, theirs = compiled(self, table, write, connection.alias)
            if sql != write.sql or not same(theirs, params):
                raise PlanMismatch(
                    f"The plan cache had {write.sql!r} with {params!r}; Django compiles {sql!r} "
                    f"with {theirs!r}."
                )
        return params
    sql, theirs = compiled(self, table, write, connection.alias)
    if sql is None or not same(theirs, params):
        table.writes[key] = None
        stats["uncached"] += 1
        return None
    stats["misses"] += 1
    write.sql = sql
    return params


def executed(connection: Any, sql: Any, params: Any) -> Any:
    """A cursor after the statement, to be closed."""
    way = execute if unseen(connection) else execute_as_django
    return way(connection, sql, params)


# --- INSERT


def _insert(self: Any, table: Table, connection: Any, with_key: bool) -> bool:
    """Whether it was done."""
    write = None
    if connection.features.can_return_columns_from_insert:
        write = _write(self, table, with_key, _new_insert)
    params = parameters_of(self, table, with_key, connection, write, _compiled_insert)
    if params is None or write is None:
        return False
    cursor = executed(connection, write.sql, params)
    try:
        with connection.wrap_database_errors:
            row = cursor.fetchone() if write.returned else ()
    finally:
        cursor.close()
    for name, value in zip(write.returned, row, strict=True):
        setattr(self, name, value)
    return True


def _new_insert(self: Any, table: Table, with_key: bool) -> Write:
    meta: Any = table.model._meta
    chosen = [each for each in table.fields or () if with_key or each[0] is not meta.auto_field]
    # From Django 6.0 on each pre_save() is called before any value is looked at.
    entries = tuple([entry for _, entry in chosen])
    return Write(
        [field for field, _ in chosen],
        _core.Parameters(True, entries, False, in_turn=django.VERSION < (6, 0)),
        tuple([field.attname for field in meta.db_returning_fields]),
    )


def _compiled_insert(self: Any, table: Table, write: Write, using: str) -> Any:
    """Django's SQL and parameters; no SQL where more is to be done than to execute it."""
    meta: Any = table.model._meta
    query: Any = InsertQuery(table.model, on_conflict=None, update_fields=None, unique_fields=None)
    # Raw: the fields' pre_save() has been called.
    query.insert_values(write.fields, [self], raw=True)
    compiler = query.get_compiler(using=using)
    compiler.returning_fields = list(meta.db_returning_fields)
    statements = compiler.as_sql()
    columns = [field.get_col(meta.db_table) for field in compiler.returning_fields]
    if (
        len(statements) != 1
        or compiler.get_converters(columns)
        or not _executes_as_django(compiler, SQLInsertCompiler)
    ):
        return None, ()
    return statements[0]


def _executes_as_django(compiler: Any, django: Any) -> bool:
    method = type(compiler).execute_sql
    return method is django.execute_sql or is_original(method)


# --- UPDATE


def _update(self: Any, table: Table, connection: Any, update_fields: Any) -> int | None:
    """How many rows were updated; None where Django has to do it."""
    key = update_fields or None
    write = None
    if table.key is not None and not self._meta.select_on_save:
        write = _write(self, table, key, _new_update)
    params = parameters_of(self, table, key, connection, write, _compiled_update)
    if params is None or write is None:
        return None
    cursor = executed(connection, write.sql, params)
    try:
        return cursor.rowcount  # type: ignore[no-any-return]
    finally:
        cursor.close()


def _new_update(self: Any, table: Table, update_fields: Any) -> Write | None:
    chosen = [
        (field, entry)
        for field, entry in table.fields or ()
        if field is not table.pk
        and (not update_fields or field.name in update_fields or field.attname in update_fields)
    ]
    if not chosen or table.key is None:
        return None  # Django looks whether the row is there
    entry, low, high = table.key
    entries = (*[each for _, each in chosen], entry)
    write = Write([field for field, _ in chosen], _core.Parameters(False, entries, True, low, high))
    write.null_in_sql = django.VERSION < (6, 1)
    return write


def _compiled_update(self: Any, table: Table, write: Write, using: str) -> Any:
    model: Any = table.model
    filtered = model._base_manager.using(using).filter(pk=getattr(self, table.pk.attname))
    query = filtered.query.chain(UpdateQuery)
    query.add_update_fields([(field, None, getattr(self, field.attname)) for field in write.fields])
    query.annotations = {}
    compiler = query.get_compiler(using)
    try:
        sql, params = compiler.as_sql()
    except EmptyResultSet:
        return None, ()
    if not _executes_as_django(compiler, SQLUpdateCompiler):
        return None, ()
    return sql, params


def install() -> None:
    """Takes the methods' places, unless somebody else has. Idempotent."""
    from . import bulk
    from .delete import delete_batch

    methods: list[tuple[Any, str, Any]] = [
        (Model, "_save_table", save_table),
        (DeleteQuery, "delete_batch", delete_batch),
        (QuerySet, "update", bulk.update),
        (QuerySet, "delete", bulk.delete),
    ]
    if django.VERSION >= (
        6,
        0,
    ):  # before, it warns of positional arguments, and of its caller's line
        methods.append((Model, "save", save))
    for cls, name, ours in methods:
        method: Any = cls.__dict__[name]
        if method is not ours and _is_djangos(method):
            setattr(cls, name, functools.wraps(method)(ours))


def _is_djangos(method: Any) -> bool:
    return bool(method.__code__.co_filename.startswith(os.path.dirname(django.__file__) + os.sep))
