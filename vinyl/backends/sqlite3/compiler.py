"""Django's compilers, with rows made into instances in C."""

from django.db.models.sql.compiler import (
    SQLAggregateCompiler,
    SQLDeleteCompiler,
    SQLUpdateCompiler,
)
from django.db.models.sql.compiler import SQLCompiler as DjangoSQLCompiler
from django.db.models.sql.compiler import SQLInsertCompiler as DjangoSQLInsertCompiler

from vinyl import updating
from vinyl.compiler import FastRows
from vinyl.inserting import BulkInsert
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
    pass
