"""The app: adapts each model as it is made."""

from __future__ import annotations

import sys
from typing import Any

from django.apps import AppConfig, apps
from django.core.management import get_commands
from django.db.models import Model
from django.db.models.fields.related import lazy_related_operation
from django.db.models.signals import class_prepared
from django.utils.translation import gettext_lazy as _


class VinylConfig(AppConfig):
    """Made before any model is, so that it sees them all."""

    name = "vinyl"
    verbose_name = _("vinyl")

    def __init__(self, app_name: str, app_module: Any) -> None:
        super().__init__(app_name, app_module)
        class_prepared.connect(_adapt, dispatch_uid="vinyl.adapt")
        for models in apps.all_models.values():
            for model in [*models.values()]:
                _adapt(model)

    def ready(self) -> None:
        from vinyl import checks, connections, initial, native, prefetch, routing  # noqa: F401

        connections.install()
        routing.install()
        initial.install()
        native.install()
        prefetch.install()
        offer_commands()
        if "django.test.runner" in sys.modules:
            # A process of a parallel run, started by the runner: it makes no databases.
            from vinyl.testmode import enable

            enable()


def offer_commands() -> None:
    """Django asks the app that is listed first; vinyl is usually listed after staticfiles, whose
    runserver ours extends. A command of anybody else's is left alone."""
    commands = get_commands()
    if commands.get("runserver") in ("django.core", "django.contrib.staticfiles"):
        commands["runserver"] = "vinyl"
    commands.setdefault("vinyl", "vinyl")  # an editable install has no directory to look into


def _adapt(sender: type[Model], **kwargs: Any) -> None:
    if sender.__module__ == "__fake__":  # a migration's historical model
        return
    from vinyl.instance import wrap_methods
    from vinyl.manager import add_auto_manager
    from vinyl.relations import adapt_descriptors

    wrap_methods(sender)
    adapt_descriptors(sender)
    add_auto_manager(sender)
    meta = sender._meta
    for field in (*meta.local_fields, *meta.local_many_to_many, *meta.private_fields):
        remote = getattr(field, "remote_field", None)
        if remote is not None and remote.model is not None:
            # Django puts the other end on the other model when both exist, by an operation
            # that it has registered before this one.
            lazy_related_operation(_adapt_ends, sender, remote.model)


def _adapt_ends(*models: type[Model]) -> None:
    from vinyl.relations import adapt_descriptors

    for model in models:
        adapt_descriptors(model)
        adapt_descriptors(model._meta.concrete_model)
