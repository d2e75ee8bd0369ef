"""Django's compilers, with rows made into instances in C and many inserted by one prepared INSERT.

An INSERT of many rows is as long as they are many, and SQLite has to parse it again for each other
number of them. `SELECT … FROM sqlite_vinyl_batch(?)` in the place of its VALUES is one text for any
number (src/driver/sqlite/batch.c), and one statement to SQLite like the other; so its conflicts,
errors and locks, what it returns and that it is done whole or not at all are as ever. It goes where
nobody sees the statement.
"""

import functools
from typing import Any

from django.db.backends.base.operations import BaseDatabaseOperations
from django.db.models import BinaryField
from django.db.models.sql.compiler import (
    SQLAggregateCompiler,
    SQLDeleteCompiler,
    SQLUpdateCompiler,
)
from django.db.models.sql.compiler import SQLCompiler as DjangoSQLCompiler
from django.db.models.sql.compiler import SQLInsertCompiler as DjangoSQLInsertCompiler

from vinyl import updating
from vinyl._sqlite3 import BATCH_COLUMNS, Batch
from vinyl.compiler import FastRows
from vinyl.direct import unseen
from vinyl.inserting import BulkInsert, PlainRows
from vinyl.originals import unchanged
from vinyl.plan import write
from vinyl.rows import install

__all__ = [
    "SQLAggregateCompiler",
    "SQLCompiler",
    "SQLDeleteCompiler",
    "SQLInsertCompiler",
    "SQLUpdateCompiler",
]

install()
write.install()
updating.install()


class SQLCompiler(FastRows, DjangoSQLCompiler):
    pass


class SQLInsertCompiler(BulkInsert, DjangoSQLInsertCompiler):
    _may_batch = False

    def execute_sql(self, *args: Any, **kwargs: Any) -> Any:
        self._may_batch = self._is_unseen()
        try:
            return super().execute_sql(*args, **kwargs)
        finally:
            self._may_batch = False

    def _is_unseen(self) -> bool:
        if len(self.query.objs) < 2:
            return False
        session = self.connection
        if session.connection is None:
            session.ensure_connection()  # who hears of it may want to see statements
        return (
            unseen(session)
            and unchanged(type(self), type(session.ops))
            and not getattr(session.connection, "is_traced", True)
        )

    def has_placeholder(self, field: Any) -> bool:
        if isinstance(field, BinaryField) and _writes_as_django(field):
            ops = type(self.connection.ops)
            return ops.binary_placeholder_sql is not BaseDatabaseOperations.binary_placeholder_sql
        return super().has_placeholder(field)

    def assemble_rows(self, columns: list[list[Any]], placeholders: Any, params: Any) -> Any:
        if (
            not self._may_batch
            or len(columns) > BATCH_COLUMNS
            or any(placeholder != "%s" for placeholder in placeholders[0])
        ):
            return super().assemble_rows(columns, placeholders, params)
        rows = PlainRows()
        rows.text = _select(len(columns))
        return rows, [[Batch(columns)]]


def _writes_as_django(field: BinaryField) -> bool:
    """Whether this binary field asks the backend alone for its placeholder."""
    names = ("get_placeholder", "get_placeholder_sql")
    return field.__dict__.keys().isdisjoint(names) and all(
        getattr(type(field), name, None) is getattr(BinaryField, name, None) for name in names
    )


@functools.cache
def _select(count: int) -> str:
    # Without WHERE SQLite would read the ON of ON CONFLICT as that of a join.
    return f"SELECT {', '.join(f'c{n}' for n in range(count))} FROM sqlite_vinyl_batch(%s) WHERE 1"
