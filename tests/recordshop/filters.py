from __future__ import annotations

import django_filters

from recordshop.models import Artist, Record


class RecordFilter(django_filters.FilterSet):
    title = django_filters.CharFilter(lookup_expr="icontains")
    artist = django_filters.ModelChoiceFilter(queryset=Artist.objects.all())
    cheaper_than = django_filters.NumberFilter("price", "lt")
    in_stock = django_filters.BooleanFilter("copies", "gt", method="filter_in_stock")
    by_price = django_filters.OrderingFilter(fields=["price"])

    class Meta:
        model = Record
        fields = ("label", "styles", "is_featured")

    def filter_in_stock(self, queryset, name, value):  # type: ignore[no-untyped-def]
        return queryset.filter(copies__gt=0) if value else queryset.filter(copies=0)
