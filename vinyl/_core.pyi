"""The types of the core in C (src/core, src/fiber, src/session, src/pool)."""

from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Iterator
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

PLAIN: int
LOOP: int
DRIVEN: int
FIBER: int

class Operation(Coroutine[Any, Any, R], Generic[R]):
    def __init__(
        self,
        fn: Callable[..., R],
        args: tuple[Any, ...] = ...,
        kwargs: dict[str, Any] | None = None,
    ) -> None: ...
    def __await__(self) -> Generator[Any, Any, R]: ...
    def send(self, value: Any, /) -> Any: ...
    def throw(self, *args: Any) -> Any: ...
    def close(self) -> None: ...

class Scope:
    parent: Scope | None
    sessions: dict[str, Any]
    def in_block(self) -> bool: ...

class SessionMap:
    base: Any
    def __init__(
        self,
        base: Any,
        aliases: dict[str, str],
        share: Callable[[Scope, str, Any], None] | None = None,
    ) -> None: ...

class Pool:
    name: str
    config: Any
    def __init__(
        self,
        driver: Any,
        config: Any,
        *,
        name: str,
        min_size: int = 1,
        max_size: int = 10,
        timeout: float = 30.0,
        max_waiting: int = 0,
        max_lifetime: float = 3600.0,
        max_idle: float = 600.0,
        reconnect_timeout: float = 300.0,
        num_workers: int = 3,
        threads: bool = ...,
    ) -> None: ...
    def stats(self) -> dict[str, int]: ...
    def close(self) -> None: ...

class Hydrator:
    def __init__(self, model: type, state: type, names: tuple[str, ...]) -> None: ...

class RowPlan:
    def __init__(
        self,
        root: tuple[Any, ...],
        db: str,
        fetch_mode: Any,
        converters: dict[int, tuple[list[Any], Any]],
        connection: Any,
        annotations: tuple[tuple[str, int], ...],
        known: tuple[tuple[str, str, dict[Any, Any], tuple[int, ...]], ...],
    ) -> None: ...
    def make(self, rows: Iterable[Any], /) -> list[Any]: ...

class ConvertedRows(Iterator[list[Any]]):
    def __init__(
        self,
        rows: Iterable[Any],
        converters: dict[int, tuple[list[Any], Any]],
        connection: Any,
    ) -> None: ...
    def __next__(self) -> list[Any]: ...

def value_rows(
    rows: Iterable[Any],
    kind: int,
    shape: Any,
    converters: dict[int, tuple[list[Any], Any]],
    connection: Any,
    /,
) -> list[Any]: ...
def plain_column(
    objects: list[Any], attname: str, types: tuple[type, ...], test: Any, wrap: Any, /
) -> list[Any] | None: ...
def split_new(
    objects: list[Any], model: type, pk_attname: str, has_relations: bool, /
) -> tuple[list[Any], list[Any]] | None: ...
def assign_rows(
    objects: list[Any], attnames: tuple[str, ...], rows: list[Any], db: str, /
) -> None: ...
def run(fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Operation[R]: ...
def await_(awaitable: Awaitable[R], /) -> R: ...
def drive(coro: Coroutine[Any, Any, R], /) -> R: ...
def where() -> int: ...
def written_in_coroutine(depth: int = 0, /) -> bool: ...
def awaited_expression(depth: int = 0, /) -> bool: ...
def stats() -> dict[str, int]: ...
def current_scope() -> Scope | None: ...
def exchange_scope(scope: Scope | None, /) -> Scope | None: ...
def pin_scope(scope: Scope | None, /) -> None: ...
def is_pinned() -> bool: ...
def release_turn() -> None: ...
def check_session(alias: str, /) -> None: ...
def begin_block() -> Any: ...
def end_block(block: Any, /) -> None: ...
def hide_blocks() -> Any: ...
def show_blocks(hidden: Any, /) -> None: ...
