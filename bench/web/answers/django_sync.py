"""Synchronous Django."""

from __future__ import annotations

from board.models import Fortune, Number
from django.http import HttpRequest, HttpResponse

from answers import parts


def json(request: HttpRequest) -> HttpResponse:
    return parts.hello()


def get(request: HttpRequest) -> HttpResponse:
    return parts.one(Number.objects.get(pk=parts.pick(request, 1)[0]))


def gets(request: HttpRequest) -> HttpResponse:
    keys = parts.pick(request, parts.MANY)
    return parts.many([Number.objects.get(pk=key) for key in keys])


def fortunes(request: HttpRequest) -> HttpResponse:
    return parts.page(request, list(Fortune.objects.all()))


def updates(request: HttpRequest) -> HttpResponse:
    numbers = []
    for key in parts.pick(request, parts.MANY):
        number = Number.objects.get(pk=key)
        number.value = parts.new_value(request, number)
        number.save(update_fields=["value"])
        numbers.append(number)
    return parts.many(numbers)
