"""`vinyl.listen()`: PostgreSQL's NOTIFY as an async iterator."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

from django.db import DEFAULT_DB_ALIAS, NotSupportedError, connections

from vinyl._core import Operation, release_turn
from vinyl.aliases import require

__all__ = ["Notification", "listen"]


class Notification(NamedTuple):
    """One NOTIFY: the channel's name, the payload (may be ""), the sender's server process."""

    channel: str
    payload: str
    pid: int


async def listen(*channels: str, using: str | None = None) -> AsyncGenerator[Notification, None]:
    """``async for n in vinyl.listen("channel")``: what is sent from now on.

    Takes a connection of its own from the pool until the iteration ends (``aclose()``, or
    leaving the task). Outside every transaction of the task.

    Raises NotSupportedError on an engine other than PostgreSQL, OperationalError when the
    connection is lost: what was sent meanwhile is lost too, as PostgreSQL keeps nothing.
    """
    if not channels or not all(isinstance(name, str) and name for name in channels):
        raise ValueError("vinyl.listen() needs the name of at least one channel.")
    session = connections[require(using or DEFAULT_DB_ALIAS)]
    link = await Operation(_open, (session, channels))
    try:
        while True:
            for entry in await Operation(_next, (session, link)):
                yield Notification(*entry)
    finally:
        link.close()  # drops the connection without a word: no I/O


def _open(session: Any, channels: tuple[str, ...]) -> Any:
    if session.vendor != "postgresql":
        raise NotSupportedError(f"{session.display_name} has no LISTEN: only PostgreSQL has.")
    with session.wrap_database_errors:
        link = session.get_new_connection(session.get_connection_params())
        try:
            link.listen(channels)
        except BaseException:
            link.close()
            raise
    return link


def _next(session: Any, link: Any) -> list[tuple[str, str, int]]:
    release_turn()  # it may take for ever, and uses the link alone
    with session.wrap_database_errors:
        return link.notifies(None)
