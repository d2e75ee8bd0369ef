"""One path for each work, answered by the contender's own module of ``answers``."""

from __future__ import annotations

from importlib import import_module

from django.conf import settings
from django.urls import path

answers = import_module(f"answers.{settings.CONTENDER['answers']}")

urlpatterns = [
    path("json", answers.json),
    path("get", answers.get),
    path("gets", answers.gets),
    path("fortunes", answers.fortunes),
    path("updates", answers.updates),
]
