"""``django.db.connections`` by task instead of by thread.

Django keeps its connections in ``connections._connections``, by thread. For a
vinyl alias the place of that store is taken by a `SessionMap`: in coroutines
and fibers it answers with the session (the ``DatabaseWrapper``) of the current
task, everywhere else with what Django's own store holds. The plain alias of a
twin is served by its twin's session there, so that both are one transaction.
"""

from __future__ import annotations

import threading
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from vinyl import _core, absent, toolbar
from vinyl.aliases import vinyl_alias
from vinyl.sessions import made, take_session

__all__ = ["install", "refresh", "served_alias", "vinyl_aliases"]

_lock = threading.RLock()
_aliases: dict[str, str] = {}


def vinyl_aliases() -> dict[str, str]:
    """Each alias that a task's session serves -> the alias of that session."""
    return _aliases


def served_alias(alias: str) -> str | None:
    """The vinyl alias that serves ``alias`` in coroutines and fibers, or None."""
    return _aliases.get(alias)


def refresh() -> None:
    """Read ``DATABASES`` anew: who serves which alias. For tests that change it."""
    served = {alias: vinyl_alias(alias) for alias in connections.settings}
    _aliases.clear()
    _aliases.update({alias: name for alias, name in served.items() if name is not None})


def _share_with_parent(scope: Any, alias: str, session: BaseDatabaseWrapper) -> None:
    # Operations that run side by side have a session each, but one log and one
    # stack of wrappers: what the task captures is what its operations did.
    parent = getattr(scope, "parent", None)
    if parent is None:
        return
    main = parent.sessions.get(alias)
    if main is None:
        main = connections.create_connection(alias)
        parent.sessions[alias] = main
        _share_with_parent(parent, alias, main)
    session.share_seen(main)  # type: ignore[attr-defined]
    toolbar.follow(session, main)


def install() -> None:
    """Take the place of Django's store of connections. Idempotent.

    Called when a vinyl backend or the vinyl app is loaded, whichever is first.
    """
    with _lock:
        if isinstance(connections._connections, _core.SessionMap):
            return
        refresh()
        if isinstance(connections._connections, _core.SessionMap):
            return  # reading them loaded a vinyl backend
        create = connections.create_connection

        def create_connection(alias: str) -> BaseDatabaseWrapper:
            if _core.where() != _core.PLAIN or _core.is_pinned():
                alias = _aliases.get(alias, alias)
                if alias in _aliases and not _core.is_pinned():
                    return take_session(alias) or made(create(alias))
            return create(alias)

        connections.create_connection = create_connection  # type: ignore[method-assign]
        connections._connections = _core.SessionMap(
            connections._connections, _aliases, _share_with_parent
        )
        absent.watch()
