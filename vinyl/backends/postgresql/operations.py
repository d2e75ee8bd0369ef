"""Django's PostgreSQL operations where they ask psycopg about a statement."""

from __future__ import annotations

from typing import Any

import psycopg
from django.db.backends.postgresql import operations

__all__ = ["DatabaseOperations"]


class DatabaseOperations(operations.DatabaseOperations):
    compiler_module = "vinyl.backends.postgresql.compiler"

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
