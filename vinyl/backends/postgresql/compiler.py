"""Django's compilers for PostgreSQL, with rows made into instances in C."""

from typing import Any

from django.db.models.sql import compiler as generic

from vinyl import updating
from vinyl.compiler import FastRows
from vinyl.inserting import BulkInsert
from vinyl.plan import write
from vinyl.rows import install

try:
    from django.db.backends.postgresql import compiler as base  # Django 5.2 and later
except ImportError:
    base = generic  # type: ignore[misc]

__all__ = [
    "SQLAggregateCompiler",
    "SQLCompiler",
    "SQLDeleteCompiler",
    "SQLInsertCompiler",
    "SQLUpdateCompiler",
]

SQLAggregateCompiler = base.SQLAggregateCompiler
SQLDeleteCompiler = base.SQLDeleteCompiler
SQLUpdateCompiler = base.SQLUpdateCompiler

install()
write.install()
updating.install()


class SQLCompiler(FastRows, base.SQLCompiler):
    pass


class SQLInsertCompiler(BulkInsert, base.SQLInsertCompiler):
    def assemble_rows(self, columns: list[list[Any]], placeholders: Any, params: Any) -> Any:
        # UNNEST has one array for each column, whatever the number of rows.
        if isinstance(placeholders, getattr(base, "InsertUnnest", ())):
            return placeholders, [columns]
        return super().assemble_rows(columns, placeholders, params)
