"""Test databases: what the DatabaseCreation of every vinyl engine has in common."""

from __future__ import annotations

from typing import Any

__all__ = ["CreationMixin"]


class CreationMixin:
    """First base of each engine's DatabaseCreation.

    Where test databases are made, test mode begins (vinyl/testmode.py); where
    they are copied or destroyed, no connection of the pool is in the way.
    """

    connection: Any

    def _close_connections(self) -> None:
        from vinyl.testmode import close_connections

        close_connections(self.connection.alias)

    def _enable(self) -> None:
        # Imported here: it loads django.test, which a server never does.
        from vinyl.testmode import enable

        enable()

    # Not create_test_db, whose deprecation warning names the line that called it.
    def _create_test_db(self, *args: Any, **kwargs: Any) -> Any:
        self._enable()
        self._close_connections()
        return super()._create_test_db(*args, **kwargs)  # type: ignore[misc]

    def clone_test_db(self, *args: Any, **kwargs: Any) -> Any:
        self._close_connections()
        return super().clone_test_db(*args, **kwargs)  # type: ignore[misc]

    def destroy_test_db(self, *args: Any, **kwargs: Any) -> Any:
        self._close_connections()
        return super().destroy_test_db(*args, **kwargs)  # type: ignore[misc]

    def set_as_test_mirror(self, primary_settings_dict: dict[str, Any]) -> None:
        from vinyl.testmode import mirror

        self._enable()
        self._close_connections()
        name = self.connection.settings_dict["NAME"]
        super().set_as_test_mirror(primary_settings_dict)  # type: ignore[misc]
        mirror(self.connection, primary_settings_dict, name)

    def setup_worker_connection(self, _worker_id: Any) -> None:
        self._enable()
        self._close_connections()
        super().setup_worker_connection(_worker_id)  # type: ignore[misc]
