"""A statement that is known goes straight to the driver: its results are Django's."""

from __future__ import annotations

import asyncio
import uuid
from decimal import Decimal
from typing import Any

import pytest
from django.db import connections, models, router, transaction
from django.db.models import IntegerField, Q, QuerySet
from django.db.models.lookups import Exact
from django.db.models.signals import post_init, pre_init
from django.test.utils import CaptureQueriesContext, override_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from library.models import Author, Book, Profile, Publisher, Sample
from plan_support import (  # noqa: F401
    CACHED,
    NOON,
    OTHERS,
    conditions,
    fill,
    fresh_plans,
    ours,
    outcome,
    registered,
)

import vinyl
from vinyl import VinylManager
from vinyl._core import Binder, Shapes
from vinyl.plan import statement as statements
from vinyl.plan.check import PlanMismatch, _shown
from vinyl.plan.node import Slot, root_of

# --- querysets


@pytest.mark.parametrize("name", CACHED)
async def test_results(engine: Any, planning: Any, executed: list[str], name: str) -> None:
    model, build, sets = CACHED[name]

    def work() -> None:
        fill()
        for values in sets * 3:
            theirs = outcome(lambda: build(QuerySet(model), *values))  # noqa: B023
            assert outcome(lambda: build(ours(model), *values)) == theirs  # noqa: B023
        assert len(executed) >= len(sets)

    await vinyl.run(work)


@pytest.mark.modes("asyncio", "blocking")
@pytest.mark.parametrize("name", OTHERS)
async def test_results_of_what_is_not_cached(engine: Any, planning: Any, name: str) -> None:
    model, build, sets = OTHERS[name]

    def swapped(manager: Any) -> Any:
        return lambda values: outcome(lambda: build(manager(model), *values))

    def work() -> None:
        fill()
        for values in sets + sets:
            assert swapped(ours)(values) == swapped(QuerySet)(values)

    await vinyl.run(work)


MODELS = {
    "values": lambda q: q.values(),
    "some values": lambda q: q.values("pk", "author__name"),
    "tuples": lambda q: q.values_list("pages", "price"),
    "named": lambda q: q.values_list("pages", "price", named=True),
    "flat": lambda q: q.values_list("price", flat=True),
    "related": lambda q: q.select_related("author", "publisher"),
    "deferred": lambda q: q.defer("price"),
    "only": lambda q: q.only("title", "author"),
    "only of a related one": lambda q: q.select_related("author").only("title", "author__name"),
    "prefetched": lambda q: [
        (book.pk, list(book.genres.all())) for book in q.prefetch_related("genres")
    ],
}


@pytest.mark.parametrize("name", MODELS)
async def test_kinds_of_results(engine: Any, planning: Any, executed: list[str], name: str) -> None:
    def work() -> None:
        fill()
        for _ in range(3):
            theirs = outcome(lambda: MODELS[name](QuerySet(Book).order_by("pk")))
            assert outcome(lambda: MODELS[name](ours(Book).order_by("pk"))) == theirs
        assert executed

    await vinyl.run(work)


async def test_every_type(engine: Any, planning: Any, executed: list[str]) -> None:
    def work() -> None:
        fill()
        for _ in range(3):
            assert outcome(lambda: ours(Sample).all()) == outcome(lambda: QuerySet(Sample).all())
            assert outcome(lambda: ours(Profile).select_related("author")) == outcome(
                lambda: QuerySet(Profile).select_related("author")
            )
            assert outcome(lambda: ours(Author).select_related("profile")) == outcome(
                lambda: QuerySet(Author).select_related("profile")
            )

    await vinyl.run(work)


async def test_exists(engine: Any, planning: Any, executed: list[str]) -> None:
    await vinyl.run(fill)
    for pages, answer in ((1, True), (77, False), (2, True), (78, False)):
        assert await Book.vinyl.filter(pages=pages).exists() is answer
    assert len(executed) == 3


# --- whole calls

GETS: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "pk": (Book, [{"pk": 1}, {"pk": 2}, {"pk": 3}, {"pk": 99}]),
    "none or many": (Book, [{"title": "a"}, {"title": "z"}, {"title": "b"}, {"title": "'"}]),
    "two": (Book, [{"pk": 1, "title": "a"}, {"title": "a", "pk": 1}, {"pk": 2, "title": "a"}]),
    "nothing": (Publisher, [{}, {}, {}]),
    "types": (Book, [{"pk": 1}, {"pk": "1"}, {"pk": True}, {"pk": 1.0}, {"pk": Decimal(1)}]),
    "bad": (Book, [{"pk": "x"}, {"pk": 1}, {"pk": "x"}, {"pk": "1"}, {"pk": "x"}, {"pk": None}]),
    "no field": (Book, [{"nope": 1}, {"nope": 2}]),
    "range": (Book, [{"pages": 1}, {"pages": 2**31}, {"pages": -(2**70)}, {"pages": 2}]),
    "relation": (Profile, [{"author": 1}, {"author": 2}, {"author_id": 1}, {"author__pk": 1}]),
    "instance": (Profile, [{"author": Author(pk=1)}, {"author": Author(pk=2)}]),
    "across": (Profile, [{"author__name": "a"}, {"author__name": "b"}]),
    "list": (Publisher, [{"pk__in": [1, 2]}, {"pk__in": [2, 3]}, {"pk__in": []}]),
    "ident": (Sample, [{"ident": uuid.UUID(int=5)}, {"ident": uuid.UUID(int=6)}]),
    "flag": (Sample, [{"flag": True}, {"flag": False}, {"flag": True, "small": 1}]),
    "moment": (Sample, [{"moment": NOON}, {"moment__lt": NOON}, {"day": NOON.date()}]),
    "pattern": (Publisher, [{"name__startswith": "p"}, {"name__startswith": "x"}]),
}


@pytest.mark.parametrize("name", GETS)
async def test_get(engine: Any, planning: Any, name: str) -> None:
    model, calls = GETS[name]
    await vinyl.run(fill)
    for kwargs in calls * 3:
        theirs = await vinyl.run(outcome, lambda: QuerySet(model).get(**kwargs))  # noqa: B023
        assert await vinyl.run(outcome, lambda: model.vinyl.get(**kwargs)) == theirs  # noqa: B023
        if type(theirs[0]) is type and issubclass(theirs[0], Exception):
            with pytest.raises(theirs[0]) as raised:
                await model.vinyl.get(**kwargs)
            assert str(raised.value) == theirs[1]
        else:
            assert _shown(await model.vinyl.get(**kwargs)) == theirs


async def test_get_that_hits(engine: Any, executed: list[str]) -> None:
    await vinyl.run(fill)
    for number in (1, 2, 3, 4):
        assert (await Book.vinyl.get(pk=number)).pk == number
    assert len(executed) == 3
    [call] = [each for key, each in root_of(Book).children.items() if key[0] == "get"]
    assert call.target is not None
    with CaptureQueriesContext(connections["default"]) as captured:
        assert (await Book.vinyl.get(pk=5)).pk == 5
    assert len(captured) == 1
    assert len(executed) == 3


async def test_a_wrong_call_is_found(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with override_settings(VINYL={"PLAN_CACHE": "check"}):
        await vinyl.run(fill)
        for _ in range(2):
            await Book.vinyl.get(pages=1, pk=2)
        monkeypatch.setattr(Slot, "fill", lambda self, value: value + 1)
        with pytest.raises(PlanMismatch, match="was to have"):
            await Book.vinyl.get(pages=1, pk=2)


async def test_wrong_rows_are_found(engine: Any) -> None:
    with override_settings(VINYL={"PLAN_CACHE": "check"}):
        await vinyl.run(fill)
        for _ in range(3):
            [queryset] = [Author.vinyl.order_by("pk")]
            assert len(await queryset) == 3
        [statement] = queryset.query._vinyl_node.statements.values()
        [plan] = statement.plans.values()
        plan.make = lambda rows, session, queryset: [Author(name="z") for _ in rows]
        with pytest.raises(PlanMismatch, match="Django makes"):
            await Author.vinyl.order_by("pk")


@pytest.mark.parametrize("signal", [pre_init, post_init])
async def test_a_receiver_connected_since(engine: Any, signal: Any) -> None:
    await vinyl.run(fill)
    for _ in range(3):
        await Author.vinyl.get(pk=1)
    seen: list[Any] = []

    def receive(sender: Any, **kwargs: Any) -> None:
        seen.append(sender)

    signal.connect(receive, sender=Author)
    try:
        await Author.vinyl.get(pk=1)
        assert seen == [Author]
        await Author.vinyl.order_by("pk")
        assert len(seen) == 4
    finally:
        signal.disconnect(receive, sender=Author)
    await Author.vinyl.get(pk=1)
    assert len(seen) == 4


async def test_a_model_changed_since(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await vinyl.run(fill)
    for _ in range(3):
        await Author.vinyl.get(pk=1)
    from_db = Author.from_db

    def loud(cls: Any, db: Any, names: Any, values: Any, **kwargs: Any) -> Any:
        author = from_db(db, names, values, **kwargs)
        author.name = author.name.upper()
        return author

    with monkeypatch.context() as patch:
        patch.setattr(Author, "from_db", classmethod(loud))
        assert (await Author.vinyl.get(pk=1)).name == "A"
    assert (await Author.vinyl.get(pk=1)).name == "a"


REPLACED = {
    "get": (QuerySet, "get"),
    "filter": (QuerySet, "filter"),
    "_fetch_all": (QuerySet, "_fetch_all"),
    "as_sql": (models.sql.compiler.SQLCompiler, "as_sql"),
    "execute_sql": (models.sql.compiler.SQLCompiler, "execute_sql"),
    "row loop": (models.query.ModelIterable, "__iter__"),
    "build_filter": (models.sql.query.Query, "build_filter"),
    "get_queryset": (models.Manager, "get_queryset"),
}


@pytest.mark.parametrize("name", REPLACED)
async def test_a_method_replaced_since(
    engine: Any, monkeypatch: pytest.MonkeyPatch, executed: list[str], name: str
) -> None:
    await vinyl.run(fill)
    for number in (1, 2, 3):
        await Author.vinyl.get(pk=number)
    owner, attribute = REPLACED[name]
    before = getattr(owner, attribute)
    called: list[str] = []

    def watching(self: Any, *args: Any, **kwargs: Any) -> Any:
        called.append(name)
        return before(self, *args, **kwargs)

    executed.clear()
    with monkeypatch.context() as patch:
        patch.setattr(owner, attribute, watching)
        assert (await Author.vinyl.get(pk=1)).name == "a"
        # The manager's queryset goes its way as before; all else is Django's, step by step. A
        # query that was compiled before is not compiled again, as it is without whole calls.
        assert bool(executed) is (name == "get_queryset")
        assert called or name in ("build_filter", "as_sql")
    assert (await Author.vinyl.get(pk=2)).name == "b"
    assert executed


async def test_a_lookup_registered_since(engine: Any, planning: Any) -> None:
    class Next(Exact):
        def get_prep_lookup(self) -> Any:
            return super().get_prep_lookup() + 1

    await vinyl.run(fill)
    for _ in range(3):
        assert (await Book.vinyl.get(pages=1)).pages == 1
        assert [book.pages for book in await Book.vinyl.filter(pages=1)] == [1]
    with registered(IntegerField, Next):
        assert (await Book.vinyl.get(pages=1)).pages == 2
        assert [book.pages for book in await Book.vinyl.filter(pages=1)] == [2]
    with registered(Book._meta.get_field("pages"), Next):
        assert (await Book.vinyl.get(pages=1)).pages == 2
        assert [book.pages for book in await Book.vinyl.filter(pages=1)] == [2]
    assert (await Book.vinyl.get(pages=1)).pages == 1


async def test_a_queryset_of_the_users(engine: Any, executed: list[str]) -> None:
    class Loud(QuerySet):
        def get(self, *args: Any, **kwargs: Any) -> Any:
            found = super().get(*args, **kwargs)
            found.name = found.name.upper()
            return found

        def named(self, name: str) -> Any:
            return self.filter(name=name)

    manager = vinyl.VinylManager.from_queryset(Loud)()
    manager.model = Author
    await vinyl.run(fill)
    for _ in range(3):
        assert (await manager.get(pk=1)).name == "A"
        assert [author.name for author in await manager.named("b")] == ["b"]
    assert executed  # what is fetched is fetched as by Django


async def test_a_queryset_of_the_users_that_fetches_and_clones(engine: Any) -> None:
    class Kept(QuerySet):
        """Under the methods of vinyl's that are its first base."""

        def _fetch_all(self) -> None:
            if self._result_cache is None and not self.query.is_sliced:
                self._result_cache = ["kept"]
            super()._fetch_all()

    class Flagged(QuerySet):
        def _clone(self) -> Any:
            clone = super()._clone()
            clone.query.add_q(Q(flag=True))
            return clone

    await vinyl.run(fill)
    await Sample.vinyl.create(flag=False)
    kept: Any = VinylManager.from_queryset(Kept)()
    kept.model = Book
    flagged: Any = VinylManager.from_queryset(Flagged)()
    flagged.model = Sample
    for planning in (False, True, True, "check"):
        with override_settings(VINYL={"PLAN_CACHE": planning}):
            assert len(await Book.vinyl.filter(pages__gte=0)) == 6
            assert await kept.filter(pages__gte=0) == ["kept"]
            assert len(await kept.filter(pages__gte=0)[:2]) == 2
            async with vinyl.atomic():
                # Django makes a copy to delete by, and not one to update by.
                assert await Sample.vinyl.update(small=1) == 2
                assert await flagged.get_queryset().update(small=1) == 2
                assert (await flagged.get_queryset().delete())[0] == 1
                assert (await Sample.vinyl.all().delete())[0] == 1
                await vinyl.run(transaction.set_rollback, True)


async def test_a_manager_of_the_users(engine: Any) -> None:
    class Few(vinyl.VinylManager):
        def get_queryset(self) -> Any:
            return super().get_queryset().filter(name="a")

    manager = Few()
    manager.model = Author
    await vinyl.run(fill)
    for _ in range(3):
        assert (await manager.get(pk=1)).name == "a"
        with pytest.raises(Author.DoesNotExist):
            await manager.get(pk=2)


async def test_routers_are_asked_once(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Router:
        def db_for_read(self, model: Any, **hints: Any) -> str:
            asked.append(model)
            return "default"

    await vinyl.run(fill)
    monkeypatch.setattr(router, "routers", [Router()])
    for number in range(1, 4):
        await Author.vinyl.get(pk=number)
        assert len(asked) == number
    for number in range(4, 8):
        await Author.vinyl.filter(pk=1)
        assert len(asked) == number
    with CaptureQueriesContext(connections["default"]):
        await Author.vinyl.filter(pk=1)
    assert len(asked) == 8


@pytest.mark.modes("asyncio", "uvloop")
async def test_many_tasks(engine: Any) -> None:
    await vinyl.run(fill)

    async def one(number: int) -> None:
        for _ in range(5):
            assert (await Book.vinyl.get(pk=number)).pk == number
            [book] = await Book.vinyl.filter(pk=number)
            assert book.pk == number

    await asyncio.gather(*[one(number % 6 + 1) for number in range(24)])


def test_in_plain_code_it_is_awaited(engine: Any) -> None:
    fill()
    for number in (1, 2, 3, 4):
        operation = Book.vinyl.get(pk=number)
        assert "QuerySet.get" in repr(operation)

        async def main() -> Any:
            return await operation  # noqa: B023

        assert vinyl.drive(main()).pk == number


# --- the parts in C


def test_shapes() -> None:
    shapes = Shapes(frozenset({int, str}), Q, models.Model, 2)
    assert shapes.of_call("get", {"b": 1, "a": "x"}) == (("get", "a", str, "b", int), ["x", 1])
    assert shapes.of_call("get", {}) == (("get",), [])
    assert shapes.of_call("get", {"a": True}) == (("get", "a", (bool, True)), [])
    assert shapes.of_call("get", {"a": [1, "x"]}) == (
        ("get", "a", (list, (int, str))),
        [[1, "x"]],
    )
    author = Author(pk=1)
    assert shapes.of_call("get", {"a": author}) == (("get", "a", Author), [author])
    for value in (None, 1.5, [], [1, 2, 3], [None], {}, object(), Q(a=1), type("T", (int,), {})(1)):
        assert shapes.of_call("get", {"a": value}) is None
    for q in (Q(a=1), Q(a=1) | Q(b="x"), ~Q(a=1) & Q(Q(a=2) | ~Q(b="y"), c=True)):
        shape = shapes.of_filter(q)
        assert shape is not None
        assert hash(shape[0]) == hash(shapes.of_filter(q)[0])  # type: ignore[index]
    assert shapes.of_filter(Q(a=None)) is None
    assert shapes.of_filter(Q(models.Exists(QuerySet(Author)))) is None
    assert shapes.of_filter("a") is None
    keys = [shapes.of_filter(q) for q in (Q(a=1), ~Q(a=1), Q(a="1"), Q(b=1), Q(a=True))]
    assert len({key for key, _ in keys}) == len(keys)  # type: ignore[misc]
    with pytest.raises(TypeError):
        shapes.of_call("get", [])  # type: ignore[arg-type]


def test_a_list_that_changes_while_it_is_looked_at() -> None:
    numbers: list[Any] = []

    class Clears(type):
        def __hash__(cls) -> int:
            numbers.clear()
            return hash(int)

        def __eq__(cls, other: object) -> bool:
            return True

    class Odd(metaclass=Clears):
        pass

    shapes = Shapes(frozenset({int}), Q, models.Model, 64)
    for count in (1, 2, 60):
        numbers[:] = [Odd() for _ in range(count)]
        assert shapes.of_filter(Q(pk__in=numbers)) is None


def test_binder() -> None:
    constant = ((7, "c"), None, None, 0, 0)
    binder = Binder(
        (constant, (None, int, None, -5, 5), (None, int, float, -5, 5), (None, str, None, 0, 0))
    )
    assert binder((5, 3, "x")) == (7, "c", 5, 3.0, "x")
    assert type(binder([5, 3, "x"])[3]) is float  # type: ignore[index]
    for values in (
        (6, 3, "x"),
        (-6, 3, "x"),
        (2**70, 3, "x"),
        (True, 3, "x"),
        (5, 3, b"x"),
        (5, 3),
    ):
        assert binder(values) is None
    assert binder((5, 3, "x", 4)) is None
    assert Binder(((None, uuid.UUID, "hex", 0, 0),))([uuid.UUID(int=1)]) == ("0" * 31 + "1",)
    for parts in (((1,),), ((None, None, None, 0, 0),), (([], None, None, 0, 0),), (1,)):
        with pytest.raises(TypeError):
            Binder(parts)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        binder(5)  # type: ignore[arg-type]


# --- generated


@pytest.mark.filterwarnings("ignore:DateTimeField:RuntimeWarning")
@pytest.mark.modes("blocking")
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(condition=conditions(), names=st.sets(st.sampled_from(["pk", "pages", "title"])))
def test_any_filter_fetches_as_djangos(engine: Any, condition: Q, names: set[str]) -> None:
    def work() -> None:
        if not Book.objects.exists():
            fill()
        plain = [child for child in condition.children if type(child) is tuple]
        for check in (True, "check"):
            with override_settings(VINYL={"PLAN_CACHE": check}):
                for _ in range(2):
                    theirs = outcome(lambda: QuerySet(Book).filter(condition).order_by("pk"))
                    assert outcome(lambda: ours(Book).filter(condition).order_by("pk")) == theirs
                    if len(plain) == len(condition.children):
                        kwargs = dict(plain)
                        theirs = outcome(lambda: QuerySet(Book).get(**kwargs))  # noqa: B023
                        assert outcome(lambda: Book.vinyl.get(**kwargs)) == theirs  # noqa: B023

    async def main() -> None:
        await vinyl.run(work)

    vinyl.drive(main())


def test_hits_are_counted(engine: Any) -> None:
    async def main() -> None:
        await vinyl.run(fill)
        before = statements.stats["hits"]  # of its writes
        for number in (1, 2, 3, 4):
            await Author.vinyl.filter(pk=number)
            await Publisher.vinyl.filter(pk=number).exists()
        assert statements.stats["hits"] - before == 6

    vinyl.drive(main())
