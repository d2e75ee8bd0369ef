"""aggregate() and count() of planned querysets: what Django answers, straight from the driver."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from django.db import connections
from django.db.models import (
    Avg,
    Count,
    DecimalField,
    F,
    FloatField,
    Max,
    Min,
    Q,
    QuerySet,
    StdDev,
    Sum,
    Value,
)
from django.test.utils import CaptureQueriesContext, override_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from library.models import Author, Book, Publisher, Sample
from plan_support import (  # noqa: F401
    NOON,
    conditions,
    fill,
    fresh_plans,
    ours,
    outcome,
)

import vinyl
from vinyl._core import aggregates_key
from vinyl.plan import statement as statements
from vinyl.plan.aggregates import _KINDS
from vinyl.plan.check import PlanMismatch

F_STAR = F, type(Count("*").get_source_expressions()[0])

#: Of a queryset and a value.
PLANNED: dict[str, Any] = {
    "four": lambda q, n: q.filter(author=n).aggregate(
        n=Count("pk"), total=Sum("pages"), mean=Avg("pages"), price=Max("price")
    ),
    "names of its own": lambda q, n: q.filter(author=n).aggregate(Count("pk"), Min("price")),
    "all": lambda q, n: q.aggregate(n=Count("*")),
    "across": lambda q, n: q.filter(pages__gte=n).aggregate(Max("author__name"), Min("author__pk")),
    "back": lambda q, n: q.filter(pages__gte=n).aggregate(
        n=Count("genres"), m=Count("genres__name")
    ),
    "distinct": lambda q, n: q.filter(pages__gte=n).aggregate(n=Count("title", distinct=True)),
    "and not": lambda q, n: q.filter(pages__gte=n).aggregate(
        n=Count("title", distinct=True), m=Count("title")
    ),
    "none fit": lambda q, n: q.filter(pages=n + 70).aggregate(Sum("pages"), Count("pages")),
    "dates": lambda q, n: q.filter(author=n).aggregate(Max("published"), Min("published")),
    "ordered": lambda q, n: q.filter(author=n).order_by("-pages").aggregate(Sum("price")),
    "related": lambda q, n: q.filter(author=n).select_related("author").aggregate(Avg("price")),
    "of values": lambda q, n: q.filter(author=n).values("pages").aggregate(Avg("price")),
    "only": lambda q, n: q.filter(author=n).only("pages").aggregate(Avg("price")),
    "count": lambda q, n: q.filter(author=n).count(),
    "count all": lambda q, n: q.count(),
    "count across": lambda q, n: q.filter(genres__name="ab"[n % 2]).count(),
}
#: What Django does each time.
OTHERS: dict[str, Any] = {
    "filter": lambda q, n: q.aggregate(n=Count("pk", filter=Q(pages=n))),
    "default": lambda q, n: q.filter(pages=n).aggregate(n=Sum("pages", default=n)),
    "type": lambda q, n: q.aggregate(n=Sum("pages", output_field=FloatField())),
    "type, decimal": lambda q, n: q.aggregate(n=Max("pages", output_field=DecimalField())),
    "another": lambda q, n: q.aggregate(StdDev("pages")),
    "expression": lambda q, n: q.aggregate(n=Sum(F("pages") * n)),
    "value": lambda q, n: q.aggregate(n=Max(Value(n))),
    "combined": lambda q, n: q.aggregate(n=Sum("pages") + n),
    "extra": lambda q, n: q.aggregate(n=Sum("pages", template="%(function)s(1 + %(expressions)s)")),
    "slice": lambda q, n: q.order_by("pk")[:n].aggregate(Sum("pages")),
    "count of a slice": lambda q, n: q[:n].count(),
    "distinct query": lambda q, n: q.distinct().aggregate(Sum("pages")),
    "annotated": lambda q, n: q.annotate(g=Count("genres")).aggregate(Sum("g")),
    "pattern": lambda q, n: q.filter(title__contains="a").aggregate(Sum("pages")),
    "nothing": lambda q, n: q.none().aggregate(Sum("pages"), Count("pages")),
    "empty list": lambda q, n: q.filter(pk__in=[]).aggregate(Sum("pages"), Count("pages")),
    "out of range": lambda q, n: q.filter(pages=2**40).aggregate(Sum("pages"), Count("pages")),
    "no aggregate": lambda q, n: q.aggregate(),
    "no such field": lambda q, n: q.aggregate(Sum("nope")),
    "a field's name": lambda q, n: q.aggregate(pages=Sum("pages"), more=Sum("pages")),
    "one of another": lambda q, n: q.aggregate(n=Sum("pages"), m=Max("n")),
    "bad alias": lambda q, n: q.aggregate(**{"a b": Sum("pages")}),
    "not one": lambda q, n: q.aggregate(n=F("pages")),
    "nor that": lambda q, n: q.aggregate(n=3),
    "a sum of texts": lambda q, n: q.aggregate(n=Count("title"), m=Count(F("pages"))),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANNED)
async def test_planned(engine: Any, planning: Any, executed: list[str], name: str) -> None:
    def work() -> None:
        fill()
        for number in (1, 2, 3):
            theirs = outcome(lambda: PLANNED[name](QuerySet(Book), number))  # noqa: B023
            assert outcome(lambda: PLANNED[name](ours(Book), number)) == theirs  # noqa: B023
        assert len(executed) == 2

    await vinyl.run(work)


@pytest.mark.modes("asyncio", "blocking")
@pytest.mark.parametrize("name", OTHERS)
async def test_not_planned(engine: Any, planning: Any, name: str) -> None:
    def work() -> None:
        fill()
        for number in (1, 2, 3):
            theirs = outcome(lambda: OTHERS[name](QuerySet(Book), number))  # noqa: B023
            assert outcome(lambda: OTHERS[name](ours(Book), number)) == theirs  # noqa: B023

    await vinyl.run(work)


async def test_every_type(engine: Any, planning: Any, executed: list[str]) -> None:
    def work() -> None:
        fill()
        Sample.objects.create()
        Sample.objects.create(real=float("inf"), day=NOON.date() + datetime.timedelta(1))
        names = [field.name for field in Sample._meta.fields]
        calls = {
            f"{kind.name} of {name}": (kind, name)
            for name in names
            for kind in (Avg, Count, Max, Min, Sum)
        }
        for kind, name in calls.values():
            for _ in range(3):
                theirs = outcome(lambda: QuerySet(Sample).aggregate(a=kind(name)))  # noqa: B023
                assert outcome(lambda: ours(Sample).aggregate(a=kind(name))) == theirs  # noqa: B023
        assert len(executed) > len(names) * 3

    with override_settings(VINYL={"PLAN_CACHE": planning}):
        if engine.name == "sqlite":
            await vinyl.run(work)
        else:  # an error breaks the transaction of the test
            await vinyl.run(fill)
            for name in ("small", "big", "real", "exact", "span"):
                for kind in (Avg, Count, Max, Min, Sum):
                    theirs = await vinyl.run(QuerySet(Sample).aggregate, a=kind(name))
                    for _ in range(3):
                        assert await Sample.vinyl.aggregate(a=kind(name)) == theirs
            assert len(executed) == 50


async def test_awaited(engine: Any, planning: Any, executed: list[str]) -> None:
    await vinyl.run(fill)
    for number in (1, 2, 3):
        found = Book.vinyl.filter(author=number)
        assert await found.aggregate(Sum("pages"), n=Count("*")) == {
            "n": 2,
            "pages__sum": 2 * number + 1,
        }
        assert await found.count() == 2
        assert len(await found) == 2  # the queryset is as it was
    assert len(executed) == 6
    with CaptureQueriesContext(connections["default"]) as captured:
        assert await Book.vinyl.filter(author=1).count() == 2
    assert len(captured) == 1
    assert len(executed) == 6


async def test_a_method_replaced_since(
    engine: Any, monkeypatch: pytest.MonkeyPatch, executed: list[str]
) -> None:
    await vinyl.run(fill)
    for _ in range(2):
        await Book.vinyl.aggregate(n=Max("pages"))
    assert len(executed) == 1
    with monkeypatch.context() as patch:
        patch.setattr(Max, "function", "MIN")
        assert await Book.vinyl.aggregate(n=Max("pages")) == {"n": 0}
    assert await Book.vinyl.aggregate(n=Max("pages")) == {"n": 5}


async def test_a_wrong_plan_is_found(engine: Any) -> None:
    with override_settings(VINYL={"PLAN_CACHE": "check"}):
        await vinyl.run(fill)
        books = Book.vinyl.filter(pages__gte=1)
        for _ in range(2):
            assert await books.count() == 5
        (node,) = books.query._vinyl_node.children.values()
        (statement,) = node.statements.values()
        (plan,) = statement.plans.values()
        make = plan.make
        plan.make = lambda rows, session, queryset: [{"__count": 6}]
        with pytest.raises(PlanMismatch, match="Django makes"):
            await books.count()
        plan.make = make
        statement.sql += " -- wrong"
        with pytest.raises(PlanMismatch, match="Django compiles"):
            await books.count()


def test_keys() -> None:
    def key(**aggregates: Any) -> Any:
        return aggregates_key(aggregates, _KINDS, *F_STAR)

    assert key(a=Sum("x"), b=Count("*")) == ("a", Sum, False, "x", "b", Count, False, F_STAR[1])
    assert key(a=Count("x", distinct=True)) == ("a", Count, True, "x")
    assert key(a=Max(F("x"))) == key(a=Max("x"))
    assert key(b=Max("x"), a=Max("y")) != key(a=Max("y"), b=Max("x"))
    named = F("x")
    named.more = 1  # type: ignore[attr-defined]
    changed = Sum("x")
    changed.function = "MAX"  # type: ignore[assignment]
    other_f = type("G", (F,), {})("x")
    for other in (
        Sum("x", default=1), Sum("x", filter=Q(y=1)), Sum("x", output_field=FloatField()),
        Sum("x", function="MAX"), StdDev("x"), Sum(Sum("x")), Sum(Value(1)), Sum(named), changed,
        F("x"), 3, None, Sum("x") + 1, type("Other", (Sum,), {})("x"), Sum(other_f),
    ):  # fmt: skip
        assert key(a=other) is None
        assert key(b=Sum("x"), a=other) is None
    for wrong in ([], (_KINDS, *F_STAR), ({}, _KINDS, 1, 2), ({}, [], *F_STAR)):
        with pytest.raises(TypeError):
            aggregates_key(*wrong)


@pytest.mark.filterwarnings("ignore:DateTimeField:RuntimeWarning")
@pytest.mark.modes("blocking")
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    condition=conditions(),
    aggregates=st.lists(
        st.tuples(
            st.sampled_from([Avg, Count, Max, Min, Sum]),
            st.sampled_from(["pk", "pages", "price", "author", "genres", "author__books__pages"]),
        ),
        max_size=3,
    ),
)
def test_any_filter_aggregates_as_djangos(engine: Any, condition: Q, aggregates: Any) -> None:
    def answers(queryset: Any) -> Any:
        found = queryset.filter(condition)
        return (
            outcome(lambda: found.aggregate(*[kind(name) for kind, name in aggregates])),
            outcome(found.count),
            outcome(found.exists),
        )

    def work() -> None:
        if not Book.objects.exists():
            fill()
        theirs = answers(QuerySet(Book))
        for check in (True, "check"):
            with override_settings(VINYL={"PLAN_CACHE": check}):
                for _ in range(2):
                    assert answers(ours(Book)) == theirs

    async def main() -> None:
        await vinyl.run(work)

    vinyl.drive(main())


def test_hits_are_counted(engine: Any) -> None:
    async def main() -> None:
        await vinyl.run(fill)
        statements.stats.update(hits=0, misses=0, uncached=0)
        for number in (1, 2, 3):
            await Author.vinyl.filter(pk=number).count()
            await Publisher.vinyl.filter(pk=number).aggregate(Max("name"))
        assert statements.stats == {"hits": 4, "misses": 2, "uncached": 0}

    vinyl.drive(main())
