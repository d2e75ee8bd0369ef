"""The shop's admin, with a bit of everything that an admin has."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest

from recordshop.models import Artist, Label, Record, Style, Track

admin.site.site_header = "The record shop"
admin.site.site_title = "The record shop"
admin.site.index_title = "Behind the counter"


class TrackInline(admin.TabularInline):
    model = Track
    extra = 1


@admin.register(Record)
class RecordAdmin(admin.ModelAdmin):
    list_display = ("title", "artist", "label", "released", "price", "copies", "is_featured")
    list_filter = ("is_featured", "styles", "label")
    list_editable = ("price",)
    list_select_related = ("artist", "label")
    list_per_page = 20
    search_fields = ("title", "artist__name")
    date_hierarchy = "released"
    autocomplete_fields = ("artist",)
    filter_horizontal = ("styles",)
    inlines = (TrackInline,)
    actions = ("put_in_window",)

    @admin.action(description="Put the selected records in the window")
    def put_in_window(self, request: HttpRequest, queryset: QuerySet[Record]) -> None:
        count = queryset.filter(copies__gt=0).update(is_featured=True)
        self.message_user(request, f"{count} records are in the window now.")


@admin.register(Artist)
class ArtistAdmin(admin.ModelAdmin):
    list_display = ("name", "formed", "record_count")
    search_fields = ("name",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Artist]:
        return super().get_queryset(request).annotate(count=Count("records"))

    @admin.display(description="records", ordering="count")
    def record_count(self, artist: Any) -> int:
        return artist.count


admin.site.register([Label, Style])
