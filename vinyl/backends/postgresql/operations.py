"""Django's PostgreSQL operations where they ask psycopg about a statement."""

from __future__ import annotations

from typing import Any

import psycopg
from django.db.backends.postgresql import operations

from vinyl.inserting import BulkInsertOperations

__all__ = ["DatabaseOperations"]


class DatabaseOperations(BulkInsertOperations, operations.DatabaseOperations):
    compiler_module = "vinyl.backends.postgresql.compiler"
    adapts_nothing = BulkInsertOperations.adapts_nothing | {
        operations.DatabaseOperations.adapt_datefield_value,
        operations.DatabaseOperations.adapt_datetimefield_value,
        operations.DatabaseOperations.adapt_integerfield_value,  # but for its integers' class
        operations.DatabaseOperations.adapt_timefield_value,
    }

    def compose_sql(self, sql: Any, params: Any) -> str:
        """The statement with literals in place of its parameters."""
        with self.connection.cursor() as cursor:
            return cursor.mogrify(sql, params)

    def last_executed_query(self, cursor: Any, sql: Any, params: Any) -> str:
        try:
            query = cursor.query
        except psycopg.Error:
            query = None  # a value that cannot be sent cannot be shown as a literal either
        if query is None:
            return super(operations.DatabaseOperations, self).last_executed_query(
                cursor, sql, params
            )
        return query
