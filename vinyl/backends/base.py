"""What the DatabaseWrapper of every vinyl engine has in common."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, ClassVar

from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS

from vinyl import _core
from vinyl.connections import install, served_alias
from vinyl.sessions import may_stay

from .pools import close_pools, make_pool, pool_of, pool_with, replace_pool
from .seeing import SeeingMixin

__all__ = ["SessionMixin", "close_pools", "pool_of"]

logger = logging.getLogger("vinyl")

install()


class ServedAlias(str):
    """A vinyl alias, equal to the plain alias that it serves too: Django refuses a subquery
    whose ``using()`` differs from the alias of the connection it is compiled for."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if str.__eq__(self, other) is True:
            return True
        served = served_alias(other) if isinstance(other, str) else None
        return served is not None and str.__eq__(self, served) is True

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


class SessionMixin(SeeingMixin):
    """First base of each engine's DatabaseWrapper.

    A wrapper is the session of one task (one thread, in plain sync code). Its
    ``connection`` is a link of the engine, which takes a physical connection
    from the alias's pool only while it needs one.
    """

    vinyl: ClassVar[bool] = True

    #: The engine's ``vnl_driver`` capsule.
    driver: ClassVar[Any]

    #: The transaction as other tasks see it, while one is open.
    _block: Any = None
    _block_of_atomic = False
    _needs_rollback = False

    alias: str
    _thread_ident: int
    atomic_blocks: list[Any]
    in_atomic_block: bool
    run_on_commit: list[Any]
    run_commit_hooks_on_set_autocommit_on: bool
    settings_dict: dict[str, Any]

    def __init__(self, settings_dict: dict[str, Any], alias: str = DEFAULT_DB_ALIAS) -> None:
        super().__init__(settings_dict, ServedAlias(alias))  # type: ignore[call-arg]
        #: Of each block that a coroutine has entered, what its operations are made in.
        self._entered: list[Any] = []

    def get_pool(
        self, config: Any, *, make_config: Callable[[Any], Any] | None = None, **limits: Any
    ) -> _core.Pool:
        """The pool for connections opened with ``config``.

        One per alias: another ``config`` (a test database, say) closes the old
        one. ``make_config`` turns ``config`` into what the driver takes, once
        per pool. ``limits`` override what OPTIONS["pool"] says.
        """
        options = self.settings_dict["OPTIONS"].get("pool")
        if options and self.settings_dict.get("CONN_MAX_AGE", 0) != 0:
            raise ImproperlyConfigured("Pooling doesn't support persistent connections.")
        pool = pool_with(self.alias, config, (options, limits))
        if pool is None:
            made = make_config(config) if make_config else config
            pool = make_pool(self.driver, made, self.alias, options, limits)
            replace_pool(self.alias, config, (options, limits), pool)
        return pool

    def command_timeout(self) -> float:
        """``OPTIONS["command_timeout"]``: seconds that an answer may take, 0 for no limit."""
        value = self.settings_dict["OPTIONS"].get("command_timeout")
        if value is None:
            return 0.0
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ImproperlyConfigured(
                f"DATABASES[{self.alias!r}]['OPTIONS']['command_timeout'] must be a number of "
                f"seconds > 0 or None, not {value!r}."
            )
        return float(value)

    def reading_cursor(self) -> Any:
        """A cursor for a statement that only reads and depends on nothing in its session."""
        return self.create_cursor()  # type: ignore[attr-defined]

    def check_options(self) -> None:
        """Raise ImproperlyConfigured for what a first connection would refuse. Connects nowhere."""
        make_pool(self.driver, None, self.alias, self.settings_dict["OPTIONS"].get("pool"), {})
        self.command_timeout()

    # --- only inside fibers and plain code ----------------------------------

    def cursor(self) -> Any:
        _core.check_session(self.alias)
        return super().cursor()  # type: ignore[misc]

    def chunked_cursor(self) -> Any:
        _core.check_session(self.alias)
        return super().chunked_cursor()  # type: ignore[misc]

    def reads_chunks(self, rows: Any, size: int) -> None:
        """`rows`, the driver's cursor, will be read `size` at a time, and by nobody else."""

    def connect(self) -> None:
        _core.check_session(self.alias)
        super().connect()  # type: ignore[misc]

    def ensure_connection(self) -> None:
        # CaptureQueriesContext calls this in coroutines; a session needs no
        # connection until it has a statement.
        if _core.where() in (_core.LOOP, _core.DRIVEN):
            return
        super().ensure_connection()  # type: ignore[misc]

    def get_autocommit(self) -> bool:
        # Atomic asks this first: refused here, it leaves the session as it was.
        self._refuse_in_coroutines()
        return super().get_autocommit()  # type: ignore[misc]

    def set_autocommit(
        self, autocommit: bool, force_begin_transaction_with_broken_autocommit: bool = False
    ) -> None:
        self._refuse_in_coroutines()
        super().set_autocommit(  # type: ignore[misc]
            autocommit, force_begin_transaction_with_broken_autocommit
        )
        if autocommit:
            self._end_block()
        elif self._block is None and not _core.is_pinned():
            self._block = _core.begin_block()
            # Only Atomic says so; by hand a transaction is followed by the next.
            self._block_of_atomic = force_begin_transaction_with_broken_autocommit

    # Django marks a block for rollback when what it runs there raises. In a coroutine no
    # statement can have failed: what was raised is the refusal, and the block is whole.

    @property
    def needs_rollback(self) -> bool:
        return self._needs_rollback

    @needs_rollback.setter
    def needs_rollback(self, value: bool) -> None:
        if not value or _core.where() not in (_core.LOOP, _core.DRIVEN):
            self._needs_rollback = value

    def set_rollback(self, rollback: bool) -> None:
        super().set_rollback(rollback)  # type: ignore[misc]
        self._needs_rollback = rollback

    def commit(self) -> None:
        """Django's, and what follows when an exception from outside (a cancel, Ctrl-C) ends it.

        A COMMIT that took place all the same calls the functions given to on_commit(), with the
        exception on its way. Where nobody knows whether it did, the log names them.
        """
        self._seal_block()
        try:
            super().commit()  # type: ignore[misc]
        except Exception:
            raise
        except BaseException:
            committed = getattr(self.connection, "committed", 0)
            if committed > 0:
                self.run_commit_hooks_on_set_autocommit_on = True
            else:
                lost, self.run_on_commit = self.run_on_commit, []
                if committed < 0 and lost:
                    logger.warning(
                        "A COMMIT on database %r was interrupted, and its outcome is not known. "
                        "Functions given to on_commit() were not called: %s.",
                        self.alias,
                        ", ".join(getattr(fn, "__qualname__", repr(fn)) for _, fn, _ in lost),
                    )
            raise

    def rollback(self) -> None:
        self._seal_block()
        super().rollback()  # type: ignore[misc]

    def close(self) -> None:
        if self._is_kept():
            return
        super().close()  # type: ignore[misc]
        if not self.in_atomic_block:
            self._end_block()

    def _is_kept(self) -> bool:
        # A test's transaction is not ended by a task or a thread of the test that
        # closes what it takes for a connection of its own.
        pin = _core.current_pin()
        if pin is None or not self.in_atomic_block or pin.sessions.get(self.alias) is not self:
            return False
        scope = _core.current_scope()
        if scope is None:
            return threading.get_ident() != self._thread_ident
        return getattr(scope, "pin", None) is pin

    def _refuse_in_coroutines(self) -> None:
        if _core.where() in (_core.LOOP, _core.DRIVEN):
            _core.check_session(self.alias)

    def enter_block(self) -> None:
        """A coroutine has entered a block, or a savepoint in one."""
        own = self._block if len(self.atomic_blocks) == 1 else None
        self._entered.append(_core.begin_block() if own is None else own)

    def settle_block(self) -> None:
        """It is about to leave it: what has begun inside is finished first."""
        _core.settle_block(self._entered[-1])

    def leave_block(self) -> None:
        _core.end_block(self._entered.pop())

    def leave_all_blocks(self) -> None:
        while self._entered:
            self.leave_block()

    def _seal_block(self) -> None:
        if self._block is not None and self._block_of_atomic and not self.in_atomic_block:
            _core.seal_block(self._block)

    def _end_block(self) -> None:
        block, self._block = self._block, None
        if block is not None:
            _core.end_block(block)

    def close_if_unusable_or_obsolete(self) -> None:
        # In a coroutine a task's connections are the pool's to judge.
        place = _core.where()
        if place not in (_core.LOOP, _core.DRIVEN) and not (
            place == _core.FIBER and may_stay(self)
        ):
            super().close_if_unusable_or_obsolete()  # type: ignore[misc]
