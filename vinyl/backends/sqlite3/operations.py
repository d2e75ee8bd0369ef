"""Django's SQLite operations, with our compilers."""

from django.db.backends.sqlite3 import operations

__all__ = ["DatabaseOperations"]


class DatabaseOperations(operations.DatabaseOperations):
    compiler_module = "vinyl.backends.sqlite3.compiler"
