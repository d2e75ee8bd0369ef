"""The shop's own pages: asynchronous and synchronous, streamed, with sessions and auth."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

from django.contrib.auth import aauthenticate, alogin, alogout
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import aget_object_or_404, render
from django.views.decorators.csrf import csrf_exempt

import vinyl
from recordshop import counting
from recordshop.filters import RecordFilter
from recordshop.models import Artist, Record
from vinyl import _core


def _placed(data: dict[str, object]) -> JsonResponse:
    return JsonResponse({**data, "where": _core.where()})


async def stock(request: HttpRequest) -> HttpResponse:
    records = await Record.vinyl.select_related("artist").filter(copies__gt=0)
    return _placed({"records": [[each.artist.name, each.title] for each in records]})


def sync_stock(request: HttpRequest) -> HttpResponse:
    records = Record.objects.select_related("artist").filter(copies__gt=0)
    return _placed({"records": [[each.artist.name, each.title] for each in records]})


async def shelf(request: HttpRequest) -> HttpResponse:
    """A page of HTML; ``artist`` chooses whose records it shows."""
    artist = await aget_object_or_404(Artist.vinyl.all(), name=request.GET.get("artist"))
    records = await artist.records.select_related("label").all()
    return render(request, "recordshop/shelf.html", {"artist": artist, "records": records})


def sync_shelf(request: HttpRequest) -> HttpResponse:
    artist = Artist.objects.get(name=request.GET.get("artist"))
    records = artist.records.select_related("label")
    return render(request, "recordshop/shelf.html", {"artist": artist, "records": records})


async def gathered_shelf(request: HttpRequest) -> HttpResponse:
    """As ``shelf``, its two queries side by side."""
    name = request.GET.get("artist")
    artist, records = await vinyl.gather(
        Artist.vinyl.get(name=name),
        Record.vinyl.select_related("label").filter(artist__name=name),
    )
    return render(request, "recordshop/shelf.html", {"artist": artist, "records": records})


def filtered(request: HttpRequest) -> HttpResponse:
    found = RecordFilter(request.GET, queryset=Record.objects.all())
    if not found.is_valid():
        return JsonResponse(found.errors, status=400)
    return JsonResponse({"titles": [each.title for each in found.qs]})


async def stream(request: HttpRequest) -> HttpResponse:
    async def lines() -> AsyncIterator[str]:
        async for each in Record.vinyl.order_by("title").iterator(chunk_size=2):
            yield f"{each.title}\n"

    return StreamingHttpResponse(lines(), content_type="text/plain")


def sync_stream(request: HttpRequest) -> HttpResponse:
    def lines() -> Iterator[str]:
        for each in Record.objects.order_by("title").iterator(chunk_size=2):
            yield f"{each.title}\n"

    return StreamingHttpResponse(lines(), content_type="text/plain")


@csrf_exempt
async def login(request: HttpRequest) -> HttpResponse:
    name, password = request.POST.get("username"), request.POST.get("password")
    user = await aauthenticate(request, username=name, password=password)
    if user is None:
        return HttpResponse("unknown", status=403)
    await alogin(request, user)
    return HttpResponse("welcome")


async def logout(request: HttpRequest) -> HttpResponse:
    await alogout(request)
    return HttpResponse("bye")


async def basket(request: HttpRequest) -> HttpResponse:
    """Who it is, and a session that counts."""
    user = await request.auser()
    count = await request.session.aget("count", 0) + 1
    await request.session.aset("count", count)
    may = await user.ahas_perm("recordshop.change_record")
    return _placed({"user": user.username, "count": count, "may": may})


@login_required
def counter(request: HttpRequest) -> HttpResponse:
    request.session["count"] = request.session.get("count", 0) + 1
    return _placed({"user": request.user.username, "count": request.session["count"]})


async def sell_slowly(request: HttpRequest) -> HttpResponse:
    """Takes a copy in a transaction, and does not come to its end in the time of any client."""
    async with vinyl.atomic():
        await Record.vinyl.update(copies=0)
        await asyncio.sleep(3600)
    raise AssertionError


def sync_sell_slowly(request: HttpRequest) -> HttpResponse:
    from django.db import transaction

    with transaction.atomic():
        Record.objects.update(copies=0)
        _core._sleep(3600)
    raise AssertionError


async def pool(request: HttpRequest) -> HttpResponse:
    return JsonResponse(vinyl.pool_stats())


def threads(request: HttpRequest) -> HttpResponse:
    return JsonResponse(counting.threads())


def icon(request: HttpRequest) -> HttpResponse:
    """What browsers ask for by themselves."""
    return HttpResponse(status=204)
