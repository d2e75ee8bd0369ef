"""Cancels a task at its k-th suspension, counting those of the tasks that it gathers too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class _Watched(Coroutine[Any, Any, Any]):
    """The coroutine, or operation, itself in the eyes of a task; tells of each suspension."""

    def __init__(self, canceller: Canceller, coroutine: Any) -> None:
        self._canceller = canceller
        self._coroutine = coroutine

    def send(self, value: Any) -> Any:
        awaited = self._coroutine.send(value)
        self._canceller.suspended()
        return awaited

    def throw(self, *error: Any) -> Any:
        awaited = self._coroutine.throw(*error)
        self._canceller.suspended()
        return awaited

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> _Watched:
        return self

    def __iter__(self) -> _Watched:
        return self

    def __next__(self) -> Any:
        return self.send(None)


class Canceller:
    """Counts the suspensions of what ``watch`` wraps; at each number in ``at`` it cancels the task.

    ``soon``: the cancel comes from the loop, when the task is suspended already, and may meet a
    wait that has just been answered; else while it is being suspended.
    """

    def __init__(self, at: tuple[int, ...] = (), *, soon: bool = False) -> None:
        self.at = at
        self.soon = soon
        self.suspensions = 0
        self.cancels = 0
        self.task: asyncio.Task[Any] | None = None
        self.children: list[asyncio.Task[Any]] = []

    def watch(self, coroutine: Any) -> Coroutine[Any, Any, Any]:
        return _Watched(self, coroutine)

    def start(self, coroutine: Any) -> asyncio.Task[Any]:
        """A task that is counted too, and that a cancel of the watched task leaves alone."""
        task = asyncio.create_task(self.watch(coroutine))
        self.children.append(task)
        return task

    def suspended(self) -> None:
        self.suspensions += 1
        if self.suspensions in self.at and self.task is not None:
            if self.soon:
                asyncio.get_running_loop().call_soon(self._cancel)
            else:
                self._cancel()

    def _cancel(self) -> None:
        if self.task is not None and not self.task.done():
            self.cancels += 1
            self.task.cancel()

    async def run(
        self, make: Callable[[Canceller], Coroutine[Any, Any, Any]]
    ) -> BaseException | None:
        """Runs ``make(self)`` in a task of its own, to its end; the exception that ended it."""

        self.task = asyncio.create_task(self.watch(make(self)))
        await asyncio.wait([self.task])
        await asyncio.gather(*self.children, return_exceptions=True)
        if self.task.cancelled():
            return asyncio.CancelledError()
        return self.task.exception()
