"""A statement straight to the engine's cursor, where nobody would notice the difference.

Django puts a ``CursorWrapper`` between the ORM and the driver. Whoever wants to see statements
does it there: the query log, ``execute_wrapper``, debug-toolbar, a tracer that replaces a method.
`unseen` says that nobody does, and that Django would execute now; `execute` then does what the
wrapper would have done, and nothing else.
"""

from __future__ import annotations

import os
from threading import get_ident
from typing import Any

import django
from django.apps import apps
from django.conf import settings
from django.db.backends import utils
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from vinyl._core import check_session

__all__ = ["execute", "unseen"]

#: What a session does on the way to a statement, and what of it may be replaced to watch.
_SESSION = (
    "cursor", "_cursor", "_prepare_cursor", "make_cursor", "make_debug_cursor", "queries_logged",
    "ensure_connection", "close_if_health_check_failed", "validate_thread_sharing",
    "validate_no_broken_transaction",
)  # fmt: skip
#: Of Django's CursorWrapper.
_CURSOR = (
    "__init__", "__getattr__", "__enter__", "__exit__", "__iter__",
    "execute", "_execute", "_execute_with_wrappers",
)  # fmt: skip
_OURS = tuple(
    os.path.dirname(os.path.abspath(file)) + os.sep for file in (django.__file__, __file__)
)


def _original(function: Any) -> Any:
    """``function`` if its code is Django's or ours, else what nothing is identical to."""
    code = getattr(getattr(function, "fget", function), "__code__", None)
    return function if code is not None and code.co_filename.startswith(_OURS) else object()


def _methods(cls: type, names: tuple[str, ...]) -> tuple[tuple[str, Any], ...]:
    return tuple((name, _original(getattr(cls, name, None))) for name in names)


_wrapper = CursorWrapper, _methods(CursorWrapper, _CURSOR)
_base = BaseDatabaseWrapper, _methods(BaseDatabaseWrapper, _SESSION)
_classes: dict[type, tuple[tuple[type, Any], ...]] = {}


def _watched(cls: type) -> tuple[tuple[type, Any], ...]:
    """The classes that a statement of a session of ``cls`` passes, as they were at its first one."""
    known = _classes.get(cls)
    if known is None:
        known = _classes[cls] = ((cls, _methods(cls, _SESSION)), _base, _wrapper)
    return known


def unseen(session: Any) -> bool:
    """Whether a statement of ``session`` (``connections[alias]``) may go past Django's cursor.

    That is: nobody sees its statements, and Django would not refuse it for a broken transaction.
    """
    if (
        session.queries_logged
        or session.execute_wrappers
        or session.needs_rollback
        or not apps.ready
        or utils.CursorWrapper is not CursorWrapper
    ):
        return False
    state = session.__dict__
    for cls, methods in _watched(type(session)):
        for name, method in methods:
            if getattr(cls, name) is not method or name in state:
                return False
    return True


def execute(session: Any, sql: str, params: Any) -> Any:
    """Execute on a session that is `unseen`; gives the engine's cursor, to be closed by the caller.

    Raises what Django's cursor would: NotFetched in a coroutine, Django's database errors.
    """
    check_session(session.alias)
    if session._thread_ident != get_ident():
        session.validate_thread_sharing()
    if session.connection is None:
        session.ensure_connection()
    elif session.health_check_enabled and not session.health_check_done:
        session.close_if_health_check_failed()
        session.ensure_connection()
    with session.wrap_database_errors:
        cursor = session.create_cursor()
        try:
            cursor.execute(sql, params)
        except BaseException:
            cursor.close()
            raise
    return cursor
