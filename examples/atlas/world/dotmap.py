"""The world as dots: where its cities are, drawn from the database as one SVG path per size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import Count
from django.db.models.functions import Floor

from .models import City

STEP = 2  # degrees
WIDTH, HEIGHT = 360, 150
NORTH = 84


def position(latitude: float, longitude: float) -> tuple[float, float]:
    """A place in the map's own coordinates: degrees from its north-western corner."""
    return longitude + 180, NORTH - latitude


@dataclass(frozen=True)
class DotMap:
    """``layers``: (diameter, SVG path) pairs; a dot is a line of no length with round ends."""

    layers: tuple[tuple[float, str], ...]
    viewbox: str = f"0 0 {WIDTH} {HEIGHT}"


_world: DotMap | None = None


async def world() -> DotMap:
    """Every city, gathered in squares of STEP degrees; asked of the database once."""
    global _world
    if _world is None:
        squares = await (
            City.vinyl.order_by()
            .annotate(x=Floor("longitude") / STEP, y=Floor("latitude") / STEP)
            .values("x", "y")
            .annotate(cities=Count("pk"))
        )
        _world = _draw(squares)
    return _world


def _draw(squares: Iterable[dict[str, float]]) -> DotMap:
    layers: dict[float, list[str]] = {0.7: [], 1.0: [], 1.35: [], 1.75: []}
    counts: dict[tuple[int, int], int] = {}
    for square in squares:
        key = int(square["x"] // 1), int(square["y"] // 1)
        counts[key] = counts.get(key, 0) + int(square["cities"])
    for (column, row), cities in sorted(counts.items()):
        size = 0.7 if cities < 3 else 1.0 if cities < 12 else 1.35 if cities < 40 else 1.75
        x, y = position((row + 0.5) * STEP, (column + 0.5) * STEP)
        layers[size].append(f"M{x:g} {y:g}h0")
    return DotMap(tuple((size, "".join(path)) for size, path in layers.items() if path))


def of_cities(cities: Iterable[City]) -> DotMap | None:
    """A map that shows just these cities, the bigger the more people; None without any."""
    places = [(*position(c.latitude, c.longitude), c.population) for c in cities]
    if not places:
        return None
    # The bulk of them decides the frame: an island far away must not shrink all the rest.
    xs, ys = sorted(x for x, _, _ in places), sorted(y for _, y, _ in places)
    cut = len(places) // 50
    left, right = xs[cut], xs[-1 - cut]
    top, bottom = ys[cut], ys[-1 - cut]
    side = max(right - left, (bottom - top) * 1.6, 1.0)
    middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
    width, height = side * 1.15, side * 1.15 / 1.6
    unit = width / 160
    layers: dict[float, list[str]] = {unit * f: [] for f in (0.9, 1.6, 2.8, 4.5)}
    sizes = list(layers)
    for x, y, people in places:
        index = (people > 50_000) + (people > 250_000) + (people > 1_500_000)
        layers[sizes[index]].append(f"M{x:.2f} {y:.2f}h0")
    box = f"{middle_x - width / 2:.2f} {middle_y - height / 2:.2f} {width:.2f} {height:.2f}"
    drawn = tuple((round(size, 3), "".join(path)) for size, path in layers.items() if path)
    return DotMap(drawn, box)
