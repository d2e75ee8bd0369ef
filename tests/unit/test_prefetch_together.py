"""Lookups whose statements travel together leave behind what Django's leave one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.contrib.contenttypes.prefetch import GenericPrefetch
from django.db import connection, router, transaction
from django.db import models as django_models
from django.db.models import Manager, Prefetch, QuerySet
from django.db.models import query as django_query
from django.db.models.fields.related_descriptors import ForwardManyToOneDescriptor
from django.test.utils import CaptureQueriesContext
from fix_engine import Engine
from library.models import Author, Book, Genre, Note, Publisher
from prefetch_support import Trips, fill, one_after_the_other, tree
from recordshop.models import Artist, Label, Record, Style, Track

from vinyl import _core, prefetch, relations

Authors, Books, Notes = Author.objects, Book.objects, Note.objects
#: name: (a query, its round trips on PostgreSQL when all is known, and without strands)
SHAPES: dict[str, tuple[Callable[[], Any], int, int]] = {
    "forward": (lambda: Books.prefetch_related("author", "publisher"), 2, 3),
    "all kinds": (
        lambda: Books.prefetch_related("author", "publisher", "genres", "notes"), 2, 5,
    ),
    "deep": (
        lambda: Books.prefetch_related("author__profile", "publisher", "genres"), 3, 5,
    ),
    "deep and deep": (
        lambda: Publisher.objects.prefetch_related("books__genres", "books__author__profile"), 4, 5,
    ),
    "forks": (
        lambda: Publisher.objects.prefetch_related(
            "books", "books__genres", "books__author__profile", "books__notes",
            Prefetch("books__author__books", Books.filter(pages=1), to_attr="ones"),
            "books__author__ones__genres", "books__author__ones__notes",
        ), 5, 9,
    ),
    "forks of an attribute": (
        lambda: Authors.prefetch_related(
            "profile", Prefetch("books", Books.filter(pages=1), to_attr="ones"),
            "ones__genres", "ones__notes", Prefetch("ones__publisher", to_attr="house"),
            Prefetch("books", Books.order_by("-pages")), "books__genres", "books__publisher",
        ), 3, 9,
    ),
    "forks late": (
        lambda: Genre.objects.prefetch_related("books__author__profile", "books__author__books"),
        4, 5,
    ),
    "forks with itself": (
        lambda: Publisher.objects.prefetch_related(
            "books__genres", "books__author", "books", "books__genres"
        ), 4, 4,
    ),
    "a name again": (
        lambda: Books.prefetch_related("author", "genres", "author__profile", "author"), 3, 4,
    ),
    "to_attr": (
        lambda: Authors.prefetch_related(
            Prefetch("books", Books.filter(pages__gt=0), to_attr="thick"), "books",
            Prefetch("books", Books.filter(pages=0), to_attr="thin"), "thin__genres",
        ), 3, 5,
    ),
    "sliced": (
        lambda: Authors.prefetch_related(
            Prefetch("books", Books.order_by("-pages")[:1], to_attr="thick"), "profile",
        ), 2, 3,
    ),
    "prefetching": (
        lambda: Authors.prefetch_related(
            Prefetch("books", Books.prefetch_related("genres", "publisher").filter(pages=1)),
            "profile",
        ), 3, 5,
    ),
    "prefetching forward": (
        lambda: Books.prefetch_related(
            Prefetch("author", Authors.prefetch_related("profile")), "genres",
        ), 3, 4,
    ),
    "none": (
        lambda: Authors.prefetch_related(Prefetch("books", Books.none()), "profile"), 2, 2,
    ),
    "one is none": (
        lambda: Authors.prefetch_related(
            "profile", Prefetch("books", Books.none()),
            Prefetch("books", Books.filter(pages=1), to_attr="one"),
        ), 2, 3,
    ),
    "none among to_attr": (
        lambda: Authors.prefetch_related(
            Prefetch("books", Books.filter(pages=1), to_attr="one"),
            Prefetch("books", Books.none(), to_attr="no"), "profile",
        ), 2, 3,
    ),
    "generic, back": (lambda: Notes.prefetch_related("subject", "content_type"), 2, 3),
    "generic, a queryset": (
        lambda: Notes.prefetch_related(
            GenericPrefetch("subject", [Books.prefetch_related("genres", "author")]), "content_type"
        ), 3, 5,
    ),
    "selected": (
        lambda: Books.select_related("author", "publisher").prefetch_related(
            "author__profile", "publisher__books", "genres"
        ), 3, 4,
    ),
    "back": (lambda: Authors.prefetch_related("books__author__books", "profile"), 3, 3),
    "back to what another sets": (
        lambda: Authors.prefetch_related("books__author__profile", "profile"), 4, 4,
    ),
    "back to another queryset": (
        lambda: Authors.prefetch_related(
            Prefetch("books", Books.prefetch_related(
                Prefetch("author__books", Books.filter(pages=1), to_attr="ones")
            )),
            Prefetch("books", Books.filter(pages=0), to_attr="ones"),
        ), 5, 5,
    ),
    "through what is no relation": (
        lambda: Books.prefetch_related("genres", "author", "author__books__author"), 3, 4,
    ),
    "ordered": (
        lambda: Authors.prefetch_related(
            Prefetch("books", Books.filter(pages=1).order_by("pk")), "profile"
        ), 2, 3,
    ),
    "one": (lambda: Books.prefetch_related("genres"), 2, 2),
}  # fmt: skip


def found(query: Callable[[], Any]) -> Any:
    return tree(list(query().order_by("pk")), {})


@pytest.mark.parametrize("name", SHAPES)
async def test_equal_to_django(
    engine: Engine, mode: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, together, apart = SHAPES[name]

    def compare() -> None:
        fill()
        with one_after_the_other(monkeypatch):
            expected = found(query)
            with Trips() as slow:
                assert found(query) == expected
        for _ in range(3):
            with Trips() as fast:
                assert found(query) == expected
            assert fast.statements == slow.statements
        if engine.name == "postgresql":
            assert (fast.count, slow.count) == (together, apart)
        else:
            assert fast.flown == 0

    await _core.run(compare)


class Recorder:
    """A router that leaves all to the next one."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def db_for_read(self, model: Any, instance: Any = None, **_: Any) -> None:
        self.asked.append((model.__name__, type(instance).__name__, instance and instance.pk))


#: Those in which rows come in another order than what they hang from.
ORDERS: dict[str, Callable[[], Any]] = {
    "of authors": lambda: Books.order_by("-pk").prefetch_related(
        "author__profile", "author__books__genres", "genres"
    ),
    "of books": lambda: Publisher.objects.order_by("-pk").prefetch_related(
        Prefetch("books", Books.order_by("pages", "-pk")), "books__author__books__genres",
        "books__author__profile", "books__notes",
    ),
    "of books, many to many": lambda: Genre.objects.order_by("-pk").prefetch_related(
        "books__author__profile", "books__author__books", "books__publisher", "books__notes"
    ),
    "of an attribute": lambda: Books.order_by("-pk").prefetch_related(
        Prefetch("author", Authors.order_by("name"), to_attr="by"), "by__profile", "by__books",
    ),
    "of publishers, which not all have": lambda: Books.order_by("-pk").prefetch_related(
        "publisher__books__genres", "publisher__books__author", Prefetch("publisher", to_attr="p"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [*SHAPES, *ORDERS])
def test_routers_are_asked_as_by_django(
    twin: Engine, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same instance for a hint, on Django's own backend."""
    query = SHAPES[name][0] if name in SHAPES else ORDERS[name]

    def asked(alias: str) -> Counter[Any]:
        recorder = Recorder()
        with monkeypatch.context() as patch:
            patch.setattr(router, "routers", [recorder, *router.routers], raising=False)
            list(query().using(alias))
        return Counter(recorder.asked)

    fill()
    for _ in range(2):
        assert asked(twin.alias) == asked("default")


# --- where it is not done


async def test_not_where_somebody_looks(engine: Engine, mode: str) -> None:
    def query() -> Any:
        return list(Books.prefetch_related("author", "genres"))

    def work() -> None:
        fill()
        query()
        with CaptureQueriesContext(connection) as queries, Trips() as trips:
            query()
        assert (len(queries), trips.flown) == (3, 0)

        def wrapper(execute: Any, *args: Any) -> Any:
            return execute(*args)

        with connection.execute_wrapper(wrapper), Trips() as trips:
            query()
        assert trips.flown == 0
        with Trips() as trips:
            query()
        assert trips.flown == (2 if engine.name == "postgresql" else 0)

    await _core.run(work)


async def test_not_inside_code_of_ones_own(engine: Engine, mode: str) -> None:
    """The other lookups would run inside its blocks."""
    depth: list[int] = []

    class Careful(QuerySet[Any]):
        def _fetch_all(self) -> None:
            with transaction.atomic():
                super()._fetch_all()  # type: ignore[misc]
                depth.append(len(connection.atomic_blocks))

    def work() -> None:
        fill()
        for lookups in (("author", "genres"), ("genres", "author")):
            authors = Prefetch("author", Careful(Author))
            books = Books.prefetch_related(
                *[authors if each == "author" else each for each in lookups], "publisher"
            )
            for _ in range(2):
                with Trips() as trips:
                    list(books.all())
                assert trips.flown == (2 if engine.name == "postgresql" else 0)
        assert set(depth) == {1}

    await _core.run(work)


@pytest.mark.parametrize("method", ["__get__", "get_prefetch_querysets", "is_cached"])
async def test_not_through_a_descriptor_of_ones_own(
    engine: Engine, mode: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A foreign key may have one: `forward_related_accessor_class`."""
    called: list[object] = []

    def mine(self: Any, *args: Any) -> Any:
        called.append(self)
        return getattr(ForwardManyToOneDescriptor, method)(self, *args)

    cls = type("Mine", (ForwardManyToOneDescriptor,), {method: mine})
    with monkeypatch.context() as patch:
        patch.setattr(prefetch, "_shapes", {})  # nobody looks whether it is another one meanwhile
        patch.setattr(vars(Book)["author"], "__class__", relations._adapted(relations.Forward, cls))

        def work() -> None:
            fill()
            for _ in range(2):
                called.clear()
                with Trips() as trips:
                    list(Books.prefetch_related("genres", "notes", "author", "publisher"))
                assert trips.flown == (2 if engine.name == "postgresql" else 0)
                assert called or method == "__get__"

        await _core.run(work)


async def test_not_what_locks(engine: Engine, mode: str) -> None:
    def work() -> None:
        fill()
        locked = Prefetch("author", Authors.select_for_update(of=()))
        for _ in range(2):
            with transaction.atomic():
                with Trips() as trips:
                    list(Books.prefetch_related("genres", locked, "publisher"))
                assert trips.flown == (2 if engine.name == "postgresql" else 0)

    await _core.run(work)


async def test_a_manager_of_ones_own_is_known_after_its_first_time(
    engine: Engine, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mine(Manager[Any]):
        more: tuple[str, ...] = ()

        def get_queryset(self) -> Any:
            return super().get_queryset().prefetch_related(*self.more)

    def query() -> Any:
        return Publisher.objects.prefetch_related(
            "books__genres", Prefetch("books", Books.filter(pages=1), to_attr="ones")
        )

    mine = Mine()
    mine.model, mine.name = Book, "objects"
    with monkeypatch.context() as patch:
        patch.setitem(Book._meta.__dict__, "default_manager", mine)
        relation = vars(Publisher.books)  # type: ignore[attr-defined]
        patch.delitem(relation, "related_manager_cls", raising=False)

        def work() -> None:
            fill()
            flown = []
            for _ in range(3):
                with Trips() as trips:
                    assert found(query) is not None
                flown.append(trips.flown)
            assert flown == ([0, 2, 2] if engine.name == "postgresql" else [0, 0, 0])
            Mine.more = ("genres",)
            with one_after_the_other(monkeypatch):
                expected = found(query)
            for _ in range(3):
                with Trips() as trips:
                    assert found(query) == expected
            assert trips.flown == 0

        await _core.run(work)
    relation.pop("related_manager_cls", None)


# --- what is there already


async def test_some_have_it_already(
    engine: Engine, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def instances() -> list[Book]:
        books = list(Books.order_by("pk"))
        django_models.prefetch_related_objects(books[::2], "genres")
        django_models.prefetch_related_objects(books[::3], "author__profile")
        return [*books, *books[:2]]

    def query() -> Any:
        books = instances()
        django_models.prefetch_related_objects(
            books, "notes", "author__profile", "genres__books", "publisher"
        )
        return tree(books, {})

    def work() -> None:
        fill()
        with one_after_the_other(monkeypatch):
            expected = query()
        assert query() == expected
        assert query() == expected

    await _core.run(work)


async def test_two_relations_to_the_same_instance(
    engine: Engine, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first lookup sets is what the second one finds."""

    def query() -> Any:
        books = list(Books.select_related("author", "publisher").order_by("pk"))
        notes = list(Notes.order_by("pk"))
        for book, note in zip(books, notes, strict=True):
            note.subject = book
            book.author.books.all()
        shared = books[1]
        for note in notes:
            note._state.fields_cache["subject"] = shared
        authors = [note.subject.author for note in notes]
        django_models.prefetch_related_objects(
            authors, Prefetch("books", Books.filter(pages=1)), "books__genres", "profile"
        )
        django_models.prefetch_related_objects(authors, "profile__author__books", "books__notes")
        return tree([authors, notes], {})

    def work() -> None:
        fill()
        with one_after_the_other(monkeypatch):
            expected = query()
        assert query() == expected

    await _core.run(work)


async def test_content_types_not_known_yet(
    engine: Engine, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first relation takes two statements then: what it sets is in its place all the same."""

    def query() -> Any:
        ContentType.objects.clear_cache()
        return tree(list(Books.prefetch_related("notes", "genres", "author").order_by("pk")), {})

    def work() -> None:
        fill()
        with one_after_the_other(monkeypatch):
            expected = query()
        for _ in range(2):
            with Trips() as trips:
                assert query() == expected
            assert trips.flown == (3 if engine.name == "postgresql" else 0)

    await _core.run(work)


def test_in_plain_code(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    fill()
    query = SHAPES["all kinds"][0]
    with one_after_the_other(monkeypatch):
        expected = found(query)
    with Trips() as trips:
        assert found(query) == expected
    assert trips.flown == (4 if engine.name == "postgresql" else 0)


async def test_awaited(twin: Engine, mode: str) -> None:
    await _core.run(fill)
    for _ in range(2):
        with Trips() as trips:
            books = await Book.vinyl.prefetch_related("author", "genres", "publisher")
        assert trips.count == (2 if twin.name == "postgresql" else 4)
    assert [book.author.name for book in books]
    with Trips() as trips:
        async for book in Book.vinyl.prefetch_related("author", "genres").aiterator(2):
            assert book.author.name
    assert trips.flown == (2 * 3 if twin.name == "postgresql" else 0)


async def test_somebodys_own_function_stays(
    engine: Engine, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def counted(instances: Any, *lookups: Any) -> None:
        calls.append(lookups)
        prefetch._django(instances, *lookups)

    def work() -> None:
        fill()
        for _ in range(2):
            with Trips() as trips:
                list(Books.prefetch_related("author", "genres"))
            assert trips.flown == 0
        assert calls == [("author", "genres")] * 2

    monkeypatch.setattr(django_query, "prefetch_related_objects", counted)
    prefetch.install()
    assert django_query.prefetch_related_objects is counted
    await _core.run(work)
    with monkeypatch.context() as patch:  # as if vinyl had found it there
        patch.setattr(prefetch, "_django", counted)
        prefetch.install()
        assert django_query.prefetch_related_objects is counted


@pytest.mark.parametrize(
    "lookups",
    [
        ("records__tracks", "records__label"),  # a record is there once for each of its styles
        ("records__tracks__record", "records__styles", Prefetch("records__label", to_attr="by")),
    ],
)
async def test_the_end_of_a_many_to_many_relation_forks(
    engine: Engine, mode: str, lookups: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compare() -> None:
        artist, label = Artist.objects.create(name="A"), Label.objects.create(name="L")
        styles = [Style.objects.create(name=f"s{n}") for n in range(3)]
        for n in range(3):
            record = Record.objects.create(
                title=str(n), artist=artist, label=label, released=f"200{3 - n}-01-01", price=1
            )
            record.styles.set(styles[n:])
            Track.objects.create(record=record, number=1, title="t", seconds=n)
        with one_after_the_other(monkeypatch):
            expected = tree(list(Style.objects.prefetch_related(*lookups)), {})
        assert tree(list(Style.objects.prefetch_related(*lookups)), {}) == expected

    await _core.run(compare)


async def test_forks_after_a_relation_that_is_kept_by_another_name(
    engine: Engine, mode: str
) -> None:
    def fetch() -> None:
        permission = Permission.objects.first()
        assert permission is not None
        group = Group.objects.create(name="g")
        group.permissions.add(permission)
        group.user_set.create(username="u").user_permissions.add(permission)
        (found,) = Permission.objects.filter(pk=permission.pk).prefetch_related(
            "group_set__user_set", "group_set__permissions"
        )
        with CaptureQueriesContext(connection) as queries:
            (same,) = found.group_set.all()
            assert [user.username for user in same.user_set.all()] == ["u"]
            assert list(same.permissions.all()) == [permission]
        assert not queries.captured_queries

    await _core.run(fetch)
