"""Stand-ins for what a read inside a coroutine could not give at once."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NoReturn

from vinyl._core import Operation
from vinyl.exceptions import NotFetched
from vinyl.ownership import owned, owner


class Ready:
    """A value that is there already, for ``await ob.author`` on a fetched relation."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._value
        yield


class Known(int):
    """A number that took no I/O: plain for synchronous code, awaitable for who awaits it."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, Any]:
        return int(self)
        yield


class KnownTruth(Known):
    """The same for True and False."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, Any]:
        return bool(self)
        yield

    def __repr__(self) -> str:
        return repr(bool(self))


class Pending:
    """An unfetched relation: awaiting it fetches, every other use raises NotFetched.

    Unlike an un-awaited operation it may be dropped without a warning: a read
    that was never used has lost nothing.
    """

    __slots__ = ("_vinyl_args", "_vinyl_fetch", "_vinyl_label", "_vinyl_owner")

    def __init__(self, label: str, fetch: Callable[..., Any], *args: Any) -> None:
        put = object.__setattr__
        put(self, "_vinyl_label", label)
        put(self, "_vinyl_fetch", fetch)
        put(self, "_vinyl_args", args)
        put(self, "_vinyl_owner", owner())

    def __vinyl_operation__(self) -> Operation[Any]:
        return owned(self._vinyl_owner, self._vinyl_fetch, self._vinyl_args)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self.__vinyl_operation__().__await__()

    def __repr__(self) -> str:
        return f"<{self._vinyl_label}: not fetched, await it>"

    def __hash__(self) -> int:
        # asyncio.gather() looks for awaitables that it is given twice.
        return id(self)

    def __getattr__(self, name: str) -> NoReturn:
        raise not_fetched(self._vinyl_label)


def not_fetched(label: str) -> NotFetched:
    """The error for a relation or field used before it was awaited."""
    return NotFetched(
        f"{label} is not fetched yet: await it (`await ob.{label.rpartition('.')[2]}`), fetch it "
        "beforehand (select_related(), prefetch_related()), or run the synchronous code that "
        "needs it with vinyl.run()."
    )


def _refuse(self: Pending, *args: Any, **kwargs: Any) -> NoReturn:
    raise not_fetched(self._vinyl_label)


# fmt: off
_BINARY = (
    "add", "and", "divmod", "floordiv", "lshift", "matmul", "mod", "mul", "or", "pow", "rshift",
    "sub", "truediv", "xor",
)
_OTHERS = (
    "abs", "aenter", "aexit", "aiter", "anext", "bool", "bytes", "call", "ceil", "complex",
    "contains", "copy", "deepcopy", "delattr", "delitem", "enter", "eq", "exit", "float", "floor",
    "format", "fspath", "ge", "getitem", "getstate", "gt", "index", "int", "invert", "iter",
    "le", "len", "length_hint", "lt", "ne", "neg", "next", "pos", "reduce", "reduce_ex", "reversed",
    "round", "setattr", "setitem", "str", "trunc",
)
# fmt: on
for _name in [*_OTHERS, *(p + n for n in _BINARY for p in ("", "r", "i"))]:
    setattr(Pending, f"__{_name}__", _refuse)
