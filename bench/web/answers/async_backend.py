"""django-async-backend: its manager, its names for saving."""

from __future__ import annotations

from board.models import Fortune, Number
from django.http import HttpRequest, HttpResponse

from answers import parts


async def json(request: HttpRequest) -> HttpResponse:
    return parts.hello()


async def get(request: HttpRequest) -> HttpResponse:
    return parts.one(await Number.async_objects.aget(pk=parts.pick(request, 1)[0]))


async def gets(request: HttpRequest) -> HttpResponse:
    keys = parts.pick(request, parts.MANY)
    return parts.many([await Number.async_objects.aget(pk=key) for key in keys])


async def fortunes(request: HttpRequest) -> HttpResponse:
    return parts.page(request, [each async for each in Fortune.async_objects.all()])


async def updates(request: HttpRequest) -> HttpResponse:
    numbers = []
    for key in parts.pick(request, parts.MANY):
        number = await Number.async_objects.aget(pk=key)
        number.value = parts.new_value(request, number)
        await number.async_save(update_fields=["value"])
        numbers.append(number)
    return parts.many(numbers)
