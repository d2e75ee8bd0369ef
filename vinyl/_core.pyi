"""The types of the core in C (src/core, src/fiber, src/session, src/pool)."""

from collections.abc import (
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
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
    direct: bool
    def __init__(
        self,
        model: type,
        state: type,
        names: tuple[str, ...],
        guard: Unchanged | None = None,
        /,
    ) -> None: ...

class Parameters:
    def __init__(
        self,
        add: bool,
        fields: tuple[tuple[Any, ...], ...],
        has_key: bool,
        low: Any = None,
        high: Any = None,
        in_turn: bool = False,
    ) -> None: ...
    def of(self, instance: Any, connection: Any, /) -> tuple[Any, ...] | None: ...

class Initial:
    def __init__(
        self,
        hydrator: Hydrator,
        model: type,
        fields: Any,
        names: tuple[str, ...],
        defaults: tuple[Callable[[], Any], ...],
        signals: tuple[Any, ...],
        deferred: Any,
        guard: Unchanged,
        caches: bool,
        /,
    ) -> None: ...

class KnownRelation:
    def __init__(self, attname: str, cache_name: str, instances: dict[Any, Any], /) -> None: ...
    def key(self, instance: Any, /) -> Any: ...
    def relate(self, instance: Any, /) -> bool: ...
    def related(self, instance: Any, /) -> bool: ...
    missed: bool

class RowPlan:
    def __init__(
        self,
        root: tuple[Any, ...],
        db: str,
        fetch_mode: Any,
        converters: dict[int, tuple[list[Any], Any]],
        connection: Any,
        annotations: tuple[tuple[str, int], ...],
        known: tuple[tuple[Any, ...], ...],
    ) -> None: ...
    def make(self, rows: Iterable[Any], most: int = -1, /) -> list[Any]: ...

class ConvertedRows(Iterator[list[Any]]):
    def __init__(
        self,
        rows: Iterable[Any],
        converters: dict[int, tuple[list[Any], Any]],
        connection: Any,
    ) -> None: ...
    def __next__(self) -> list[Any]: ...

class Shapes:
    def __init__(self, plain: frozenset[type], q: type, model: type, longest: int, /) -> None: ...
    def of_filter(self, q: Any, /) -> tuple[tuple[Any, ...], list[Any]] | None: ...
    def of_call(
        self, name: str, kwargs: dict[str, Any], /
    ) -> tuple[tuple[Any, ...], list[Any]] | None: ...

class Binder:
    def __init__(self, parts: tuple[tuple[Any, ...], ...], /) -> None: ...
    def __call__(self, values: tuple[Any, ...] | list[Any], /) -> tuple[Any, ...] | None: ...

class Unchanged:
    def __init__(self, *classes: type) -> None: ...
    def __call__(self) -> bool: ...

def aggregates_key(
    expressions: dict[str, Any], kinds: frozenset[type], f: type, star: type, /
) -> tuple[Any, ...] | None: ...
def install_init(init: Any, find: Callable[[type], Initial | None], /) -> None: ...
def model_init(self: Any, *args: Any, **kwargs: Any) -> None: ...
def read_attribute(self: Any, instance: Any, cls: Any = None, /) -> Any: ...
def value_rows(
    rows: Iterable[Any],
    kind: int,
    shape: Any,
    converters: dict[int, tuple[list[Any], Any]],
    connection: Any,
    most: int = -1,
    /,
) -> list[Any]: ...
def reads_cells(rows: object, /) -> bool: ...
def plain_column(
    objects: list[Any], attname: str, types: tuple[type, ...], test: Any, wrap: Any, /
) -> list[Any] | None: ...
def is_aware(datetime: Any, /) -> bool: ...
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
def together(calls: Sequence[Callable[[], Any]], /) -> list[Any]: ...
def stats() -> dict[str, int]: ...
def current_scope() -> Scope | None: ...
def exchange_scope(scope: Scope | None, /) -> Scope | None: ...
def pin_scope(scope: Scope | None, /) -> None: ...
def is_pinned() -> bool: ...
def release_turn() -> None: ...
def check_session(alias: str, /) -> None: ...
def begin_block() -> Any: ...
def end_block(block: Any, /) -> None: ...
def seal_block(block: Any, /) -> None: ...
def settle_block(block: Any, /) -> None: ...
def hide_blocks() -> Any: ...
def show_blocks(hidden: Any, /) -> None: ...
