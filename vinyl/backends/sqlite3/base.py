"""Django's SQLite backend on vinyl's engine."""

from __future__ import annotations

import os
import sqlite3
import warnings
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.sqlite3.base import DatabaseWrapper as DjangosDatabaseWrapper

from vinyl import _sqlite3
from vinyl.backends.base import SessionMixin, pool_of

from .config import Config
from .creation import DatabaseCreation
from .memory import keep, memory_uri, shares_cache
from .operations import DatabaseOperations

__all__ = ["DatabaseWrapper"]


def _djangos_converters() -> dict[str, Any]:
    """The registered converters that are the ones Django's backend registers."""
    found = {}
    for name in ("BOOL", "DATE", "TIME", "DATETIME", "TIMESTAMP"):
        converter = sqlite3.converters.get(name)
        module = getattr(converter, "__module__", None)
        if module == DjangosDatabaseWrapper.__module__ or (
            name == "BOOL" and getattr(converter, "__self__", None) == b"1"
        ):
            found[name] = converter
    return found


def _warn_of_two_libraries() -> None:
    """Closing a file with one copy of SQLite drops the locks that the other holds on it."""
    name = _sqlite3.install_vfs()
    try:
        if name is not None:
            # Only a connection of the same copy knows our VFS.
            sqlite3.connect(f"file::memory:?vfs={name}", uri=True).close()
    except sqlite3.OperationalError:
        warnings.warn(
            f"vinyl uses SQLite {_sqlite3.sqlite_version}, Python's sqlite3 module another copy "
            f"({sqlite3.sqlite_version}). Two copies lose each other's locks: do not open one "
            "database file with both vinyl.backends.sqlite3 and django.db.backends.sqlite3 in "
            "one process.",
            RuntimeWarning,
            stacklevel=2,
        )


_sqlite3.use_django_converters(_djangos_converters())
_warn_of_two_libraries()


class DatabaseWrapper(SessionMixin, DjangosDatabaseWrapper):
    """A session; its ``connection`` borrows physical connections from the alias's pool."""

    driver = _sqlite3.driver
    creation_class = DatabaseCreation
    ops_class = DatabaseOperations

    def get_connection_params(self) -> dict[str, Any]:
        params = super().get_connection_params()
        params.pop("pool", None)
        params.pop("command_timeout", None)
        return params

    def get_new_connection(self, conn_params: dict[str, Any]) -> _sqlite3.Connection:
        name = conn_params["database"]
        uri = memory_uri(name, self.alias)
        config = Config.of(
            self.alias,
            conn_params,
            uri or os.fspath(name),
            getattr(self, "init_commands", []),
            self.command_timeout(),
        )
        limits: dict[str, Any] = {}
        if uri is not None:
            keep(uri)
            if shares_cache(uri):
                # Two connections of one shared cache lock each other's tables out.
                limits = {"min_size": 1, "max_size": 1}
        pool = self.get_pool(config, **limits)
        link = _sqlite3.Connection(config, pool)
        level = conn_params.get("isolation_level")
        if level is not None:
            link.isolation_level = level
        return link

    def check_options(self) -> None:
        super().check_options()
        if self.settings_dict["NAME"]:
            Config.of(self.alias, self.get_connection_params(), "", [], self.command_timeout())

    def create_cursor(self, name: str | None = None) -> _sqlite3.Cursor:
        return self.connection.cursor(format=True)

    def close_for_good(self) -> None:
        """Close even a connection to an in-memory database, and those in the pool."""
        BaseDatabaseWrapper.close(self)
        if pool := pool_of(self.alias):
            pool.close()
