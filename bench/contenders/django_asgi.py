"""Django's own async API as in a request under ASGI: a thread of its own for each call.

Django's handler runs each request in a ThreadSensitiveContext, and when it is over gives its
connections back, to a pool where there is one: with SQLite they are closed and opened again.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import close_old_connections
from work import WORKS

from contenders import django_async


def as_request(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(method)
    async def request(*args: Any) -> Any:
        async with ThreadSensitiveContext():
            answer = await method(*args)
            await sync_to_async(close_old_connections)()
            return answer

    return request


class Contender(django_async.Contender):
    alias = "pooled"

    async def tasks(self, count: int) -> Any:
        return await asyncio.gather(*[self.get_10(pk) for pk in range(1, count + 1)])


for name in {"open", *(work.method for work in WORKS)} - {"tasks"}:
    setattr(Contender, name, as_request(getattr(django_async.Contender, name)))
