"""For the tests of src/row: psycopg as Django configures it, beside ours, on a live server."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

import psycopg
from django.db.backends.postgresql.psycopg_any import get_adapters_template
from private_postgres import PrivatePostgres
from psycopg.adapt import AdaptersMap
from psycopg.types import TypeInfo
from psycopg.types.hstore import register_hstore
from vinyl._postgres import _Codec

DATABASE = "vinyl_row"
PARAMETERS = ("TimeZone", "DateStyle", "IntervalStyle")


@dataclass
class Outcome:
    """What decoding or binding gave: a value, or the class of the error."""

    value: Any = None
    error: type[Exception] | None = None

    @classmethod
    def of(cls, function: Any, *args: Any) -> Outcome:
        try:
            return cls(function(*args))
        except Exception as error:
            return cls(error=type(error))

    @property
    def shown(self) -> tuple[Any, ...]:
        """Tells 1 from True, Decimal("1.0") from Decimal("1.00"), fold 0 from 1, NaN from 0."""
        return (type(self.value), repr(self.value), self.error)


class Both:
    """A psycopg connection configured as Django does it, and a codec of ours beside it."""

    def __init__(self, connection: psycopg.Connection[Any], timezone: tzinfo | None) -> None:
        self.connection = connection
        connection._adapters = AdaptersMap(get_adapters_template(timezone is not None, timezone))
        hstore = TypeInfo.fetch(connection, "hstore")
        citext = TypeInfo.fetch(connection, "citext")
        assert hstore is not None
        assert citext is not None
        register_hstore(hstore, connection)
        TypeInfo("citext", 0, citext.array_oid).register(connection)
        self.codec = _Codec(connection.adapters)
        self.sync()

    def sync(self) -> None:
        """Tells the codec the server's parameters, as the driver does."""
        for name in PARAMETERS:
            value = self.connection.info.parameter_status(name)
            self.codec.set_parameter(name, value)

    def set(self, name: str, value: str) -> None:
        self.connection.execute(f"SET {name} = '{value}'")
        self.sync()

    def raw(self, type_name: str, texts: list[str]) -> Iterator[tuple[int, Any, Any]]:
        """Each text as a value of the type: (oid, in text format, in binary format)."""
        query = f"SELECT v::{type_name} FROM unnest(%b::text[]) WITH ORDINALITY u(v, n) ORDER BY n"
        results = []
        for binary in (False, True):
            cursor = psycopg.Cursor(self.connection)
            cursor.execute(query, [texts], binary=binary)
            assert cursor.pgresult is not None
            results.append(cursor.pgresult)
        for row in range(len(texts)):
            text, binary_ = (result.get_value(row, 0) for result in results)
            yield results[0].ftype(0), text, binary_

    def load(self, oid: int, data: bytes) -> Outcome:
        """What psycopg makes of a value in text format."""
        transformer = psycopg.adapt.Transformer(self.connection)
        return Outcome.of(transformer.get_loader(oid, psycopg.pq.Format.TEXT).load, data)

    def decode(self, oid: int, binary: bool, data: bytes) -> Outcome:
        return Outcome.of(self.codec.decode, oid, binary, data)


@contextmanager
def both(
    server: PrivatePostgres, timezone: tzinfo | None, server_zone: str = "UTC"
) -> Iterator[Both]:
    """Both sides on a database of their own, with hstore and citext."""
    if DATABASE not in server.psql("SELECT datname FROM pg_database").split():
        server.psql(f"CREATE DATABASE {DATABASE}")
        for name in ("hstore", "citext"):
            server.psql(f"CREATE EXTENSION IF NOT EXISTS {name}", DATABASE)
    with psycopg.connect(
        server.conninfo(DATABASE),
        autocommit=True,
        client_encoding="UTF8",
        options=f"-c TimeZone={server_zone}",
        cursor_factory=psycopg.ClientCursor,
    ) as connection:
        yield Both(connection, timezone)


def random_text(rng: random.Random, size: int = 12) -> str:
    """Text with what quoting and encoding stumble over."""
    alphabet = "ab Z9_'\"\\{}()[],;=>\t\n\x01\x7f\xa0ßé€\u2003\u3000😀%$-+"
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(0, size)))
