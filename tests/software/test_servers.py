"""The servers that people deploy with, each in a process of its own, on each engine."""

from __future__ import annotations

import signal
import socket
import struct
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fix_engine import Engine
from fix_project import Server
from fix_served import SERVERS, Visitor
from recordshop.models import Record
from recordshop.stock import RECORDS

from vinyl import _core

IN_STOCK = sum(bool(each[5]) for each in RECORDS)
TITLES = sorted(each[0] for each in RECORDS)
#: Of ASGI, in the two ways that the protocol's lifespan can be met: it is there, or it is not.
ASYNC_SERVERS = ("uvicorn", "uvicorn-bare", "granian", "daphne", "hypercorn")
#: Some end themselves with the signal once they have cleaned up.
ENDED = (0, -signal.SIGTERM)
#: Closed by a RST, as a client that is gone, not one that has said goodbye.
ABORT = struct.pack("ii", 1, 0)


def visit_everything(server: Server, name: str) -> None:
    """Pages of each kind: asynchronous, synchronous, streamed, the admin, DRF, Ninja."""
    is_async = name in ASYNC_SERVERS
    visitor = Visitor(server)
    stock = visitor.json("/stock")
    assert (len(stock["records"]), stock["where"]) == (
        IN_STOCK,
        _core.LOOP if is_async else _core.DRIVEN,
    )
    stock = visitor.json("/sync-stock")
    assert (len(stock["records"]), stock["where"]) == (
        IN_STOCK,
        _core.FIBER if is_async else _core.PLAIN,
    )
    for path in ("/stream", "/sync-stream"):
        assert sorted(visitor.get(path).split("\n")[:-1]) == TITLES
    visitor.log_in("admin")
    assert visitor.json("/basket")["count"] == 1
    assert visitor.json("/counter")["count"] == 2
    assert "12 records" in visitor.get("/admin/recordshop/record/")
    assert visitor.json("/rest/records/", page=3, format="json")["count"] == 12
    record = visitor.json("/ninja/records", copies__gt=7)[0]
    assert record["artist"]["name"] == "Keith Jarrett"
    sold = visitor.post(f"/ninja/sync-sale/{record['id']}")
    assert sold == '{"copies": 7, "by": "admin"}'


@pytest.mark.parametrize("name", SERVERS)
def test_each_server(name: str, engine: Engine, served: Any) -> None:
    with served(name) as server:
        visit_everything(server, name)
        assert Visitor(server).json("/threads")["started"] == 0 or name not in ASYNC_SERVERS
        # From here on as a supervisor sees it.  That no connection is left is seen by `engine`.
        assert server.stop() in ENDED
    assert server.log.read_text() == ""


def test_a_thousand_requests_start_no_thread(engine: Engine, served: Any) -> None:
    """Asynchronous and synchronous views, the admin, sessions and auth, eight at a time."""
    with served("uvicorn") as server:
        visit_everything(server, "uvicorn")
        before = Visitor(server).json("/threads")
        paths = ("/stock", "/sync-stock", "/basket", "/counter", "/admin/recordshop/record/")

        def hundred_and_twenty_five(_number: int) -> list[int]:
            visitor = Visitor(server)
            visitor.log_in("admin")
            for number in range(124):
                visitor.get(paths[number % 5])
            return [visitor.json("/counter")["count"]]

        with ThreadPoolExecutor(8) as visitors:
            counts = list(visitors.map(hundred_and_twenty_five, range(8)))
        # 25 of /basket and of /counter, and the last one: nobody has another's session.
        assert counts == [[51]] * 8
        assert Visitor(server).json("/threads") == before
        assert before["started"] == 0
    assert server.log.read_text() == ""


def go_away(server: Server, path: str, count: int, *, at_once: int = 10) -> None:
    """``count`` clients ask for ``path`` and go away while their request holds a connection."""
    visitor = Visitor(server)

    def in_use() -> int:
        stats = visitor.json("/pool")
        return stats["pool_size"] - stats["pool_available"]

    for _round in range(count // at_once):
        clients = []
        for _client in range(at_once):
            client = socket.create_connection(("127.0.0.1", server.port))
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            clients.append(client)
        server.until(lambda: in_use() == at_once)
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
            client.close()
        server.until(lambda: in_use() == 0)


@pytest.mark.parametrize("path", ["/sell-slowly", "/sync-sell-slowly"])
def test_two_hundred_that_go_away(path: str, engine: Engine, served: Any) -> None:
    with served("uvicorn") as server:
        go_away(server, path, 200)
        stats = Visitor(server).json("/pool")
        assert stats["pool_available"] == stats["pool_size"] <= stats["pool_max"]
        assert stats["requests_waiting"] == 0
        # What they did is undone, and all connections are of use.
        assert len(Visitor(server).json("/stock")["records"]) == IN_STOCK
    assert Record.objects.filter(copies=0).count() == len(RECORDS) - IN_STOCK
    assert server.log.read_text() == ""


@pytest.mark.parametrize("name", ["granian", "daphne", "hypercorn"])
def test_those_that_go_away_elsewhere(name: str, engine: Engine, served: Any) -> None:
    with served(name) as server:
        go_away(server, "/sell-slowly", 20)
        assert len(Visitor(server).json("/stock")["records"]) == IN_STOCK
        assert server.stop() in ENDED


def test_what_needs_a_loop_says_so_under_wsgi(engine: Engine, served: Any) -> None:
    with served("gunicorn") as server, pytest.raises(urllib.error.HTTPError, match="500"):
        Visitor(server).get("/sell-slowly")
    assert "asyncio.sleep() was called where no event loop runs" in server.log.read_text()
    assert Record.objects.filter(copies=0).count() == len(RECORDS) - IN_STOCK
