"""The shop's API with django-ninja, its views asynchronous but one."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import FilterSchema, ModelSchema, NinjaAPI, Query, Schema, Status
from ninja.pagination import PageNumberPagination, paginate
from ninja.security import django_auth

import vinyl
from recordshop.models import Artist, Record

# One instance per process: Ninja refuses to register the same API twice.
api = NinjaAPI(title="The record shop", urls_namespace="ninja")


class ArtistOut(ModelSchema):
    class Meta:
        model = Artist
        fields = ("id", "name", "formed")


class RecordOut(ModelSchema):
    artist: ArtistOut
    styles: list[str]

    class Meta:
        model = Record
        fields = ("id", "title", "price", "copies")

    @staticmethod
    def resolve_styles(record: Record) -> list[str]:
        return [style.name for style in record.styles.all()]


class RecordIn(Schema):
    title: str
    artist_id: int
    label_id: int
    released: str
    price: float
    copies: int = 0


class RecordFilters(FilterSchema):
    artist__name: str | None = None
    copies__gt: int | None = None


@api.get("/records/{record_id}", response=RecordOut)
async def get_record(request: HttpRequest, record_id: int) -> Record:
    return await Record.vinyl.select_related("artist").prefetch_related("styles").get(pk=record_id)


@api.get("/records", response=list[RecordOut])
async def list_records(request: HttpRequest, filters: Query[RecordFilters]) -> list[Record]:
    records = filters.filter(Record.vinyl.all())
    return await records.select_related("artist").prefetch_related("styles")


@api.get("/pages", response=list[ArtistOut])
@paginate(PageNumberPagination, page_size=3)
async def page_artists(request: HttpRequest) -> Any:
    return Artist.objects.all()


@api.post("/records", response={201: RecordOut}, auth=django_auth)
async def create_record(request: HttpRequest, payload: RecordIn) -> Any:
    async with vinyl.atomic():
        record = await Record.vinyl.create(**payload.dict())
    found = Record.vinyl.select_related("artist").prefetch_related("styles")
    return Status(201, await found.get(pk=record.pk))


@api.post("/sync-sale/{record_id}", auth=django_auth)
def sell(request: HttpRequest, record_id: int) -> dict[str, Any]:
    record = Record.objects.get(pk=record_id)
    record.copies -= 1
    record.save(update_fields=["copies"])
    return {"copies": record.copies, "by": request.auth.username}


@api.get("/sync-sale/{record_id}")
async def look(request: HttpRequest, record_id: int) -> dict[str, Any]:
    """Beside a synchronous view at the same path: Ninja makes the whole path asynchronous."""
    return {"copies": (await Record.vinyl.get(pk=record_id)).copies}
