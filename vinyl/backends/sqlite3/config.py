"""What a physical connection is opened with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db.backends.sqlite3._functions import register as register_functions

__all__ = ["Config"]

#: Keywords of sqlite3.connect() that OPTIONS may have. Django's own keys are gone by then.
_KNOWN = frozenset(
    {
        "autocommit",
        "cached_statements",
        "check_same_thread",
        "database",
        "detect_types",
        "factory",
        "isolation_level",
        "timeout",
        "uri",
    }
)
#: sqlite3.LEGACY_TRANSACTION_CONTROL, which Python 3.11 does not have.
_LEGACY = -1


@dataclass(frozen=True)
class Config:
    """Read by the driver: see src/driver/sqlite/py_link.c. ``timeout`` and ``command_timeout`` are
    in seconds."""

    database: str
    uri: bool
    timeout: float
    cached_statements: int
    detect_types: int
    init_commands: tuple[str, ...]
    command_timeout: float = 0.0

    @classmethod
    def of(
        cls,
        alias: str,
        params: dict[str, Any],
        database: str,
        commands: list[str],
        command_timeout: float = 0.0,
    ) -> Config:
        """From the wrapper's connection parameters; ImproperlyConfigured names what is wrong."""
        unknown = sorted(set(params) - _KNOWN)
        if unknown:
            raise ImproperlyConfigured(
                f"DATABASES[{alias!r}]['OPTIONS'] has unknown keys: {', '.join(unknown)}."
            )
        _refuse_unsupported(alias, params)
        return cls(
            database=database,
            uri=True,
            timeout=_number(alias, "timeout", params.get("timeout", 5.0)),
            cached_statements=int(
                _number(alias, "cached_statements", params.get("cached_statements", 128))
            ),
            detect_types=int(_number(alias, "detect_types", params["detect_types"])),
            init_commands=tuple(c.strip() for c in commands if c.strip()),
            command_timeout=command_timeout,
        )

    def setup(self, link: Any) -> None:
        """What a new physical connection gets, once."""
        register_functions(link)
        link.execute("PRAGMA foreign_keys = ON")
        # Some builds have it ON, which prevents renaming tables inside a transaction.
        link.execute("PRAGMA legacy_alter_table = OFF")
        for command in self.init_commands:
            link.execute(command)


def _number(alias: str, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value != value:
        raise ImproperlyConfigured(
            f"DATABASES[{alias!r}]['OPTIONS'][{key!r}] must be a number >= 0, not {value!r}."
        )
    return value


def _refuse_unsupported(alias: str, params: dict[str, Any]) -> None:
    import sqlite3

    where = f"DATABASES[{alias!r}]['OPTIONS']"
    if params.get("factory", sqlite3.Connection) is not sqlite3.Connection:
        raise ImproperlyConfigured(
            f"{where}['factory']: vinyl's connections are its own; a sqlite3.Connection class "
            "cannot be used."
        )
    if params.get("autocommit", _LEGACY) is False:
        raise ImproperlyConfigured(
            f"{where}['autocommit']: Django needs autocommit; leave it out, and use "
            "transaction.atomic()."
        )
    level = params.get("isolation_level")
    if level is not None and (
        not isinstance(level, str)
        or level.upper() not in ("", "DEFERRED", "IMMEDIATE", "EXCLUSIVE")
    ):
        raise ImproperlyConfigured(
            f"{where}['isolation_level'] must be None, '', 'DEFERRED', 'IMMEDIATE' or "
            f"'EXCLUSIVE', not {level!r}."
        )
