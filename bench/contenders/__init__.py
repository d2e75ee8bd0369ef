"""One contender, one file.  Each file has a class ``Contender`` with a method for each work.

Methods are ``async def``, but for Django's synchronous one's.  What a contender lacks is not
timed, and the table says so with the words of ``cannot``.
"""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, ClassVar

from work import COLUMNS


class Base:
    """``entry`` is Django's of DATABASES.  Opened and closed in its mode."""

    engines: ClassVar[tuple[str, ...]] = ("sqlite", "postgresql")
    cannot: ClassVar[dict[str, str]] = {}  # a work's method: why not

    def __init__(self, entry: dict[str, Any]) -> None:
        self.entry = entry

    async def open(self) -> None:
        """Connects; loads what `save` and `bulk_update` write, for which nobody is timed."""

    async def close(self) -> None:
        """Gives back all that open() took."""

    def around(self) -> AbstractAsyncContextManager[Any]:
        """What is entered for a sample, before the clock starts."""
        return nullcontext()

    def pid(self) -> int:
        """The process whose memory the work takes."""
        return os.getpid()

    # How an answer is made comparable; nobody is timed for that.

    def row(self, found: Any) -> tuple[Any, ...]:
        """The columns, in the order of the table."""
        if isinstance(found, dict):
            return tuple(found.values())
        return tuple(found)

    def joined(self, found: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """An item and its maker: by default from one row with the columns of both."""
        columns = self.row(found)
        return columns[: len(COLUMNS)], columns[len(COLUMNS) :]

    def comparable(self, shape: str, answer: Any) -> Any:
        match shape:
            case "row":
                return self.row(answer)
            case "rows":
                return [self.row(each) for each in answer]
            case "dicts":
                return [dict(zip(each, self.row(each), strict=True)) for each in answer]
            case "joined":
                return [self.joined(each) for each in answer]
            case "grouped":
                return [
                    (self.row(maker), sorted(self.row(item) for item in items))
                    for maker, items in answer
                ]
            case "totals":
                count, total, mean, most = answer
                return int(count), int(total), float(mean), f"{float(most):.2f}"
        return answer
