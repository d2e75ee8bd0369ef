"""A filter without its values: what it has to have in common with another one for Django to build
the same SQL."""

from __future__ import annotations

import datetime
import decimal
import uuid

from django.db.models import Model, Q

from vinyl._core import Shapes

__all__ = ["call_shape", "filter_shape"]

#: Types of which every value but a field's out-of-range one makes the same SQL.  Exactly these, no
#: subclasses: one could have an as_sql() or a resolve_expression().
PLAIN = frozenset(
    {
        int, float, str, bytes, decimal.Decimal, uuid.UUID,
        datetime.date, datetime.datetime, datetime.time, datetime.timedelta,
    }
)  # fmt: skip
#: Longer lists are compiled by Django each time: every length is a shape of its own.
LONGEST_LIST = 64


_shapes = Shapes(PLAIN, Q, Model, LONGEST_LIST)

#: Of a Q, and of a method's name and keyword arguments that make a Q: a hashable key, and the
#: values in the order in which Django meets them; None where SQL may depend on more than names
#: and types. True and False are part of the key.
filter_shape = _shapes.of_filter
call_shape = _shapes.of_call
