"""What a session shows of its statements: the log, the execute wrappers, the debug flag.

Django keeps the three on the connection. Here a connection is a task's session,
which is sometimes more than one connection (operations that run side by side)
and in tests less than one (all tasks share the test's), and yet ``queries``,
``CaptureQueriesContext``, ``assertNumQueries`` and ``execute_wrapper`` are
about one task's statements. In a test, what plain code captures includes what
the tasks do meanwhile: they are its doing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from vinyl import _core

__all__ = ["SeeingMixin"]


class Seen:
    """The three, shared by all connections of one task."""

    def __init__(self) -> None:
        self.log: deque[Any] = deque()
        self.wrappers: list[Any] = []
        self.forced = False


class TaskLog(deque[Any]):
    """A task's log in a test; what is logged here is in the test's log too."""

    def __init__(self, whole: Seen) -> None:
        super().__init__(maxlen=whole.log.maxlen)
        self._whole = whole

    def append(self, entry: Any) -> None:
        super().append(entry)
        self._whole.log.append(entry)


class TaskWrappers(list[Any]):
    """A task's wrappers in a test, inside those of the test."""

    def __init__(self, whole: Seen) -> None:
        super().__init__()
        self._whole = whole

    def __reversed__(self) -> Iterator[Any]:  # type: ignore[override]
        yield from super().__reversed__()
        yield from reversed(self._whole.wrappers)

    def __iter__(self) -> Iterator[Any]:
        yield from self._whole.wrappers
        yield from super().__iter__()

    def __len__(self) -> int:
        return len(self._whole.wrappers) + super().__len__()


class TaskSeen:
    """A task's own view of the session that the tasks of a test share."""

    def __init__(self, whole: Seen) -> None:
        self._whole = whole
        self._forced = False
        self.log = TaskLog(whole)
        self.wrappers = TaskWrappers(whole)

    @property
    def forced(self) -> bool:
        return self._forced or self._whole.forced

    @forced.setter
    def forced(self, value: bool) -> None:
        self._forced = value


class SeeingMixin:
    """Django's three attributes, by task."""

    @property
    def _whole(self) -> Seen:
        seen: Seen | None = self.__dict__.get("_seen")
        if seen is None:
            seen = self.__dict__["_seen"] = Seen()
        return seen

    def share_seen(self, other: SeeingMixin) -> None:
        """Show what ``other`` shows: both are sessions of one task."""
        self.__dict__["_seen"] = other._whole

    @property
    def _here(self) -> Seen | TaskSeen:
        whole = self._whole
        if not _core.is_pinned():
            return whole
        scope = _core.current_scope()
        if scope is None or getattr(scope, "pin", None) is not _core.current_pin():
            return whole
        views: dict[Seen, TaskSeen] = scope.__dict__.setdefault("seen", {})
        view = views.get(whole)
        if view is None:
            view = views[whole] = TaskSeen(whole)
        return view

    @property
    def queries_log(self) -> Any:
        return self._here.log

    @queries_log.setter
    def queries_log(self, log: Any) -> None:
        self._whole.log = log

    @property
    def execute_wrappers(self) -> Any:
        return self._here.wrappers

    @execute_wrappers.setter
    def execute_wrappers(self, wrappers: Any) -> None:
        self._whole.wrappers = wrappers

    @property
    def force_debug_cursor(self) -> bool:
        return self._here.forced

    @force_debug_cursor.setter
    def force_debug_cursor(self, forced: bool) -> None:
        self._here.forced = forced

    @force_debug_cursor.deleter
    def force_debug_cursor(self) -> None:  # as unittest.mock undoes what it has patched
        self._here.forced = False
