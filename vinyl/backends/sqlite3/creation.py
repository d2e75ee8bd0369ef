"""Test databases."""

from __future__ import annotations

import os
from typing import Any

from django.db.backends.sqlite3.creation import DatabaseCreation as DjangosDatabaseCreation

from vinyl.backends.creation import CreationMixin

from .memory import forget, memory_uri

__all__ = ["DatabaseCreation"]


#: Where one of these is set, pytest-django has put its value at the end of TEST["NAME"].
_ADDED_NAMES = frozenset({"PYTEST_XDIST_WORKER", "TOX_PARALLEL_ENV"})


class DatabaseCreation(CreationMixin, DjangosDatabaseCreation):
    """Django's, but a destroyed in-memory database is really gone."""

    def _get_test_db_name(self) -> str:
        settings = self.connection.settings_dict
        name = settings["TEST"]["NAME"]
        if (
            name
            and str(name).startswith(f"test_{settings['NAME']}_")
            and _ADDED_NAMES & {*os.environ}
        ):
            # pytest-django leaves SQLite in memory, but knows it by Django's engine alone.
            settings["TEST"]["NAME"] = None
        return super()._get_test_db_name()  # type: ignore[no-any-return]

    def _forget(self, name: Any) -> None:
        if uri := memory_uri(name, self.connection.alias):
            self.connection.close_for_good()
            forget(uri)

    def _create_test_db(self, verbosity: int, autoclobber: bool, keepdb: bool = False) -> str:
        if not keepdb:
            self._forget(self._get_test_db_name())
        return super()._create_test_db(verbosity, autoclobber, keepdb)

    def _destroy_test_db(self, test_database_name: str, verbosity: int) -> None:
        self._forget(test_database_name)
        super()._destroy_test_db(test_database_name, verbosity)
