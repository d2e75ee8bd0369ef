"""For the tests of planned writes: the same saves planned and by Django, compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext, override_settings
from library.models import Author, Book, Note, Profile, Publisher, Sample

from vinyl.plan import statement as statements

MODELS = (Author, Book, Note, Profile, Publisher, Sample)


@pytest.fixture
def fresh_plans() -> Iterator[None]:
    for model in MODELS:
        model._meta.__dict__.pop("_vinyl_tables", None)
    statements.stats.update(hits=0, misses=0, uncached=0)
    return


def hits() -> int:
    return statements.stats["hits"]


def both_ways(alias: str, model: Any, instances: Any, **kwargs: Any) -> list[Any]:
    """Saves what ``instances()`` makes, planned, twice a hit, and by Django; compares the SQL,
    the rows, and what became of each instance."""
    pictures = []
    for plans in (True, True, "check", False):
        with (
            override_settings(VINYL={"PLAN_CACHE": plans}),
            transaction.atomic(using=alias),
            CaptureQueriesContext(connections[alias]) as captured,
        ):
            saved = instances()
            for each in saved:
                each.save(using=alias, **kwargs)
            sent = [query["sql"] for query in captured.captured_queries]
            names = [field.attname for field in model._meta.concrete_fields]
            rows = list(
                model._base_manager.using(alias).order_by("pk").values_list(*names[1:]).iterator()
            )
            pictures.append(
                (
                    [_without_key(sql, saved) for sql in sent],
                    repr(rows),
                    [(each._state.adding, each._state.db) for each in saved],
                    [repr([getattr(each, name) for name in names[1:]]) for each in saved],
                )
            )
            transaction.set_rollback(True, using=alias)
    assert pictures[1] == pictures[3]
    assert pictures[2] == pictures[3]
    return pictures[1]


def _without_key(sql: str, saved: Any) -> str:
    for each in saved:
        sql = sql.replace(f'"id" = {each.pk}', '"id" = pk').replace(f" {each.pk} ", " pk ")
    return sql
