"""A lane is a contender in one mode: how its methods are called, again and again."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from work import Work

Function = Callable[..., Any]
Sample = tuple[Any, float]  # the last answer, and the seconds of all calls


@dataclass(frozen=True)
class Entry:
    """``module`` of contenders, driven by ``mode``; ``package`` is the one it is about."""

    name: str
    module: str
    mode: str
    package: str = ""
    engines: tuple[str, ...] = ("postgresql", "sqlite")
    own_process: bool = False


class Sync:
    """Called as it is; its open() and close() are coroutines that wait for nothing."""

    def finish(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            coroutine.send(None)
        except StopIteration as done:
            return done.value
        raise RuntimeError("a synchronous contender waits")

    def sample(self, contender: Any, function: Function, args: Any, times: int) -> Sample:
        began = time.perf_counter()
        for _ in range(times):
            answer = function(*args)
        return answer, time.perf_counter() - began

    def close(self) -> None:
        pass


async def _repeat(contender: Any, function: Function, args: Any, times: int) -> Sample:
    async with contender.around():
        began = time.perf_counter()
        for _ in range(times):
            answer = await function(*args)
        return answer, time.perf_counter() - began


class Driven(Sync):
    """Coroutines under vinyl.drive, with no loop."""

    def finish(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        import vinyl

        return vinyl.drive(coroutine)

    def sample(self, contender: Any, function: Function, args: Any, times: int) -> Sample:
        return self.finish(_repeat(contender, function, args, times))


class Looped(Sync):
    """Coroutines on an event loop, the same one from open() to close()."""

    def __init__(self, factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self._runner = asyncio.Runner(loop_factory=factory)

    def finish(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(coroutine)

    def sample(self, contender: Any, function: Function, args: Any, times: int) -> Sample:
        return self.finish(_repeat(contender, function, args, times))

    def close(self) -> None:
        self._runner.close()


def mode_of(name: str) -> Sync:
    if name == "uvloop":
        import uvloop

        return Looped(uvloop.new_event_loop)
    if name == "asyncio":
        return Looped(asyncio.new_event_loop)
    return {"sync": Sync, "driven": Driven}[name]()


class Lane:
    """``open`` may raise whatever a library raises that is not there or does not work here."""

    def __init__(self, entry: Entry, database: dict[str, Any]) -> None:
        self.entry = entry
        self.name = entry.name
        self.contender = import_module(f"contenders.{entry.module}").Contender(database)
        self.mode = mode_of(entry.mode)

    def open(self) -> None:
        self.mode.finish(self.contender.open())

    def close(self) -> None:
        self.mode.finish(self.contender.close())
        self.mode.close()

    def pid(self) -> int:
        return self.contender.pid()

    def cannot(self, work: Work) -> str:
        """Why it has no such work; empty when it has."""
        if work.method in self.contender.cannot:
            return self.contender.cannot[work.method]
        here = hasattr(self.contender, work.method) or hasattr(self.contender, "answer")
        return "" if here else "not written"

    def answer(self, work: Work) -> Any:
        """What it answers, made comparable."""
        own = getattr(self.contender, "answer", None)
        found = own(work) if own is not None else self.sample(work, 1)[0]
        return self.contender.comparable(work.shape, found)

    def sample(self, work: Work, times: int) -> Sample:
        gc.collect()
        own = getattr(self.contender, "sample", None)  # another process, with its own clock
        if own is not None:
            return own(work, times)
        method = getattr(self.contender, work.method)
        return self.mode.sample(self.contender, method, work.args, times)
