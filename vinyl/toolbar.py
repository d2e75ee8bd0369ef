"""django-debug-toolbar's SQL panel, on a task that has more than one session.

The panel replaces ``cursor()`` of the connections that it finds when a request begins. A session
that the request's task gets later, for operations that run side by side, follows the first one.
"""

from __future__ import annotations

from typing import Any

__all__ = ["follow"]


def follow(session: Any, main: Any) -> None:
    """Let the panel that listens to ``main``, if one does, listen to ``session`` too."""
    panel = getattr(main, "_djdt_logger", None)
    if panel is None:
        return
    from debug_toolbar.panels.sql.tracking import wrap_cursor

    wrap_cursor(session)
    session._djdt_logger = panel
