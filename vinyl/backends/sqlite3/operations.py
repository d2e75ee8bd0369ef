"""Django's SQLite operations, with our compilers."""

from django.db.backends.sqlite3 import operations

from vinyl.inserting import BulkInsertOperations

__all__ = ["DatabaseOperations"]


class DatabaseOperations(BulkInsertOperations, operations.DatabaseOperations):
    compiler_module = "vinyl.backends.sqlite3.compiler"
