"""An API with django-ninja: async operations that await vinyl. Its pages are at /api/v1/docs."""

from __future__ import annotations

from django.http import HttpRequest
from ninja import ModelSchema, NinjaAPI, Schema
from ninja.errors import HttpError

from .models import City, Country, Note
from .views import sign

api = NinjaAPI(title="Atlas", version="1")


class CountryOut(ModelSchema):
    continent: str

    class Meta:
        model = Country
        fields = ("iso", "name", "capital", "population", "area")

    @staticmethod
    def resolve_continent(country: Country) -> str:
        return country.continent.name


class CityOut(ModelSchema):
    country: str

    class Meta:
        model = City
        fields = ("id", "name", "population", "latitude", "longitude", "note_count")

    @staticmethod
    def resolve_country(city: City) -> str:
        return city.country_id


class NoteIn(Schema):
    author: str
    text: str


@api.get("/countries", response=list[CountryOut])
async def countries(request: HttpRequest, continent: str | None = None) -> list[Country]:
    found = Country.vinyl.select_related("continent")
    if continent:
        found = found.filter(continent_id=continent.upper())
    return await found


@api.get("/countries/{iso}/cities", response=list[CityOut])
async def cities(request: HttpRequest, iso: str, limit: int = 20) -> list[City]:
    try:
        country = await Country.vinyl.get(pk=iso.upper())
    except Country.DoesNotExist:
        raise HttpError(404, f"There is no country {iso!r}.") from None
    return await country.cities.all()[: max(0, min(limit, 100))]


@api.post("/cities/{pk}/notes", response={201: CityOut})
async def add_note(request: HttpRequest, pk: int, note: NoteIn) -> tuple[int, City]:
    """Signs a guest book."""
    try:
        await sign(pk, Note(author=note.author[:60], text=note.text[:500]))
    except City.DoesNotExist:
        raise HttpError(404, f"There is no city {pk}.") from None
    return 201, await City.vinyl.get(pk=pk)
