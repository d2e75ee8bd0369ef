"""The sessions of ended requests, for the next ones: a ``DatabaseWrapper`` has seven parts to make.

A session is kept only if nothing of its task is left in it: it is in no transaction, its link holds
no physical connection and nothing was set there, it has no attribute but those of a new one, and
nobody refers to it or to a part of it any more. What a
task may have put into it (log, execute wrappers, functions for on_commit()) is made anew. Whatever
differs, and every engine derived from ours, is dropped as before.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from typing import Any

from django.core.signals import setting_changed
from django.db import connections
from django.db.backends.signals import connection_created

from vinyl import _core
from vinyl.backends.pools import pool_of
from vinyl.native import in_request

__all__ = ["keep_sessions", "made", "may_stay", "take_session"]

#: How many of an alias a thread keeps.
MOST = 64

#: What a session is made of, each with a reference back to it.
PARTS = ("client", "creation", "features", "introspection", "ops", "validation")

#: What a new one has not; all of them are made or set again when it connects.
LATER = frozenset(
    ("_block", "_block_of_atomic", "init_commands", "isolation_level", "transaction_mode",
     "wrap_database_errors", "_link_pool", "_link_timezone", "timezone", "timezone_name")
)  # fmt: skip

#: Constants of a session that was never used.
FRESH = {
    "autocommit": False, "in_atomic_block": False, "savepoint_state": 0, "commit_on_exit": True,
    "_needs_rollback": False, "rollback_exc": None, "close_at": None,
    "closed_in_transaction": False, "errors_occurred": False, "health_check_enabled": False,
    "health_check_done": False, "run_commit_hooks_on_set_autocommit_on": False,
}  # fmt: skip
#: Of one that has a link.
CONNECTED = {
    name: value
    for name, value in FRESH.items()
    if name not in ("autocommit", "close_at", "health_check_done")
}
LISTS = ("savepoint_ids", "atomic_blocks", "run_on_commit", "_entered")
OTHERS = ("connection", "settings_dict", "alias", "_made_in", "_seen", "_thread_ident",
          "_thread_sharing_count", "_thread_sharing_lock")  # fmt: skip
KEYS = frozenset((*PARTS, *LATER, *FRESH, *LISTS, *OTHERS))


class _Spare(threading.local):
    def __init__(self) -> None:
        self.by_alias: dict[str, list[Any]] = {}
        self.epoch = _epoch


_epoch = 0
_spare = _Spare()


def made(session: Any) -> Any:
    """Notes under which settings a new session was made."""
    session.__dict__["_made_in"] = _epoch
    return session


def _kept() -> dict[str, list[Any]]:
    """This thread's, by alias: none that was made before a setting was changed."""
    if _spare.epoch != _epoch:
        _spare.by_alias.clear()
        _spare.epoch = _epoch
    return _spare.by_alias


def take_session(alias: str) -> Any:
    """A kept session, as new, or None."""
    kept = _kept().get(alias)
    if not kept:
        return None
    session = kept.pop()
    if session.settings_dict is not connections.settings[alias]:
        return None
    link = session.connection
    if link is not None and (connection_created.receivers or link.pool is not pool_of(alias)):
        return None
    return session


def may_stay(session: Any) -> bool:
    """Whether the end of a request leaves the session's link as it is: connecting is not free,
    and a link that holds no physical connection has nothing to close."""
    link = session.connection
    return (
        link is not None
        and in_request.get() is not None
        and not session.in_atomic_block
        and not session.errors_occurred
        and session.autocommit
        and session.settings_dict["AUTOCOMMIT"]
        and not session.settings_dict["CONN_HEALTH_CHECKS"]
        and not connection_created.receivers  # they want to see each task's connection
        and link.is_new
    )


def keep_sessions() -> None:
    """Keeps those of the running task, which ends. To be called in its coroutine."""
    scope = _core.current_scope()
    if scope is None or _core.is_pinned() or scope.in_block():
        return
    sessions = scope.sessions
    for alias in tuple(sessions):
        kept = _kept().setdefault(alias, [])
        if len(kept) < MOST:
            session = sessions.pop(alias)
            if _renew(session):
                kept.append(session)
            else:
                sessions[alias] = session


def _renew(session: Any) -> bool:
    """Makes it as new, if it can be."""
    state = session.__dict__
    if (
        not type(session).__module__.startswith("vinyl.backends.")
        or state.get("_made_in") != _epoch
        or state["in_atomic_block"]
        or state.get("_block") is not None
        or state["_thread_sharing_count"]
        or any(state[name] for name in LISTS)
        or not KEYS.issuperset(state)
    ):
        return False
    # Each part has one reference from the session and gives it one; the session itself is this
    # function's argument, its caller's variable and, here, getrefcount()'s.
    if any(sys.getrefcount(state[name]) != 2 for name in PARTS):
        return False
    errors = state.get("wrap_database_errors")
    if errors is not None:
        if sys.getrefcount(errors) != 3:
            return False
        errors = None
        del state["wrap_database_errors"]
    if sys.getrefcount(session) != len(PARTS) + 3:
        return False
    link = state["connection"]
    if link is None:
        for name in LATER.intersection(state):
            del state[name]
        state.update(FRESH)
    elif sys.getrefcount(link) == 3 and state["autocommit"] and link.is_new:
        state.update(CONNECTED)
    else:
        return False
    seen = state.pop("_seen", None)
    limit = seen.log.maxlen if seen is not None else None
    del seen
    for name in LISTS:
        state[name] = []
    session.queries_log = deque(maxlen=limit)
    return True


def _forget(**kwargs: Any) -> None:
    # Settings are changed by tests: what was derived from the old ones is made anew.
    global _epoch
    _epoch += 1


setting_changed.connect(_forget, dispatch_uid="vinyl.sessions")
