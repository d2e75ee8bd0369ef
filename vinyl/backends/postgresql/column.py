"""What a cursor's description says of a column."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["Column"]


class Column:
    """One entry of ``cursor.description``: DB-API's seven items, by index and by name.

    The names and meanings are those of psycopg's Column. ``types`` is the
    TypesRegistry of the connection's adapters.
    """

    __slots__ = ("_fmod", "_fsize", "_type", "name", "type_code")

    null_ok = None

    def __init__(self, name: str, type_code: int, fmod: int, fsize: int, types: Any) -> None:
        self.name = name
        self.type_code = type_code
        self._type = types.get(type_code)
        self._fmod = fmod
        self._fsize = fsize

    def _ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        ask = getattr(self._type, method, None)  # psycopg 3.1 has none of these
        return ask(*args, **kwargs) if ask is not None else None

    @property
    def display_size(self) -> int | None:
        """The length of a string type, as in varchar(n)."""
        return self._ask("get_display_size", self._fmod)

    @property
    def internal_size(self) -> int | None:
        """The size in bytes of a fixed-size type."""
        return self._fsize if self._fsize >= 0 else None

    @property
    def precision(self) -> int | None:
        return self._ask("get_precision", self._fmod)

    @property
    def scale(self) -> int | None:
        return self._ask("get_scale", self._fmod)

    @property
    def type_display(self) -> str:
        """The type's name with its modifiers, as ``varchar(42)``; its oid when it is not known."""
        shown = self._ask("get_type_display", oid=self.type_code, fmod=self._fmod)
        if shown is None and self._type is not None:
            shown = self._type.name
        return str(self.type_code) if shown is None else str(shown)

    def _items(self) -> tuple[Any, ...]:
        return (
            self.name,
            self.type_code,
            self.display_size,
            self.internal_size,
            self.precision,
            self.scale,
            self.null_ok,
        )

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int | slice) -> Any:
        return self._items()[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Column):
            return self._items() == other._items()
        return NotImplemented

    def __hash__(self) -> int:
        return hash((self.name, self.type_code))

    def __repr__(self) -> str:
        return f"<Column {self.name!r}, type: {self.type_display} (oid: {self.type_code})>"
