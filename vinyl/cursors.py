"""``vinyl.cursor``: Django's cursor, awaited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Any

from django.db import DEFAULT_DB_ALIAS, NotSupportedError, connections

from vinyl._core import DRIVEN, LOOP, Operation, where
from vinyl.aliases import require
from vinyl.exceptions import NotFetched

ITER_CHUNK = 100


def _named(name: str) -> Any:
    """Calls a method of Django's cursor, under its name for messages."""

    def call(method: Callable[..., Any], *args: Any) -> Any:
        return method(*args)

    call.__qualname__ = f"cursor.{name}"
    return call


def _returning_cursor(name: str) -> Any:
    def call(cursor: AsyncCursor, method: Callable[..., Any], *args: Any) -> AsyncCursor:
        method(*args)
        return cursor

    call.__qualname__ = f"cursor.{name}"
    return call


_execute, _executemany = map(_returning_cursor, ("execute", "executemany"))
_fetchone, _fetchmany, _fetchall = map(_named, ("fetchone", "fetchmany", "fetchall"))


class AsyncCursor:
    """Django's CursorWrapper (or CursorDebugWrapper) with its I/O awaited."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def execute(self, sql: Any, params: Any = None) -> Operation[Any]:
        return Operation(_execute, (self, self._cursor.execute, sql, params))

    def executemany(self, sql: Any, param_list: Any) -> Operation[Any]:
        return Operation(_executemany, (self, self._cursor.executemany, sql, param_list))

    def callproc(self, procname: str, params: Any = None, kparams: Any = None) -> Operation[Any]:
        return Operation(self._cursor.callproc, (procname, params, kparams))

    def fetchone(self) -> Operation[Any]:
        return Operation(_fetchone, (self._cursor.fetchone,))

    def fetchmany(self, size: int | None = None) -> Operation[Any]:
        return Operation(_fetchmany, (self._cursor.fetchmany, *(() if size is None else (size,))))

    def fetchall(self) -> Operation[Any]:
        return Operation(_fetchall, (self._cursor.fetchall,))

    def close(self) -> Operation[Any]:
        return Operation(self._cursor.close)

    def copy(self, sql: Any, params: Any = None) -> AsyncCopy:
        """PostgreSQL's COPY: ``async with cur.copy("COPY t FROM STDIN") as copy: …``.

        Raises NotSupportedError on other engines.
        """
        return AsyncCopy(self._cursor, sql, params)

    async def __aiter__(self) -> AsyncIterator[Any]:
        while rows := await self.fetchmany(ITER_CHUNK):
            for row in rows:
                yield row

    @property
    def description(self) -> Any:
        return self._cursor.description

    @property
    def rowcount(self) -> int:
        return self._cursor.rowcount

    @property
    def lastrowid(self) -> Any:
        return self._cursor.lastrowid

    def __repr__(self) -> str:
        return f"<AsyncCursor on {self._cursor.db.alias!r}>"


class AsyncCopy:
    """A running COPY. Nothing else runs on its connection until the block ends.

    Leaving the block with an exception makes a COPY … FROM STDIN fail on the server, so that
    nothing of it is stored, and cancels a COPY … TO STDOUT.
    """

    def __init__(self, cursor: Any, sql: Any, params: Any) -> None:
        self._cursor = cursor
        self._statement = (sql, params)
        self._copy: Any = None

    async def __aenter__(self) -> AsyncCopy:
        await Operation(self._start)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await Operation(self._run, (self._copy.__exit__, *exc))

    def write(self, data: str | bytes) -> Operation[None]:
        """Sends a part of the data, cut anywhere, in the format of the statement."""
        return Operation(self._run, (self._copy.write, data))

    def read(self) -> Operation[bytes]:
        """The next part of the data; empty at the end."""
        return Operation(self._run, (self._copy.read,))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self.read():
            yield data

    async def write_row(self, row: Sequence[Any]) -> None:
        """Sends a row of values, in the text format or, as the statement says, the binary one."""
        # Rows are kept and sent together: most of them need no fiber.
        if self._run(self._copy._keep_row, row):
            await Operation(self._run, (self._copy._send_rows,))

    async def rows(self) -> AsyncIterator[tuple[Any, ...]]:
        """The rows as tuples: of text, or of what ``set_types()`` has named."""
        while rows := await Operation(self._run, (self._copy._read_rows, ITER_CHUNK)):
            for row in rows:
                yield row

    def read_row(self) -> Operation[tuple[Any, ...] | None]:
        """The next row; None at the end."""
        return Operation(self._run, (self._copy.read_row,))

    def set_types(self, types: Sequence[int | str]) -> None:
        """The types of the columns, by names or oids."""
        self._run(self._copy.set_types, types)

    def _start(self) -> None:
        database = self._cursor.db
        if database.vendor != "postgresql":
            raise NotSupportedError(f"{database.display_name} has no COPY: only PostgreSQL has.")
        self._copy = self._run(self._cursor.copy, *self._statement)
        self._run(self._copy.__enter__)

    def _run(self, method: Callable[..., Any], *args: Any) -> Any:
        with self._cursor.db.wrap_database_errors:
            return method(*args)


class CursorContext:
    """``async with`` in coroutines; ``with``, giving Django's cursor, everywhere else."""

    def __init__(self, using: str | None) -> None:
        self._using = using or DEFAULT_DB_ALIAS
        self._cursor: Any = None

    async def __aenter__(self) -> AsyncCursor:
        self._cursor = await Operation(connections[require(self._using)].cursor)
        return AsyncCursor(self._cursor)

    async def __aexit__(self, *exc: object) -> None:
        cursor, self._cursor = self._cursor, None
        await Operation(cursor.close)

    def __enter__(self) -> Any:
        if where() in (LOOP, DRIVEN):
            raise NotFetched(
                "In a coroutine vinyl.cursor() is entered with `async with`; run synchronous "
                "code that enters it with `with` in vinyl.run()."
            )
        self._cursor = connections[self._using].cursor()
        return self._cursor.__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> Any:
        cursor, self._cursor = self._cursor, None
        return cursor.__exit__(exc_type, exc, tb)


def cursor(using: str | None = None) -> CursorContext:
    """A raw cursor: ``async with vinyl.cursor() as cur: await cur.execute(sql, params)``."""
    return CursorContext(using)
