"""Django's SQLite operations, with our compilers and converters in C."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

from django.conf import settings
from django.db.backends.sqlite3 import operations
from django.db.models.expressions import Col

from vinyl import _sqlite3
from vinyl.inserting import BulkInsertOperations

__all__ = ["DatabaseOperations"]

_Django = operations.DatabaseOperations

#: Django's converters that C knows.
_KINDS: dict[Any, str] = {
    _Django.convert_booleanfield_value: "bool",
    _Django.convert_datefield_value: "date",
    _Django.convert_timefield_value: "date",
    _Django.convert_uuidfield_value: "uuid",
}


def _bindable(param: Any) -> Any:
    """As a log shows it, also where the statement could not have it as a parameter."""
    too_large = isinstance(param, int) and not -(2**63) <= param < 2**63
    return int.__repr__(param) if too_large else param


def _in_c(kind: str) -> Any:
    """Django's method for the field of that kind, in C for the usual values."""
    return _sqlite3.adapter(kind, getattr(_Django, f"adapt_{kind}field_value"), vars(settings))


class DatabaseOperations(BulkInsertOperations, operations.DatabaseOperations):
    compiler_module = "vinyl.backends.sqlite3.compiler"

    adapt_datefield_value = _in_c("date")
    adapt_timefield_value = _in_c("time")
    adapt_datetimefield_value = _in_c("datetime")
    uuid_hex = staticmethod(_sqlite3.uuid_hex)

    connection: Any

    def _quote_params_for_last_executed_query(self, params: Any) -> tuple[str, ...]:
        # Django asks the session's own connection. That one may have to be waited for, and while
        # a log or a panel looks at a statement nothing else of its task may run (toolbar.py).
        quoted: list[str] = []
        with closing(sqlite3.connect(":memory:")) as private:
            most = min(
                private.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER),
                private.getlimit(sqlite3.SQLITE_LIMIT_COLUMN),
            )
            for start in range(0, len(params), most):
                chunk = [_bindable(param) for param in params[start : start + most]]
                sql = "SELECT " + ", ".join(["QUOTE(?)"] * len(chunk))
                quoted += private.execute(sql, chunk).fetchone()
        return tuple(quoted)

    def get_db_converters(self, expression: Any) -> list[Any]:
        return [self._in_c(converter) for converter in super().get_db_converters(expression)]

    def _in_c(self, converter: Any) -> Any:
        function = getattr(converter, "__func__", None)
        if function is _Django.convert_datetimefield_value and settings.USE_TZ:
            return _sqlite3.converter("datetime", converter, self.connection.timezone)
        kind = _KINDS.get(function)
        return converter if kind is None else _sqlite3.converter(kind, converter)

    def get_decimalfield_converter(self, expression: Any) -> Any:
        converter = super().get_decimalfield_converter(expression)
        if not isinstance(expression, Col):
            return converter
        field = expression.output_field
        if field.decimal_places is None or field.max_digits is None:
            return converter
        return _sqlite3.converter(
            "decimal", converter, None, field.decimal_places, field.max_digits
        )
