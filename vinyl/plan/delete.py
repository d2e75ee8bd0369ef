"""The DELETE of one row by its key, with the SQL that Django compiled for another one.

Takes the place of ``DeleteQuery.delete_batch``, in which ``Model.delete()`` ends for rows that it
has collected.  What is collected, signals and transactions are Django's.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from django.db import connections
from django.db.models.sql import DeleteQuery
from django.db.models.sql.compiler import SQLDeleteCompiler

from vinyl import _core, conf
from vinyl.originals import unchanged

from .table import Table, table_of
from .write import Write, executed, parameters_of

__all__ = ["delete_batch"]

_delete_batch: Any = DeleteQuery.__dict__["delete_batch"]


def delete_batch(self: Any, pk_list: Any, using: Any) -> Any:
    """As Django's: how many rows were deleted."""
    if (
        len(pk_list) == 1
        and type(self) is DeleteQuery
        and conf.get("PLAN_CACHE")
        and getattr(connections[using], "vinyl", False)
        and unchanged(DeleteQuery, SQLDeleteCompiler)
    ):
        count = _delete(self.get_meta().concrete_model, pk_list[0], using)
        if count is not None:
            return count
    return _delete_batch(self, pk_list, using)


def _delete(model: Any, key: Any, using: str) -> int | None:
    """None where Django has to do it."""
    connection = connections[using]
    table = table_of(model, using, connection)
    if table.key is None:
        return None
    write = table.writes.get(DeleteQuery)
    if write is None:
        if DeleteQuery in table.writes:
            return None
        entry, low, high = table.key
        parameters = _core.Parameters(False, (entry,), True, low, high)
        write = table.keep(DeleteQuery, Write([table.pk], parameters))
    row = SimpleNamespace(**{table.pk.attname: key})
    params = parameters_of(row, table, DeleteQuery, connection, write, _compiled)
    if params is None:
        return None
    cursor = executed(connection, write.sql, params)
    try:
        return cursor.rowcount  # type: ignore[no-any-return]
    finally:
        cursor.close()


def _compiled(row: Any, table: Table, write: Write, using: str) -> Any:
    name = table.pk.attname
    query: Any = DeleteQuery(table.model)
    query.add_filter(f"{name}__in", [getattr(row, name)])
    query.alias_map = {table.name: query.alias_map[table.name]}
    compiler = query.get_compiler(using)
    sql, params = compiler.as_sql()
    same = type(compiler).execute_sql is SQLDeleteCompiler.execute_sql
    return (sql if same else None), params
