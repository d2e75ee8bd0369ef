"""What the answers share: everything but the queries."""

from __future__ import annotations

import random
from typing import Any

from board.models import NUMBERS, Fortune
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

MANY = 20


def pick(request: HttpRequest, count: int) -> list[int]:
    """The keys that a request asks for: any, or those that ``?seed=`` decides."""
    seed = request.GET.get("seed")
    source = random.Random(seed) if seed else random
    return source.sample(range(1, NUMBERS + 1), count)


def new_value(request: HttpRequest, number: Any) -> int:
    if request.GET.get("seed"):
        return (number.pk * 7919) % NUMBERS
    return random.randint(1, NUMBERS)


def hello() -> JsonResponse:
    return JsonResponse({"message": "Hello, World!"})


def one(number: Any) -> JsonResponse:
    return JsonResponse({"id": number.pk, "value": number.value})


def many(numbers: list[Any]) -> JsonResponse:
    return JsonResponse([{"id": n.pk, "value": n.value} for n in numbers], safe=False)


def page(request: HttpRequest, fortunes: list[Any]) -> HttpResponse:
    fortunes.append(Fortune(id=0, message="Additional fortune added at request time."))
    fortunes.sort(key=lambda fortune: fortune.message)
    return render(request, "fortunes.html", {"fortunes": fortunes})
