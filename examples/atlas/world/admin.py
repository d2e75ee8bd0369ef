"""Django's admin, as it is: synchronous code, which the handler runs in the request's fiber."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from .models import City, Continent, Country, Language, Note

admin.site.site_header = "Atlas"
admin.site.register([Continent, Language])


@admin.register(Country)
class CountryAdmin(admin.ModelAdmin):
    list_display = ("name", "iso", "continent", "capital", "population")
    list_filter = ("continent",)
    search_fields = ("name", "capital")
    filter_horizontal = ("languages", "neighbours")


class NoteInline(admin.TabularInline):
    model = Note
    extra = 1


@admin.register(City)
class CityAdmin(admin.ModelAdmin):
    list_display = ("name", "country", "population", "timezone", "note_count")
    list_filter = ("country__continent",)
    list_select_related = ("country",)
    search_fields = ("name", "other_names")
    autocomplete_fields = ("country",)
    readonly_fields = ("note_count",)
    inlines = (NoteInline,)
    actions = ("clear_guest_books",)

    @admin.action(description="Clear the guest books")
    def clear_guest_books(self, request: HttpRequest, cities: QuerySet[City]) -> None:
        removed, _ = Note.objects.filter(city__in=cities).delete()
        cities.update(note_count=0)
        self.message_user(request, f"{removed} notes removed.")


@admin.register(Note)
class NoteAdmin(admin.ModelAdmin):
    list_display = ("author", "city", "written", "text")
    list_select_related = ("city",)
    autocomplete_fields = ("city",)
    date_hierarchy = "written"
