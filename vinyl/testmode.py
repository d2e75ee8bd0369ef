"""Test mode: what the tasks of one test do is in the test's transaction.

Switched on where test databases are made (vinyl/backends/creation.py), so that it
holds for every runner and for Django's own test classes. A ``TestCase`` opens
its transactions in plain code, on the thread's sessions; for as long as they
are open a `Pin` gives those sessions to every task, and to plain code for the
twins' plain aliases too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.transaction import TransactionManagementError

from vinyl import _core
from vinyl.backends.base import SessionMixin, close_pools
from vinyl.connections import served_alias, vinyl_aliases

__all__ = ["close_connections", "enable", "mirror", "twins_of"]

_lock = threading.Lock()
_enabled = False
# The pins that were in force before the ones of the open TestCase transactions.
_outer: list[_core.Pin | None] = []
# Twins whose test database was not made: they still name the real one.
_without_test_database: dict[str, str] = {}


def twins_of(aliases: Any) -> frozenset[str]:
    """The aliases, each with its twin: whoever may use one may use the other."""
    served = vinyl_aliases()
    wanted = {served.get(alias, alias) for alias in aliases}
    return frozenset(aliases) | {alias for alias, name in served.items() if name in wanted}


# --- the transactions of a TestCase ------------------------------------------


def _sessions() -> dict[str, Any]:
    pin = _core.current_pin()
    if pin is not None:
        return pin.sessions
    return {alias: connections[alias] for alias in set(vinyl_aliases().values())}


def _seconds(sessions: dict[str, Any]) -> float:
    """How long an operation waits for another task's block: as for a connection."""
    pools = [session.settings_dict["OPTIONS"].get("pool") for session in sessions.values()]
    return max((p.get("timeout", 30.0) for p in pools if isinstance(p, dict)), default=30.0)


def _pin() -> None:
    sessions = _sessions()
    for session in sessions.values():
        session.inc_thread_sharing()
    _outer.append(_core.exchange_pin(_core.Pin(sessions, _seconds(sessions))))


def _unpin() -> None:
    pin = _core.exchange_pin(_outer.pop())
    assert pin is not None
    for session in pin.sessions.values():
        session.dec_thread_sharing()


def _hold(aliases: Any) -> None:
    """Begin in earnest: a transaction that a task's first statement began would
    live on a connection of that task's event loop, and end with it."""
    for session in {connections[alias] for alias in aliases}:
        if isinstance(session, SessionMixin):
            with session.wrap_database_errors:  # type: ignore[attr-defined]
                session.connection.cursor().execute("SELECT 1")  # type: ignore[attr-defined]


def _enter_atomics(cls: Any, original: Callable[[Any], Any]) -> Any:
    _pin()
    try:
        atomics = original(cls)
        _hold(atomics)
        return atomics
    except BaseException:
        _unpin()
        raise


def _rollback_atomics(cls: Any, atomics: Any, original: Callable[[Any, Any], Any]) -> Any:
    try:
        left = _close_left_blocks(atomics)
        original(cls, atomics)
    finally:
        _unpin()
    if left:
        raise TransactionManagementError(
            f"An atomic block on {left} was still open at the end of the test: a task that "
            "was in it has not ended. What it did is rolled back; await the task."
        )


def _close_left_blocks(atomics: Any) -> str:
    """Leave the blocks inside the test's own, so that those are what is rolled back."""
    outermost: dict[int, tuple[str, Any, Any]] = {}
    for alias, atomic in atomics.items():
        session = connections[alias]
        outermost[id(session)] = (alias, session, atomic)  # the last one is the innermost
    left = []
    for alias, session, atomic in outermost.values():
        if not isinstance(session, SessionMixin) or session.atomic_blocks[-1:] == [atomic]:
            continue
        if atomic in session.atomic_blocks:
            depth = session.atomic_blocks.index(atomic)
            del session.atomic_blocks[depth + 1 :]
            del session.savepoint_ids[depth:]
            session.leave_all_blocks()
            left.append(repr(alias))
    return ", ".join(left)


# --- Django's classes --------------------------------------------------------


def _databases_names(cls: Any, original: Callable[..., Any], include_mirrors: bool = True) -> Any:
    """One name for each session: a twin that is there by its plain alias is there."""
    names = original(cls, True)
    if not include_mirrors:
        # Django asks the connection, which for a pinned plain alias is its mirror's.
        settings = connections.settings
        return [name for name in names if not (settings[name].get("TEST") or {}).get("MIRROR")]
    return [name for name in names if not any(served_alias(n) == name for n in names if n != name)]


def _follow_primaries() -> None:
    """Twins are for the database that their primary has now: in the processes of a parallel run
    Django tells only the aliases that the tests name which clone is theirs."""
    for alias, conf in connections.settings.items():
        primary = connections.settings.get((conf.get("TEST") or {}).get("MIRROR"))
        if primary is None or served_alias(alias) != alias or conf["NAME"] == primary["NAME"]:
            continue
        conf["NAME"] = primary["NAME"]
        close_connections(alias)


def _validate_databases(cls: Any, original: Callable[[Any], Any]) -> Any:
    _follow_primaries()
    databases = twins_of(original(cls))
    for alias, primary in _without_test_database.items():
        if alias in databases:
            raise ImproperlyConfigured(
                f"{cls.__qualname__} uses {alias!r}, which is a mirror of {primary!r} in tests, "
                f"but no test database was made for {primary!r}: name that one in databases too."
            )
    return databases


def enable() -> None:
    """Adapt Django's test classes. Once per process; undone by nothing."""
    global _enabled
    with _lock:
        if _enabled:
            return
        _enabled = True
    from django.test.testcases import SimpleTestCase, TestCase, TransactionTestCase

    for owner, function in (
        (SimpleTestCase, _validate_databases),
        (TransactionTestCase, _databases_names),
        (TestCase, _enter_atomics),
        (TestCase, _rollback_atomics),
    ):
        _wrap(owner, function)


def _wrap(owner: type, function: Callable[..., Any]) -> None:
    name = function.__name__
    original = owner.__dict__[name].__func__

    def wrapped(cls: Any, *args: Any, **kwargs: Any) -> Any:
        return function(cls, *args, original=original, **kwargs)

    wrapped.__name__, wrapped.__qualname__ = name, f"{owner.__qualname__}.{name}"
    setattr(owner, name, classmethod(wrapped))


# --- test databases ----------------------------------------------------------


def mirror(session: Any, primary: dict[str, Any], name: str) -> None:
    """The vinyl alias of ``session``, until now for the database ``name``, is from now on a mirror
    of the alias whose settings are ``primary``."""
    alias = session.alias
    whose = (session.settings_dict.get("TEST") or {}).get("MIRROR")
    if not whose or connections.settings.get(whose) is not primary:
        return
    _without_test_database.pop(alias, None)
    if primary["NAME"] == name and (primary.get("TEST") or {}).get("NAME") != name:
        _without_test_database[alias] = whose
        return
    creation = connections[whose].creation
    destroy = creation.destroy_test_db

    def destroy_test_db(*args: Any, **kwargs: Any) -> Any:
        close_connections(alias)
        return destroy(*args, **kwargs)

    if getattr(destroy, "vinyl", None) is None:
        destroy_test_db.vinyl = True  # type: ignore[attr-defined]
        creation.destroy_test_db = destroy_test_db


def close_connections(alias: str) -> None:
    """Close what a vinyl alias has open: this thread's session and the idle ones of its pool."""
    session = getattr(connections._connections, alias, None)  # type: ignore[attr-defined]
    if session is not None:
        session.close()
    close_pools(alias)
