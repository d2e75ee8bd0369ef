"""Two tables: numbers to get and update, fortunes to list."""

from __future__ import annotations

from django.conf import settings
from django.db import models

NUMBERS = 10_000

# django-async-backend asks for a base class of its own.
base = getattr(settings, "CONTENDER", {}).get("model_base")
if base:
    from django.utils.module_loading import import_string

    bases: tuple[type, ...] = (import_string(base), models.Model)
else:
    bases = (models.Model,)


class Number(*bases):
    value = models.IntegerField()


class Fortune(*bases):
    message = models.CharField(max_length=200)
