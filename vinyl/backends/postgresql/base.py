"""``ENGINE = "vinyl.backends.postgresql"``."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.postgresql import base
from django.db.backends.postgresql.psycopg_any import (
    IsolationLevel,
    get_adapters_template,
    register_tzloader,
)
from psycopg import adapt, sql

from vinyl import _core
from vinyl.backends.base import SessionMixin, close_pools

from .creation import DatabaseCreation
from .operations import DatabaseOperations

try:
    from vinyl import _postgres
except ImportError as error:
    raise ImproperlyConfigured(
        "vinyl.backends.postgresql needs the extension module vinyl._postgres, which could not be "
        f"loaded ({error}). It is built when libpq's headers are there (Debian: libpq-dev)."
    ) from error

__all__ = ["DatabaseWrapper"]

#: Seconds, when OPTIONS has no connect_timeout: psycopg's default.
CONNECT_TIMEOUT = 130

#: Keys of psycopg.connect() that Django's parameters have and libpq does not know.
_NOT_LIBPQ = (
    "command_timeout", "context", "cursor_factory", "prepare_threshold", "prepared_max",
    "shared_reads",
)  # fmt: skip


#: Alias -> the parameters that the last config key was made of, and the key.
_keys: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {}

#: Parameters that no traceback with locals, log or repr may show.
_SECRETS = ("password", "sslpassword")


class Secret(str):
    """Text whose repr hides it: Django's frames, where a connection fails, hold the parameters."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'********'"


def _text(key: str, value: Any) -> str:
    if isinstance(value, Secret):
        return value
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, str | int | float):
        return str(value)
    if hasattr(value, "__fspath__"):
        return str(value.__fspath__())
    raise ImproperlyConfigured(
        f"OPTIONS['{key}'] must be text or a number, not {type(value).__name__}."
    )


class DatabaseWrapper(SessionMixin, base.DatabaseWrapper):
    driver = _postgres.driver
    ops_class = DatabaseOperations
    creation_class = DatabaseCreation

    #: Writes may be kept until the next statement or COMMIT (`vinyl.holding`).
    holds_writes = True

    @property
    def pool(self) -> Any:
        """The alias's pool when OPTIONS["pool"] asks for one, as in Django's backend."""
        if self.alias == NO_DB_ALIAS or not self.settings_dict["OPTIONS"].get("pool"):
            return None
        if self.connection is not None:
            return self._link_pool
        return self._pool(self._config_key(self.get_connection_params()))

    def _pool(self, key: tuple[Any, ...]) -> Any:
        return self.get_pool(key, make_config=self._make_config)

    def close_pool(self) -> None:
        close_pools(self.alias)

    def check_options(self) -> None:
        super().check_options()
        if self.settings_dict["NAME"] or self.settings_dict["OPTIONS"].get("service"):
            self._isolation_level()
            self._make_config(self._config_key(self.get_connection_params()))

    # --- connections --------------------------------------------------------

    def get_connection_params(self) -> dict[str, Any]:
        params: dict[str, Any] = super().get_connection_params()
        for key in _SECRETS:
            if isinstance(params.get(key), str):
                params[key] = Secret(params[key])
        return params

    def _config_key(self, conn_params: dict[str, Any]) -> tuple[Any, ...]:
        options = self.settings_dict["OPTIONS"]
        if "cursor_factory" in options:
            raise ImproperlyConfigured(
                f"DATABASES['{self.alias}']['OPTIONS']['cursor_factory'] cannot be set."
            )
        rest = (
            self.timezone_name,
            self.timezone,
            settings.USE_TZ,
            options.get("assume_role"),
            options.get("server_side_binding") is True,
            options.get("prepare_threshold", 1),
            options.get("prepared_max", 100),
            self.command_timeout(),
            options.get("shared_reads", True),
        )
        # Each task's first query asks, and nearly always gets the same.
        known = _keys.get(self.alias)
        if known is not None and known[0] == conn_params and known[1][1:] == rest:
            return known[1]
        params = tuple(
            (key, _text(key, value))
            for key, value in conn_params.items()
            if value is not None and key not in _NOT_LIBPQ
        )
        made = (params, *rest)
        _keys[self.alias] = (dict(conn_params), made)
        return made

    def _make_config(self, key: tuple[Any, ...]) -> Any:
        (params, timezone_name, timezone, use_tz, role, server_side, threshold, prepared_max,
         command_timeout, shared_reads) = key  # fmt: skip
        if not isinstance(shared_reads, bool):
            raise ImproperlyConfigured(
                f"DATABASES[{self.alias!r}]['OPTIONS']['shared_reads'] must be True or False."
            )
        setup = []
        if timezone_name:
            setup.append(f"SET TIME ZONE {sql.Literal(timezone_name).as_string(None)}")
        if role:
            setup.append(f"SET ROLE {sql.Literal(role).as_string(None)}")
        params = dict(params)
        try:
            timeout = float(params.get("connect_timeout", CONNECT_TIMEOUT))
        except ValueError:
            raise ImproperlyConfigured("OPTIONS['connect_timeout'] must be a number.") from None
        try:
            return _postgres.Config(
                params,
                setup="; ".join(setup),
                timezone=timezone_name,
                adapters=adapt.AdaptersMap(get_adapters_template(use_tz, timezone)),
                connect_timeout=timeout,
                command_timeout=command_timeout,
                prepare_threshold=threshold,
                prepared_max=prepared_max,
                server_side_binding=server_side,
                shares=shared_reads,
            )
        except (TypeError, ValueError, OverflowError) as error:
            raise ImproperlyConfigured(f"DATABASES['{self.alias}']: {error}") from error

    def _isolation_level(self) -> tuple[IsolationLevel, bool]:
        options = self.settings_dict["OPTIONS"]
        if "isolation_level" not in options:
            return IsolationLevel.READ_COMMITTED, False
        try:
            return IsolationLevel(options["isolation_level"]), True
        except ValueError:
            raise ImproperlyConfigured(
                f"Invalid transaction isolation level {options['isolation_level']} specified. "
                "Use one of the psycopg.IsolationLevel values."
            ) from None

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        self.isolation_level, chosen = self._isolation_level()
        key = self._config_key(conn_params)
        if self.alias == NO_DB_ALIAS:
            pool, config = None, self._make_config(key)
        else:
            pool = self._pool(key)
            config = pool.config
        self._link_pool = pool
        link = _postgres.Connection(pool, config)
        if chosen:
            link.isolation_level = self.isolation_level
        self._link_timezone = self.timezone
        if _core.where() == _core.PLAIN:
            # Plain sync code expects connect() to say what is wrong.
            link.attach()
        return link

    def _commit(self) -> None:
        # Plain sync code expects the commit of a broken transaction to roll back as Django's
        # does. Asked each time: under vinyl.drive() it has this session in turn with coroutines.
        if self.connection is not None:
            self.connection.strict_commit = _core.where() != _core.PLAIN
        super()._commit()

    def close_if_health_check_failed(self) -> None:
        # Django's asks for the pool, which each statement would look up.
        if not self.settings_dict["OPTIONS"].get("pool"):
            super().close_if_health_check_failed()

    def _close(self) -> None:
        if self.connection is not None:
            with self.wrap_database_errors:
                self.connection.close()

    def _configure_connection(self, connection: Any) -> bool:
        # Time zone and role are set once per physical connection.
        return False

    def ensure_timezone(self) -> bool:
        # The next connections come from a pool whose setup has the new zone.
        if self.connection is None:
            return False
        return self._configure_timezone(self.connection)

    def ensure_role(self) -> bool:
        if self.connection is None:
            return False
        return self._configure_role(self.connection)

    # --- cursors ------------------------------------------------------------

    def _follow_timezone(self) -> None:
        if self._link_timezone != self.timezone:
            copy = SimpleNamespace(adapters=adapt.AdaptersMap(self.connection.adapters))
            register_tzloader(self.timezone, copy)
            self.connection.adapters = copy.adapters
            self._link_timezone = self.timezone

    def _behind_pooler(self) -> bool:
        # There a cursor WITH HOLD is soon on another session than ours: the rows come at once.
        config = self.connection.config
        if not config.server_version:
            self.connection.attach()
        return config.pooler

    def reading_cursor(self) -> Any:
        cursor = self.create_cursor()
        cursor.reads = True
        return cursor

    def create_cursor(self, name: str | None = None) -> Any:
        self._follow_timezone()
        if name is None or (self.connection.autocommit and self._behind_pooler()):
            return self.connection.cursor()
        # Outside a transaction the cursor has to outlive its statement.
        return self.connection.cursor(
            name,
            scrollable=False,
            withhold=self.connection.autocommit,
            server_side_binding=self.settings_dict["OPTIONS"].get("server_side_binding") is True,
        )

    def reads_chunks(self, rows: Any, size: int) -> None:
        rows.itersize = size
        rows.reads_ahead = True
