from __future__ import annotations

from django.apps import AppConfig


class RecordShop(AppConfig):
    name = "recordshop"
    verbose_name = "The shop"
