"""Django's compilers for PostgreSQL, with rows made into instances in C."""

from django.db.models.sql import compiler as generic

from vinyl.compiler import FastRows

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
SQLInsertCompiler = base.SQLInsertCompiler
SQLUpdateCompiler = base.SQLUpdateCompiler


class SQLCompiler(FastRows, base.SQLCompiler):
    pass
