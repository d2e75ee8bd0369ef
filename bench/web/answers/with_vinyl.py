"""vinyl: the same code on a loop and, under WSGI, with none."""

from __future__ import annotations

from board.models import Fortune, Number
from django.http import HttpRequest, HttpResponse

from answers import parts


async def json(request: HttpRequest) -> HttpResponse:
    return parts.hello()


async def get(request: HttpRequest) -> HttpResponse:
    return parts.one(await Number.vinyl.get(pk=parts.pick(request, 1)[0]))


async def gets(request: HttpRequest) -> HttpResponse:
    keys = parts.pick(request, parts.MANY)
    return parts.many([await Number.vinyl.get(pk=key) for key in keys])


async def fortunes(request: HttpRequest) -> HttpResponse:
    return parts.page(request, list(await Fortune.vinyl.all()))


async def updates(request: HttpRequest) -> HttpResponse:
    numbers = []
    for key in parts.pick(request, parts.MANY):
        number = await Number.vinyl.get(pk=key)
        number.value = parts.new_value(request, number)
        await number.save(update_fields=["value"])
        numbers.append(number)
    return parts.many(numbers)
