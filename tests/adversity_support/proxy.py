"""A TCP proxy before the private PostgreSQL server, to do to a connection what networks do.

It runs in a thread with a loop of its own. Towards the server it uses the unix socket, where every
role is trusted.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Self

from private_postgres import PrivatePostgres

#: (bytes of the server, offset of the first one in the connection's stream) -> bytes to pass on
Change = Callable[[bytes, int], bytes]
CANCEL_REQUEST = bytes([0, 0, 0, 16, 4, 210, 22, 46])


class Line:
    """One connection through the proxy; all to be called in the proxy's thread."""

    def __init__(self, proxy: Proxy, ends: list[asyncio.StreamWriter]) -> None:
        self.proxy = proxy
        self.ends = ends
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.cut_at = proxy.cut_at
        self.passed = 0  # bytes of the server
        self.is_cancel = False

    def cut(self) -> None:
        for writer in self.ends:
            with contextlib.suppress(Exception):
                writer.transport.abort()

    async def carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, of_server: bool
    ) -> None:
        try:
            while data := await reader.read(65536):
                await self.flowing.wait()
                if not of_server and data.startswith(CANCEL_REQUEST):
                    self.is_cancel = True
                    if self.proxy.lose_cancels:
                        self.proxy.lose_cancels -= 1
                        break
                await self._pass(data, writer, of_server=of_server)
            if of_server and self.proxy.hold_ends:
                await asyncio.Event().wait()
        except (ConnectionError, OSError):
            pass
        finally:
            self.cut()

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter, *, of_server: bool) -> None:
        proxy = self.proxy
        if proxy.delay:
            await asyncio.sleep(proxy.delay)
        if of_server and proxy.change is not None:
            data = proxy.change(data, self.passed)
        if of_server and self.cut_at is not None and self.passed + len(data) >= self.cut_at:
            writer.write(data[: max(0, self.cut_at - self.passed)])
            await writer.drain()
            proxy.cuts += 1
            # Gently, so that what was written arrives; `carry` aborts afterwards.
            raise ConnectionAbortedError
        if of_server:
            self.passed += len(data)
        size = proxy.fragment or len(data)
        for at in range(0, len(data), size):
            writer.write(data[at : at + size])
            await writer.drain()
            if proxy.fragment:
                await asyncio.sleep(0)
                await self.flowing.wait()


class Proxy:
    """A context manager. Its settings are for what passes from now on.

    ``fragment``: bytes per packet. ``delay``: seconds before each. ``change``: garbles what the
    server says. ``cut_at``: a new connection is cut after that many bytes of the server.
    ``hold_ends``: the client does not learn that the server has closed.
    ``lose_cancels``: so many requests to cancel come to nothing, as one does that the server meets
    before it has begun the statement.
    ``freeze()``: the connections that are open now carry nothing any more, new ones do.
    """

    def __init__(self, server: PrivatePostgres) -> None:
        self.server = server
        self.port = 0
        self.fragment = 0
        self.delay = 0.0
        self.change: Change | None = None
        self.cut_at: int | None = None
        self.cuts = 0
        self.hold_ends = False
        self.lose_cancels = 0
        self.lines: list[Line] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: set[asyncio.Task[Any]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, coroutine: Any) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result(30)

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        # asyncio leaves open what a server has taken and not made a transport of when it is closed.
        for listening in self._listener.sockets:
            self._loop.remove_reader(listening.fileno())
        # What was taken is no task of ours at once, and a transport ends at a later turn: until
        # there has been nothing for a while.
        quiet = 0
        while quiet < 5:
            for line in self.lines:
                line.flowing.set()
                line.cut()
            for task in self._tasks:
                task.cancel()
            await asyncio.sleep(0)
            quiet = 0 if asyncio.all_tasks() - {asyncio.current_task()} else quiet + 1
        self._listener.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            path = f"{self.server.host}/.s.PGSQL.{self.server.port}"
            back_reader, back_writer = await asyncio.open_unix_connection(path)
            line = Line(self, [writer, back_writer])
            self.lines.append(line)
            try:
                await asyncio.gather(
                    line.carry(reader, back_writer, of_server=False),
                    line.carry(back_reader, writer, of_server=True),
                )
            finally:
                line.cut()
                self.lines.remove(line)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._tasks.discard(task)

    def freeze(self) -> int:
        """Strands the connections that are open; how many."""

        async def stop() -> int:
            for line in self.lines:
                line.flowing.clear()
            return len(self.lines)

        return self._call(stop())

    def thaw(self) -> None:
        async def go() -> None:
            for line in self.lines:
                line.flowing.set()

        self._call(go())

    def cut(self) -> None:
        """Ends the connections that are open, with a reset."""

        async def all_of_them() -> None:
            for line in list(self.lines):
                line.cut()

        self._call(all_of_them())


def garbler(seed: int, first: int = 0, chance: float = 0.002) -> Change:
    """Changes a byte here and there, none before the stream's byte ``first``."""
    dice = random.Random(seed)

    def change(data: bytes, offset: int) -> bytes:
        if offset + len(data) <= first:
            return data
        changed = bytearray(data)
        for at in range(len(changed)):
            if offset + at >= first and dice.random() < chance:
                changed[at] = dice.randrange(256)
        return bytes(changed)

    return change
