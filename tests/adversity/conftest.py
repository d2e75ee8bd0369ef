from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from adversity_support.proxy import Proxy
from fix_engine import DATABASE, Engine, installed
from private_postgres import PrivatePostgres


@pytest.fixture
def proxy(postgres_server: PrivatePostgres) -> Iterator[Proxy]:
    with Proxy(postgres_server) as proxy:
        yield proxy


@pytest.fixture
def proxied(engine: Engine, proxy: Proxy) -> Iterator[Engine]:
    """The PostgreSQL engine, its alias ``default`` reached through ``proxy``.

    The proxy ends first: what it has stranded is gone before the engine looks for what is left.
    """
    assert engine.server is not None
    entry = engine.conf | {"HOST": "127.0.0.1", "PORT": str(proxy.port), "NAME": DATABASE}
    with installed({"default": entry}):
        yield Engine("postgresql", "default", {"default": entry}, engine.server)


@pytest.fixture
def silent(engine: Engine) -> Iterator[str]:
    """An alias whose server takes connections and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        entry = engine.conf | {
            "HOST": "127.0.0.1",
            "PORT": str(listener.getsockname()[1]),
            "OPTIONS": {"connect_timeout": 2},
        }
        with installed({"default": entry}):
            yield "default"
