"""Generic foreign keys, whose content type takes a query to find out."""

from __future__ import annotations

from typing import Any

from django.db.models import Model

from vinyl._core import awaited_expression
from vinyl.exceptions import NotFetched
from vinyl.instance import UNSETTLED, awaits, is_unsettled
from vinyl.pending import Pending, Ready, not_fetched
from vinyl.reading import in_coroutine, read_relation


class GenericForward:
    """The descriptor of a generic foreign key; up to Django 5.2 that is the field itself."""

    def __get__(self, instance: Any, cls: Any = None) -> Any:
        get = super().__get__  # type: ignore[misc]
        if instance is None:
            return get(instance, cls)
        field: Any = getattr(self, "field", self)
        column = _content_type_column(field)
        if is_unsettled(instance, column):
            value = instance.__dict__[UNSETTLED][column][1]
            return Ready(value) if awaits(instance) and awaited_expression() else value
        label = f"{type(instance).__name__}.{field.name}"
        if not in_coroutine(instance):
            try:
                return get(instance, cls)
            except NotFetched:
                raise not_fetched(label) from None
        unfetched = (
            not field.is_cached(instance) and instance.__dict__.get(column, self) is not None
        )
        return read_relation(label, unfetched, get, instance, cls)

    def __set__(self, instance: Any, value: Any) -> None:
        if isinstance(value, Pending):
            raise not_fetched(value._vinyl_label)
        try:
            super().__set__(instance, value)  # type: ignore[misc]
        except NotFetched:
            self._vinyl_set_later(instance, value)

    def _vinyl_set_later(self, instance: Any, value: Model) -> None:
        """Leaves the content type's column unset, to be found out in the next fiber that
        needs it, as a deferred field is."""
        field: Any = getattr(self, "field", self)
        column = _content_type_column(field)
        instance._state.fields_cache.pop(field.ct_field, None)
        instance.__dict__.pop(column, None)
        setattr(instance, field.fk_field, value.pk)
        instance.__dict__.setdefault(UNSETTLED, {})[column] = (field.name, value)


def _content_type_column(field: Any) -> str:
    return field.model._meta.get_field(field.ct_field).attname
