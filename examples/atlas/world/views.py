"""The atlas's pages: async views, in which what fetches is awaited."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

from django.db import connection
from django.db.models import Count, F, Max, Q, Sum
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)
from django.shortcuts import render
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_http_methods, require_safe

import vinyl
from vinyl import _core

from . import dotmap
from .forms import CityForm, NoteForm
from .models import City, Continent, Country, Note

SEARCH_LIMIT = 60
CHUNK = 1000
SERVER_VERSION = {
    "sqlite": "SELECT sqlite_version()",
    "postgresql": "SELECT current_setting('server_version')",
}
STYLESHEET = (Path(__file__).parent / "static" / "world" / "atlas.css").read_bytes()


@require_safe
async def home(request: HttpRequest) -> HttpResponse:
    # Five queries at once, each on a connection of its own.
    continents, countries, largest, totals, world = await vinyl.gather(
        Continent.vinyl.all(),
        Country.vinyl.order_by("name"),
        City.vinyl.select_related("country")[:12],
        City.vinyl.aggregate(cities=Count("pk"), people=Sum("population")),
        dotmap.world(),
    )
    by_continent = {continent.pk: (continent, []) for continent in continents}
    for country in countries:
        by_continent[country.continent_id][1].append(country)
    context = {
        "continents": by_continent.values(),
        "country_count": len(countries),
        "largest": largest,
        "totals": totals,
        "world": world,
    }
    return render(request, "world/home.html", context)


@require_safe
async def search(request: HttpRequest) -> HttpResponse:
    query = request.GET.get("q", "").strip().replace("\0", "")
    cities: list[City] = []
    countries: list[Country] = []
    if query:
        countries = await Country.vinyl.filter(name__icontains=query)[:12]
        cities = await _matching(query).select_related("country")[:SEARCH_LIMIT]
    context = {"query": query, "cities": cities, "countries": countries, "limit": SEARCH_LIMIT}
    return render(request, "world/search.html", context)


def _matching(query: str):
    """Chaining never fetches, so it needs no await and can stand in a plain function."""
    return City.vinyl.filter(Q(name__icontains=query) | Q(other_names__icontains=query))


@require_safe
async def country(request: HttpRequest, iso: str) -> HttpResponse:
    try:
        country = await (
            Country.vinyl.select_related("continent")
            .prefetch_related("languages", "neighbours")
            .get(pk=iso.upper())
        )
    except Country.DoesNotExist:
        raise Http404(f"There is no country {iso!r}.") from None
    cities = await country.cities.all()
    totals = await country.cities.aggregate(people=Sum("population"), largest=Max("population"))
    context = {
        "country": country,
        "cities": cities,
        "shown": cities[:60],
        "totals": totals,
        "map": dotmap.of_cities(cities),
    }
    return render(request, "world/country.html", context)


@csrf_protect
@require_http_methods(["GET", "HEAD", "POST"])
async def city(request: HttpRequest, pk: int) -> HttpResponse:
    try:
        city = await City.vinyl.get(pk=pk)
    except City.DoesNotExist:
        raise Http404(f"There is no city {pk}.") from None
    form = NoteForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        await sign(city.pk, form.save(commit=False))
        return HttpResponseRedirect(city.get_absolute_url() + "#guest-book")
    country = await city.country
    context = {
        "city": city,
        "country": country,
        "notes": await city.notes.all()[:30],
        "nearby": await _nearby(city),
        "form": form,
        "world": await dotmap.world(),
        "position": dotmap.position(city.latitude, city.longitude),
    }
    return render(request, "world/city.html", context)


async def sign(pk: int, note: Note) -> None:
    """The note and the city's count of notes change together, or not at all."""
    async with vinyl.atomic():
        city = await City.vinyl.select_for_update().get(pk=pk)
        note.city = city
        await note.save()
        city.note_count += 1
        await city.save(update_fields=["note_count"])


def _nearby(city: City):
    """Unfetched: the eight cities nearest to this one, as the crow flies on a flat map."""
    distance = (F("latitude") - city.latitude) * (F("latitude") - city.latitude) + (
        F("longitude") - city.longitude
    ) * (F("longitude") - city.longitude)
    return (
        City.vinyl.filter(
            latitude__range=(city.latitude - 5, city.latitude + 5),
            longitude__range=(city.longitude - 8, city.longitude + 8),
        )
        .exclude(pk=city.pk)
        .select_related("country")
        .annotate(distance=distance)
        .order_by("distance", "pk")[:8]
    )


@csrf_protect
@require_http_methods(["GET", "HEAD", "POST"])
async def new_city(request: HttpRequest) -> HttpResponse:
    form = CityForm(request.POST or None)
    # Synchronous Django code that queries, here a form with a ModelChoiceField, runs in a fiber:
    # its queries suspend this task, not the loop.
    if request.method == "POST" and await vinyl.run(form.is_valid):
        city = form.save(commit=False)
        await city.save()
        return HttpResponseRedirect(city.get_absolute_url())
    return await vinyl.run(render, request, "world/new_city.html", {"form": form})


@require_safe
async def api_cities(request: HttpRequest) -> JsonResponse:
    """GET /api/cities/?q=…&country=…: the 100 biggest that match."""
    cities = City.vinyl.all()
    if query := request.GET.get("q", "").strip().replace("\0", ""):
        cities = _matching(query)
    if iso := request.GET.get("country", "").strip().replace("\0", ""):
        cities = cities.filter(country_id=iso.upper())
    found = await cities.values("id", "name", "country", "population", "latitude", "longitude")[
        :100
    ]
    return JsonResponse({"count": len(found), "cities": list(found)})


@require_safe
async def export(request: HttpRequest) -> StreamingHttpResponse:
    """Every city as CSV, streamed through a server-side cursor: constant memory."""

    async def lines() -> AsyncIterator[str]:
        yield "id,country,population,latitude,longitude\n"
        cities = City.vinyl.order_by("pk").only(
            "pk", "country_id", "population", "latitude", "longitude"
        )
        chunk: list[str] = []
        async for c in cities.iterator(chunk_size=CHUNK):
            chunk.append(f"{c.pk},{c.country_id},{c.population},{c.latitude},{c.longitude}\n")
            if len(chunk) == CHUNK:
                yield "".join(chunk)
                chunk.clear()
        yield "".join(chunk)

    return StreamingHttpResponse(lines(), content_type="text/csv; charset=utf-8")


async def _experiment(tasks: int = 50, gets: int = 4) -> dict[str, float]:
    """``tasks`` tasks at once, each fetching ``gets`` cities one after the other."""
    keys = [
        pk async for pk in City.vinyl.order_by("-population").values_list("pk", flat=True)[:200]
    ]
    if not keys:
        return {}

    async def fetch(number: int) -> None:
        for turn in range(gets):
            await City.vinyl.get(pk=keys[(number * gets + turn) % len(keys)])

    before, began = _core.stats(), time.perf_counter()
    # At once on a loop, each on a connection of the pool; one after the other where there is none.
    await vinyl.gather(*(fetch(number) for number in range(tasks)))
    elapsed, after = time.perf_counter() - began, _core.stats()
    return {
        "tasks": tasks,
        "milliseconds": elapsed * 1e3,
        "statements": after["statements"] - before["statements"],
        "suspends": after["suspends"] - before["suspends"],
    }


def _loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


@require_safe
async def engine(request: HttpRequest) -> HttpResponse:
    async with vinyl.cursor() as cursor:
        await cursor.execute(SERVER_VERSION[connection.vendor])
        (server,) = await cursor.fetchone()
    loop = _loop()
    experiment = await _experiment() if "run" in request.GET else None
    context = {
        "vendor": connection.vendor,
        "engine": connection.settings_dict["ENGINE"],
        "server": server,
        "counters": _core.stats(),
        "pool": vinyl.pool_stats(),
        "loop": type(loop).__module__ if loop else "",
        "tasks": len(asyncio.all_tasks(loop)) if loop else 0,
        "threads": [thread.name for thread in threading.enumerate()],
        "experiment": experiment,
    }
    if request.GET.get("format") == "json":
        return JsonResponse(context)
    return render(request, "world/engine.html", context)


@require_safe
async def stylesheet(request: HttpRequest) -> HttpResponse:
    response = HttpResponse(STYLESHEET, content_type="text/css; charset=utf-8")
    response["Cache-Control"] = "max-age=60"
    return response
