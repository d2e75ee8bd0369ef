"""A statement straight to the engine's cursor, where nobody would notice the difference.

Django puts a ``CursorWrapper`` between the ORM and the driver. Whoever wants to see statements
does it there: the query log, ``execute_wrapper``, debug-toolbar, a tracer that replaces a method.
`unseen` says that nobody does, and that Django would execute now; `execute` then does what the
wrapper would have done, and nothing else.
"""

from __future__ import annotations

from threading import get_ident
from typing import Any

from django.apps import apps
from django.db.backends import utils
from django.db.backends.utils import CursorWrapper

from vinyl._core import check_session
from vinyl.originals import unchanged

__all__ = ["execute", "execute_as_django", "unseen"]

#: What a session does on the way to a statement. On the instance, somebody has replaced it.
_WATCHED = frozenset(
    {
        "cursor", "_cursor", "_prepare_cursor", "make_cursor", "make_debug_cursor",
        "ensure_connection", "close_if_health_check_failed", "validate_thread_sharing",
        "validate_no_broken_transaction",
    }
)  # fmt: skip


def unseen(session: Any) -> bool:
    """Whether a statement of ``session`` (``connections[alias]``) may go past Django's cursor.

    That is: nobody sees its statements, and Django would not refuse it for a broken transaction.
    """
    return bool(
        getattr(session, "vinyl", False)
        and unchanged(type(session), CursorWrapper)
        and utils.CursorWrapper is CursorWrapper
        and session.__dict__.keys().isdisjoint(_WATCHED)
        and not session.queries_logged
        and not session.execute_wrappers
        and not session.needs_rollback
        and apps.ready
    )


def execute(session: Any, sql: str, params: Any, *, reads: bool = False) -> Any:
    """Execute on a session that is `unseen`; gives the engine's cursor, to be closed by the caller.

    Where it has to connect first, somebody may begin to look as ``connection_created`` is sent.
    Then the cursor is Django's.

    ``reads``: it is a SELECT of Django's compiler that locks nothing, and all its rows are read.

    Raises what Django's cursor would: NotFetched in a coroutine, Django's database errors.
    """
    check_session(session.alias)
    if session._thread_ident != get_ident():
        session.validate_thread_sharing()
    if session.connection is None or (
        session.health_check_enabled and not session.health_check_done
    ):
        session.close_if_health_check_failed()
        if session.connection is None:
            session.ensure_connection()
            if not unseen(session):
                return execute_as_django(session, sql, params)
    with session.wrap_database_errors:
        cursor = session.reading_cursor() if reads else session.create_cursor()
        try:
            cursor.execute(sql, params)
        except BaseException:
            cursor.close()
            raise
    return cursor


def execute_as_django(session: Any, sql: str, params: Any) -> Any:
    """The same for a session that is seen; gives Django's cursor."""
    cursor = session.cursor()
    try:
        cursor.execute(sql, params)
    except BaseException:
        cursor.close()
        raise
    return cursor
