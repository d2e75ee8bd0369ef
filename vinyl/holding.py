"""The statements of ``add()``, ``remove()``, ``set()`` and ``clear()`` of a many-to-many relation.

Django's own methods run. What they delete and insert in the relation's own table, nobody reads
how many rows it was: so the engine may keep it until the next statement, or COMMIT, carries it
(`_postgres.Connection.hold`). That is done where nobody could notice; else each goes alone, as
ever.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any

from django.db import connections, router
from django.db.models import Manager, QuerySet, signals
from django.db.models.deletion import Collector
from django.db.models.sql import DeleteQuery, InsertQuery
from django.db.models.sql.compiler import SQLDeleteCompiler, SQLInsertCompiler

from vinyl._core import FIBER, PLAIN, where
from vinyl.direct import unseen
from vinyl.originals import is_original, unchanged

__all__ = ["held_together"]

#: What of a related manager's class, as Django makes it, has a part in it.
_METHODS = (
    "add", "remove", "set", "clear", "set_base", "_add_base", "_remove_base", "_clear_base",
    "_add_items", "_remove_items", "_get_add_plan", "_get_target_ids", "_get_missing_target_ids",
    "_build_remove_filters",
)  # fmt: skip

_SIGNALS = (
    signals.m2m_changed,
    signals.pre_save,
    signals.post_save,
    signals.pre_delete,
    signals.post_delete,
)


def held_together(method: Any) -> Any:
    """One of the four methods; in a fiber or in plain synchronous code."""

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        session = _session_of(self)
        link = None if session is None else session.connection
        if link is None or not link.hold(_beginnings(session, self.through._meta.db_table)):
            return method(self, *args, **kwargs)
        try:
            answer = method(self, *args, **kwargs)
        except Exception:
            if session.in_atomic_block:
                # The block is to be rolled back. Whoever goes on in it all the same finds it done.
                with contextlib.suppress(Exception):
                    link.release(True)
            raise
        else:
            _send(session, link)
            return answer
        finally:
            link.release(False)

    return call


def _send(session: Any, link: Any) -> None:
    """Inside a block of the caller's something may be held yet."""
    try:
        with session.wrap_database_errors:
            link.release(True)
    except BaseException:
        session.needs_rollback = True
        raise


def _session_of(manager: Any) -> Any:
    """The session in which statements may be held; None where there is none."""
    place = where()
    if place not in (FIBER, PLAIN):
        return None
    through = manager.through
    if not through._meta.auto_created or type(through._default_manager) is not Manager:
        return None
    session = connections[router.db_for_write(through, instance=manager.instance)]
    if (
        not getattr(session, "holds_writes", False)
        or not unseen(session)
        or any(signal.has_listeners(through) for signal in _SIGNALS)
        or not _is_djangos(type(manager))
        or not unchanged(
            QuerySet,
            Collector,
            DeleteQuery,
            InsertQuery,
            SQLDeleteCompiler,
            SQLInsertCompiler,
        )
    ):
        return None
    if session.connection is None and place == FIBER:
        session.ensure_connection()  # which connects to nothing yet
        if not unseen(session):
            return None
    return session


def _is_djangos(manager_class: Any) -> bool:
    """Whether the methods are as Django wrote them. No guard: each manager that is made changes
    BaseManager, which counts them."""
    base = manager_class.__bases__[1]
    methods = tuple(map(base.__dict__.get, _METHODS))
    known: tuple[tuple[Any, ...], bool] | None = manager_class._vinyl_known
    if known is None or known[0] != methods:
        known = manager_class._vinyl_known = methods, all(map(is_original, methods))
    return known[1]


def _beginnings(session: Any, table: str) -> tuple[str, ...]:
    return _quoted(session.ops.quote_name(table))


@functools.lru_cache(maxsize=1024)
def _quoted(table: str) -> tuple[str, ...]:
    return f"INSERT INTO {table} ", f"DELETE FROM {table} "
