"""The plan cache: what it compiles is what Django compiles, for every shape and value."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import FieldError
from django.db import connections
from django.db.models import (
    Count,
    Max,
    Prefetch,
    Q,
    QuerySet,
    Value,
    Window,
)
from django.db.models.functions import Coalesce, RowNumber
from django.db.models.lookups import LessThanOrEqual
from django.db.models.sql.query import Query
from django.test.utils import override_settings
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from library.models import Author, Book
from plan_support import (  # noqa: F401
    CACHED,
    NOON,
    OTHERS,
    compiled,
    conditions,
    fresh_plans,
    planned,
)

import vinyl
from vinyl import VinylManager
from vinyl.plan import node as nodes
from vinyl.plan import statement as statements
from vinyl.plan.query import PlannedQuery


def outcome(build: Callable[..., Any], queryset: Any, *values: Any) -> Any:
    try:
        return compiled(build(queryset, *values))
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize("name", CACHED)
def test_what_is_cached(engine: Any, name: str) -> None:
    model, build, sets = CACHED[name]
    for values in sets:
        theirs = compiled(build(QuerySet(model), *values))
        assert compiled(build(planned(model), *values)) == theirs
    assert statements.stats == {"hits": len(sets) - 1, "misses": 1, "uncached": 0}


@pytest.mark.parametrize("name", OTHERS)
def test_what_may_not_be(engine: Any, name: str) -> None:
    model, build, sets = OTHERS[name]
    for values in sets + sets:
        assert outcome(build, planned(model), *values) == outcome(build, QuerySet(model), *values)


def test_a_value_out_of_range_does_not_spoil_its_shape(engine: Any) -> None:
    for value in (-(2**70), 1, 2):
        compiled(planned(Book).filter(pages__gt=value))
    assert statements.stats == {"hits": 1, "misses": 2, "uncached": 0}


def test_an_error_comes_where_django_raises_it(engine: Any) -> None:
    for _ in range(2):
        planned(Book).filter(pages="3")
        with pytest.raises(ValueError, match="Field 'pages' expected a number but got 'abc'"):
            planned(Book).filter(pages="abc")
        with pytest.raises(FieldError, match="Cannot resolve keyword 'nope'"):
            planned(Book).filter(nope=1)


def test_the_query_itself_is_djangos(engine: Any) -> None:
    for _ in range(2):
        queryset = planned(Book).filter(pages=1).order_by("pk")
        assert isinstance(queryset.query, Query)
        assert str(queryset.query) == str(QuerySet(Book).filter(pages=1).order_by("pk").query)
        assert len(queryset.query.where.children) == 1
        assert type(queryset.query) is Query
        # Changed by hand: from now on it is that.
        queryset.query.set_limits(high=3)
        assert compiled(queryset) == compiled(QuerySet(Book).filter(pages=1).order_by("pk")[:3])


@pytest.mark.parametrize(
    "change",
    [
        lambda query: setattr(query, "high_mark", 3),
        lambda query: setattr(query, "default_ordering", False),
        lambda query: query.add_filter("title", "x"),
        lambda query: query.where.children.clear(),
    ],
)
def test_a_query_changed_by_hand_is_not_the_planned_one(engine: Any, change: Any) -> None:
    for _ in range(2):
        ours, theirs = planned(Book).filter(pages=1), QuerySet(Book).filter(pages=1)
        change(ours.query)
        change(theirs.query)
        assert compiled(ours) == compiled(theirs)
    assert compiled(planned(Book).filter(pages=1)) == compiled(QuerySet(Book).filter(pages=1))


def test_a_window_added_to_what_was_compiled(engine: Any) -> None:
    # As Django does it to prefetch from a slice.
    def build(queryset: Any) -> Any:
        queryset = queryset.order_by("pages")[:2]
        order = [each for each, _ in queryset.query.get_compiler("default").get_order_by()]
        window = Window(RowNumber(), partition_by="author", order_by=order)
        queryset.query.clear_limits()
        queryset.query.add_q(Q(pages__in=[1, 2]) & LessThanOrEqual(window, 2), reuse_all=True)
        return queryset

    for _ in range(3):
        assert compiled(build(planned(Book))) == compiled(build(QuerySet(Book)))


def test_a_value_is_the_one_that_was_given(engine: Any) -> None:
    for first in (1, 4):
        author = Author(pk=first)
        numbers = [first, first + 1]
        queryset = planned(Book).filter(author=author, pk__in=numbers)
        theirs = compiled(QuerySet(Book).filter(author=author, pk__in=numbers))
        author.pk = 99
        numbers.append(99)
        assert compiled(queryset) == theirs
        str(queryset.query)
        assert compiled(queryset) == theirs


def test_a_queryset_that_starts_with_a_query_of_its_own(engine: Any) -> None:
    class Numbered(Query):
        pass

    class NumberedQuerySet(QuerySet):
        def __init__(self, model: Any = None, query: Any = None, *args: Any, **kwargs: Any) -> None:
            super().__init__(model, query or Numbered(model), *args, **kwargs)

    manager = VinylManager.from_queryset(NumberedQuerySet)()
    manager.model = Book
    for _ in range(2):
        assert type(manager.filter(pages=1).query) is Numbered
    assert isinstance(Book.vinyl.filter(pages=1).query, PlannedQuery)


def test_copies_and_pickles(engine: Any) -> None:
    for _ in range(2):
        queryset = planned(Book).filter(pages=1)
        for other in (copy.copy(queryset), copy.deepcopy(queryset), queryset.all()):
            assert compiled(other.filter(title="a")) == compiled(
                QuerySet(Book).filter(pages=1).filter(title="a")
            )
        again = Book.objects.all()
        again.query = pickle.loads(pickle.dumps(queryset.query))
        assert compiled(again) == compiled(QuerySet(Book).filter(pages=1))


@pytest.mark.parametrize("constant", [1, 2, 3])
def test_a_model_ordered_by_an_expression(
    engine: Any, monkeypatch: pytest.MonkeyPatch, constant: int
) -> None:
    monkeypatch.setattr(Book._meta, "ordering", (Coalesce("price", Value(constant)), "pk"))
    for n in (1, 2, 3):
        assert compiled(planned(Book).filter(pages=n)) == compiled(QuerySet(Book).filter(pages=n))


@pytest.mark.parametrize(
    "build",
    [
        lambda queryset: queryset.values_list("published__date"),
        lambda queryset: queryset.order_by("published__hour"),
        lambda queryset: queryset.filter(pages=1).values("published__date").order_by("pages"),
    ],
)
def test_a_transform_asks_for_the_time_zone(engine: Any, build: Callable[[Any], Any]) -> None:
    for name in ("Europe/Zurich", "Asia/Tokyo", "America/Lima"):
        with timezone.override(name):
            assert compiled(build(planned(Book))) == compiled(build(QuerySet(Book)))


async def test_an_aggregate_of_a_transform(engine: Any) -> None:
    def work() -> None:
        Book.objects.create(
            title="late", author=Author.objects.create(), published=NOON.replace(hour=22)
        )
        for name, day in (("UTC", 2), ("Asia/Tokyo", 3), ("America/Lima", 2)):
            with timezone.override(name):
                assert planned(Book).aggregate(day=Max("published__date"))["day"].day == day

    await vinyl.run(work)


def test_a_join_that_asks_for_a_content_type(engine: Any) -> None:
    def build(queryset: Any) -> Any:
        return queryset.filter(notes__text="x")

    try:
        for number in (7, 8):
            book = ContentType(pk=number, app_label="library", model="book")
            ContentType.objects.clear_cache()
            ContentType.objects._add_to_cache("default", book)
            for _ in range(2):
                assert compiled(build(planned(Book))) == compiled(build(QuerySet(Book)))
    finally:
        ContentType.objects.clear_cache()


def test_a_column_that_is_selected_otherwise(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    languages = ["de"]

    def select_format(compiler: Any, sql: str, params: Any) -> Any:
        return f"{sql} || '{languages[-1]}'", params

    monkeypatch.setattr(Book._meta.get_field("title"), "select_format", select_format)
    assert compiled(planned(Book).all()) == compiled(QuerySet(Book).all())
    languages.append("fr")
    assert compiled(planned(Book).all()) == compiled(QuerySet(Book).all())


def test_the_least_used_are_forgotten(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "most_nodes", 20)
    for n in range(1, 60):
        compiled(planned(Book).filter(pages=1))
        compiled(planned(Book).filter(pk__in=range(1)) if n > 60 else planned(Book)[:n])
    assert nodes.count_nodes() <= 20
    assert statements.stats["hits"] == 58  # the one in use stays


def test_check_finds_a_wrong_plan(engine: Any) -> None:
    with override_settings(VINYL={"PLAN_CACHE": "check"}):
        queryset = planned(Book).filter(pages=1)
        compiled(queryset)
        compiled(planned(Book).filter(pages=2))
        [statement] = queryset.query._vinyl_node.statements.values()
        statement.sql += " -- wrong"
        with pytest.raises(statements.PlanMismatch, match="wrong"):
            compiled(planned(Book).filter(pages=3))


@pytest.mark.modes("asyncio", "blocking")
async def test_rows_and_errors_are_djangos(engine: Any) -> None:
    with override_settings(VINYL={"PLAN_CACHE": "check"}):
        authors = [await Author.vinyl.create(name=name) for name in "abc"]
        for author in authors:
            await author.books.create(title=f"of {author}", pages=author.pk)
        for _ in range(2):
            for author in authors:
                assert await Author.vinyl.get(pk=author.pk) == author
                assert await Author.vinyl.filter(name=author.name).exists()
                [book] = await Book.vinyl.select_related("author").filter(author=author)
                assert book.author == author
                assert await Book.vinyl.filter(pages=author.pk).values_list("title", flat=True) == [
                    f"of {author}"
                ]
                assert await author.books.filter(pages__gte=0).first() == book
            with pytest.raises(Author.DoesNotExist, match="Author matching query does not exist"):
                await Author.vinyl.get(pk=0)
            with pytest.raises(Author.MultipleObjectsReturned, match="it returned 3!"):
                await Author.vinyl.get()
            found = await Author.vinyl.order_by("name").prefetch_related(
                Prefetch("books", Book.vinyl.filter(pages__gte=0))
            )
            assert [len(each.books.all()) for each in found] == [1, 1, 1]
    assert statements.stats["hits"] > 10


# --- generated

steps = st.lists(
    st.one_of(
        conditions().map(lambda q: lambda qs: qs.filter(q)),
        conditions().map(lambda q: lambda qs: qs.exclude(q)),
        st.sampled_from(
            [
                lambda qs: qs.order_by("-pages", "author__name"),
                lambda qs: qs.order_by(),
                lambda qs: qs.select_related("author"),
                lambda qs: qs.only("title", "author"),
                lambda qs: qs.defer("price"),
                lambda qs: qs.values_list("title", "author__name"),
                lambda qs: qs.distinct(),
                lambda qs: qs.reverse(),
                lambda qs: qs[1:5],
                lambda qs: qs.all(),
                lambda qs: qs.annotate(n=Count("genres")),
            ]
        ),
    ),
    max_size=4,
)


@pytest.mark.filterwarnings("ignore:DateTimeField:RuntimeWarning")
@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(chain=steps)
def test_any_chain_compiles_as_djangos(engine: Any, chain: list[Any]) -> None:
    def build(queryset: Any) -> Any:
        for step in chain:
            queryset = step(queryset)
        return queryset

    theirs = outcome(build, QuerySet(Book))
    for _ in range(3):
        assert outcome(build, planned(Book)) == theirs
    assert connections["default"].vendor == engine.name
