"""The plan cache where what it was made of changes: what was given, lookups, models, threads."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import DatabaseError, connections
from django.db.models import (
    BooleanField,
    DateField,
    DecimalField,
    IntegerField,
    Max,
    Q,
    QuerySet,
    Sum,
)
from django.db.models.expressions import Col
from django.db.models.lookups import Exact, IsNull
from django.db.models.sql.where import WhereNode
from django.test.utils import override_settings
from library.models import Author, Book, Sample
from plan_support import CACHED, compiled, fill, fresh_plans, outcome, planned, registered  # noqa: F401

import vinyl
from vinyl.plan import statement as statements


def _a_condition_goes_on(queryset: Any) -> Any:
    condition = Q(pages=1)
    queryset = queryset.filter(condition)
    condition.add(Q(title="b"), "AND")
    return queryset


def _a_condition_is_another(queryset: Any) -> Any:
    condition = Q(pages=1)
    queryset = queryset.filter(condition)
    condition.children[0] = ("pk", 1)
    return queryset


def _a_list_has_no_numbers(queryset: Any) -> Any:
    numbers: list[Any] = [1, 2]
    queryset = queryset.filter(pk__in=numbers)
    numbers.append("none")
    return queryset


def _an_author_is_deleted(queryset: Any) -> Any:
    author = Author(pk=1)
    queryset = queryset.filter(author=author)
    author.pk = None
    return queryset


@pytest.mark.parametrize(
    "build",
    [_a_condition_goes_on, _a_condition_is_another, _a_list_has_no_numbers, _an_author_is_deleted],
)
def test_what_was_given_changes_later(engine: Any, build: Callable[[Any], Any]) -> None:
    for _ in range(3):
        for more in (
            lambda queryset: queryset.distinct(),
            lambda queryset: queryset.filter(price=None),
            lambda queryset: queryset.filter(pages__gt=0).order_by("-pk")[:3],
            lambda queryset: queryset & queryset.model.objects.filter(title="b"),
        ):
            theirs = compiled(more(build(QuerySet(Book))))
            assert compiled(more(build(planned(Book)))) == theirs


def test_another_lookup_registered_since(engine: Any) -> None:
    from django.db.models.lookups import Exact

    class Half(Exact):
        def process_rhs(self, *args: Any) -> Any:
            sql, params = super().process_rhs(*args)
            return f"{sql} / 2", params

    build = CACHED["pk"][1]
    compiled(build(planned(Sample), 1))
    with registered(IntegerField, Half):
        for n in (2, 3):
            assert compiled(planned(Book).filter(pages=n)) == compiled(
                QuerySet(Book).filter(pages=n)
            )
    assert compiled(planned(Book).filter(pages=4)) == compiled(QuerySet(Book).filter(pages=4))


@pytest.mark.parametrize(
    ("field", "lookup", "build"),
    [
        (DecimalField, IsNull, lambda queryset: queryset.filter(price__isnull=True)),
        (DecimalField, IsNull, lambda queryset: queryset.exclude(price=1)),
        (BooleanField, Exact, lambda queryset: queryset.filter(flag=True)),
    ],
)
async def test_another_lookup_of_no_value(
    engine: Any, field: Any, lookup: Any, build: Callable[[Any], Any]
) -> None:
    class Twice(lookup):  # type: ignore[misc]
        def as_sql(self, *args: Any) -> Any:
            sql, params = super().as_sql(*args)
            return f"({sql} AND {sql})", [*params, *params]

    def work() -> None:
        model = Sample if field is BooleanField else Book
        name = lookup.lookup_name
        for _ in range(2):
            theirs = compiled(build(QuerySet(model)))
            assert compiled(build(planned(model))) == theirs
            with registered(field, Twice, name):
                others = compiled(build(QuerySet(model)))
                assert others != theirs
                assert compiled(build(planned(model))) == others
            assert compiled(build(planned(model))) == theirs

    await vinyl.run(work)


async def test_get_with_another_lookup_of_no_value(engine: Any) -> None:
    class Never(IsNull):
        def as_sql(self, *args: Any) -> Any:
            return "1 = 0", []

    author = await Author.vinyl.create(name="a")
    for _ in range(3):
        assert await Author.vinyl.get(born__isnull=True) == author
    with registered(DateField, Never, "isnull"):
        for _ in range(2):
            with pytest.raises(Author.DoesNotExist):
                await Author.vinyl.get(born__isnull=True)
    assert await Author.vinyl.get(born__isnull=True) == author


def test_empty_text_that_is_null(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    features = type(connections["default"].features)
    monkeypatch.setattr(features, "interprets_empty_strings_as_nulls", True)
    for text in ("a", "", "b"):
        for build in (
            lambda queryset: queryset.filter(title=text),  # noqa: B023
            lambda queryset: queryset.filter(author__name=text),  # noqa: B023
            lambda queryset: queryset.filter(title__gte=text),  # noqa: B023
        ):
            assert compiled(build(planned(Book))) == compiled(build(QuerySet(Book)))


def test_a_changed_model_that_is_joined(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    builds: list[Callable[[Any], Any]] = [
        lambda queryset: queryset.filter(author__name="a"),
        lambda queryset: queryset.order_by("author"),
        lambda queryset: queryset.select_related("author"),
        lambda queryset: queryset.values("author__name"),
        lambda queryset: queryset.filter(pages=1).order_by("author").filter(title="b")[:3],
    ]

    def same() -> None:
        for build in builds * 2:
            assert compiled(build(planned(Book))) == compiled(build(QuerySet(Book)))

    same()
    with monkeypatch.context() as patch:
        patch.setattr(Author._meta, "ordering", ("-name",))
        same()
        patch.setattr(Author._meta, "db_table", "elsewhere")
        same()
    same()
    before = statements.stats["hits"]
    same()
    assert statements.stats["hits"] == before + 2 * len(builds)


@pytest.mark.modes("asyncio", "blocking")
async def test_a_changed_table_that_is_joined(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await vinyl.run(fill)
    for _ in range(3):
        assert await Book.vinyl.filter(author__name="a").count() == 2
        assert len(await Book.vinyl.select_related("author").filter(pages=1)) == 1
        assert (await Book.vinyl.get(author__name="b", pages=1)).pages == 1
        assert await Book.vinyl.filter(author__name="a").exists()
    monkeypatch.setattr(Author._meta, "db_table", "elsewhere")
    for _ in range(2):
        for call in (
            lambda: Book.vinyl.filter(author__name="a").count(),
            lambda: Book.vinyl.select_related("author").filter(pages=1),
            lambda: Book.vinyl.get(author__name="b", pages=1),
            lambda: Book.vinyl.filter(author__name="a").exists(),
        ):
            with pytest.raises(DatabaseError):
                await call()


def test_a_changed_model_starts_anew(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled(planned(Book).filter(pages=1))
    with monkeypatch.context() as patch:
        patch.setattr(Book._meta, "ordering", ("-title",))
        assert compiled(planned(Book).filter(pages=1)) == compiled(QuerySet(Book).filter(pages=1))
        patch.setattr(Book._meta, "db_table", "elsewhere")
        assert compiled(planned(Book).filter(pages=1)) == compiled(QuerySet(Book).filter(pages=1))
    assert statements.stats["hits"] == 0


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


REPLACED: dict[str, tuple[Any, str, Any]] = {
    "prepared": (Exact, "get_prep_lookup", lambda self: _lower(self.rhs)),
    "process": (
        Exact,
        "process_rhs",
        lambda self, compiler, connection: ("%s", [_lower(self.rhs)]),
    ),
    "compiled": (Exact, "as_sql", lambda self, compiler, connection: ("1 = 0", [])),
    "column": (
        Col,
        "as_sql",
        lambda self, compiler, connection: (f'"{self.alias}"."id"', []),
    ),
    "where": (WhereNode, "as_sql", lambda self, compiler, connection: ("1 = 0", [])),
}
CALLS: list[Callable[[Any], Any]] = [
    lambda queryset: list(queryset.filter(title="B").values_list("pk", "title")),
    lambda queryset: queryset.filter(title="B").exists(),
    lambda queryset: list(queryset.filter(pages=1).values_list("title", "price")),
    lambda queryset: queryset.filter(author=1).count(),
    lambda queryset: queryset.filter(pages=1).aggregate(Max("title"), Sum("price")),
    lambda queryset: queryset.filter(title="B", pages=2).update(pages=2),
    lambda queryset: queryset.get(title="B", pk=1).title,
]


@pytest.mark.parametrize("name", REPLACED)
async def test_a_method_replaced_since(
    engine: Any, planning: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def work() -> None:
        fill()
        Book.objects.filter(pk=1).update(title="B")

        def same() -> list[Any]:
            found = []
            for call in CALLS:
                with override_settings(VINYL={"PLAN_CACHE": False}):
                    found.append(outcome(lambda: call(QuerySet(Book))))  # noqa: B023
                for start in (Book.vinyl.all, Book.vinyl.all, lambda: Book.vinyl):
                    assert outcome(lambda: call(start())) == found[-1]  # noqa: B023
            return found

        before = same()
        with monkeypatch.context() as patch:
            patch.setattr(*REPLACED[name], raising=False)
            assert same() != before
        assert same() == before

    await vinyl.run(work)


def test_threads_that_share_a_queryset(engine: Any) -> None:
    """One builds its Query while another goes on from it."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(150):
            shared = planned(Book).filter(pages=1)
            ready = threading.Barrier(4)

            def built(shared: Any = shared, ready: Any = ready) -> int:
                ready.wait()
                return len(shared.query.where.children)

            def goes_on(shared: Any = shared, ready: Any = ready) -> int:
                ready.wait()
                return len(shared.filter(title="b").query.where.children)

            with ThreadPoolExecutor(4) as pool:
                found = [pool.submit(call) for call in (built, goes_on, built, goes_on)]
                assert [each.result() for each in found] == [1, 2, 1, 2]
    finally:
        sys.setswitchinterval(interval)
