"""Values that a lookup takes as they are, so that C can bind them.

An exact int for an integer's column, an exact str for a text's, a UUID for its own: there Django's
preparation (``get_prep_value``, ``get_db_prep_value``, ``process_rhs``) gives the value back,
wrapped at most in a class of the driver's, or refuses an integer that is out of range. That is
known of Django's own methods; where a field has others, and for all other values, Django's
Lookup is made.
"""

from __future__ import annotations

import uuid
from typing import Any

from django.db.models import ForeignKey, OneToOneField, fields
from django.db.models.fields import related_lookups
from django.db.models.lookups import (
    Exact,
    GreaterThan,
    GreaterThanOrEqual,
    IntegerFieldExact,
    IntegerGreaterThan,
    IntegerGreaterThanOrEqual,
    IntegerLessThan,
    IntegerLessThanOrEqual,
    LessThan,
    LessThanOrEqual,
)

from vinyl.originals import methods_unchanged

__all__ = ["binding", "plain_type"]

_COMPARISONS = frozenset(
    {
        Exact, GreaterThan, GreaterThanOrEqual, LessThan, LessThanOrEqual,
        IntegerFieldExact, IntegerGreaterThan, IntegerGreaterThanOrEqual, IntegerLessThan,
        IntegerLessThanOrEqual, related_lookups.RelatedExact, related_lookups.RelatedGreaterThan,
        related_lookups.RelatedGreaterThanOrEqual, related_lookups.RelatedLessThan,
        related_lookups.RelatedLessThanOrEqual,
    }
)  # fmt: skip
_METHODS = ("get_prep_value", "get_db_prep_value", "to_python", "get_internal_type")
#: Django's get_prep_value() -> the type that it gives back as it is, and one such value.
_TAKES: dict[Any, tuple[type, Any]] = {
    fields.IntegerField.get_prep_value: (int, 77),
    fields.AutoField.get_prep_value: (int, 77),
    fields.CharField.get_prep_value: (str, "a'b"),
    fields.TextField.get_prep_value: (str, "a'b"),
    fields.UUIDField.get_prep_value: (uuid.UUID, uuid.UUID(int=77)),
}
_LOW, _HIGH = -(1 << 63), (1 << 63) - 1


def _takes(lookup: type, lhs: Any) -> tuple[type, Any, Any] | None:
    """The type, one such value, and the field that prepares it."""
    field = lhs.output_field
    if lookup not in _COMPARISONS:
        return None
    while getattr(field, "remote_field", None) is not None:
        if type(field) not in (ForeignKey, OneToOneField):
            return None
        field = field.target_field
    if not methods_unchanged(type(field), _METHODS):
        return None
    taken = _TAKES.get(type(field).get_prep_value)
    return None if taken is None else (*taken, field)


def plain_type(lookup: type, lhs: Any) -> type | None:
    """The exact type of which ``lookup(lhs, value).rhs`` is the value itself, or None."""
    taken = _takes(lookup, lhs)
    if taken is None:
        return None
    kind, value, _field = taken
    return kind if lookup(lhs, value).rhs is value else None


def binding(lookup: Any, connection: Any) -> tuple[Any, ...] | None:
    """The part of a `Binder` for this lookup's values, or None where the lookup has to do it."""
    taken = _takes(type(lookup), lookup.lhs)
    if taken is None:
        return None
    kind, value, field = taken
    placeholder, params = type(lookup)(lookup.lhs, value).process_rhs(None, connection)
    if placeholder != "%s" or len(params) != 1:
        return None
    (param,) = params
    low, high = _LOW, _HIGH
    if kind is int:
        least, most = connection.ops.integer_field_range(field.get_internal_type())
        low = low if least is None else max(low, least)
        high = high if most is None else min(high, most)
    if param is value:
        how: Any = None
    elif isinstance(param, kind) and type(param) is not kind and param == value:
        how = type(param)
    elif kind is uuid.UUID and param == value.hex:
        how = "hex"
    else:
        return None
    return None, kind, how, low, high
