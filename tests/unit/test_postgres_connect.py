"""Opening a physical connection."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from fix_links import Links, rows

from vinyl import _core

pytestmark = pytest.mark.modes("asyncio", "uvloop")

PORT = "5432"


class Crowd:
    """A Unix socket with a server's name whose queue is full; then it leads to the server."""

    def __init__(self, directory: str, pg: Links) -> None:
        self.directory = directory
        self.pg = pg
        path = str(Path(directory, f".s.PGSQL.{PORT}"))
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(0)
        self.waiting: list[socket.socket] = []
        while True:
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            self.waiting.append(client)
            try:
                client.connect(path)
            except BlockingIOError:
                break

    async def disperse(self) -> asyncio.Server:
        """Whoever waits is let in."""
        for client in self.waiting:
            client.close()
        return await asyncio.start_unix_server(self._serve, sock=self.listener)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = self.pg.server
        to_server = await asyncio.open_unix_connection(f"{server.host}/.s.PGSQL.{server.port}")
        await asyncio.gather(_relay(reader, to_server[1]), _relay(to_server[0], writer))

    def close(self) -> None:
        for client in self.waiting:
            client.close()
        self.listener.close()


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@pytest.fixture
def crowd(pg: Links) -> Iterator[Crowd]:
    with TemporaryDirectory() as directory:
        crowd = Crowd(directory, pg)
        yield crowd
        crowd.close()


async def test_a_full_queue_is_waited_for(pg: Links, crowd: Crowd) -> None:
    config = pg.config(pg.params(host=crowd.directory, port=PORT))
    link = pg.link(pg.pool(config))
    task = asyncio.create_task(_core.run(rows, link, "SELECT 1"))
    for _ in range(3):
        await asyncio.sleep(0)  # it has tried
    assert not task.done()
    server = await crowd.disperse()
    assert await task == [(1,)]
    await _core.run(link.close)
    pg.close()
    server.close()
    await server.wait_closed()


async def test_not_for_ever(pg: Links, crowd: Crowd) -> None:
    config = pg.config(pg.params(host=crowd.directory, port=PORT), connect_timeout=0.05)
    with pytest.raises(psycopg.OperationalError, match="temporarily unavailable"):
        await _core.run(rows, pg.link(pg.pool(config)), "SELECT 1")


async def test_a_cancel_ends_the_wait(pg: Links, crowd: Crowd) -> None:
    pool = pg.pool(pg.config(pg.params(host=crowd.directory, port=PORT)))
    task = asyncio.create_task(_core.run(rows, pg.link(pool), "SELECT 1"))
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pool.stats()["pool_size"] == 0
