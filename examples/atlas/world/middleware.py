"""Counts and times the statements of a request, for the foot of each page."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from django.db import connection
from django.http import HttpRequest, HttpResponse


class StatementLog:
    """What a request asked of the database: ``entries`` are (SQL, milliseconds).

    An execute wrapper, as ``connection.execute_wrapper`` takes it.
    """

    do_not_call_in_templates = True

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.entries: list[tuple[str, float]] = []

    def __call__(
        self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict
    ) -> Any:
        began = time.perf_counter()
        try:
            return execute(sql, params, many, context)
        finally:
            self.entries.append((sql, (time.perf_counter() - began) * 1e3))

    @property
    def milliseconds(self) -> float:
        """Since the request came in."""
        return (time.perf_counter() - self.started) * 1e3


def statement_log(
    get_response: Callable[[HttpRequest], Awaitable[HttpResponse]],
) -> Callable[[HttpRequest], Awaitable[HttpResponse]]:
    """The middleware: ``request.statements`` is the request's StatementLog."""

    async def middleware(request: HttpRequest) -> HttpResponse:
        request.statements = StatementLog()
        with connection.execute_wrapper(request.statements):
            return await get_response(request)

    return middleware


statement_log.async_capable = True
statement_log.sync_capable = False
