"""What the tests of the plan cache share: shapes with their values, and generated conditions."""

from __future__ import annotations

import contextlib
import datetime
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import EmptyResultSet
from django.db.models import Count, Exists, F, OuterRef, Q, QuerySet
from hypothesis import strategies as st
from library.models import Author, Book, Genre, Note, Profile, Publisher, Sample

from vinyl.plan import node as nodes
from vinyl.plan import statement as statements
from vinyl.plan.check import _shown
from vinyl.plan.query import PlannedQuery
from vinyl.queryset import VinylQuerySet


@pytest.fixture(autouse=True)
def fresh_plans() -> Iterator[None]:
    for model in (Author, Book, Book.genres.through, Genre, Note, Profile, Publisher, Sample):
        model._meta.__dict__.pop("_vinyl_plans", None)
    nodes._recent.clear()
    statements.stats.update(hits=0, misses=0, uncached=0)
    yield
    nodes._recent.clear()


@contextlib.contextmanager
def registered(field: Any, lookup: type, name: str = "exact") -> Iterator[None]:
    """``lookup`` is the one of this name of a field or of a class of fields.

    Django's ``register_lookup()`` ends by taking the name away, not by giving it back: a class that
    had a lookup of that name would be without it in every later test.
    """
    own = "class_lookups" if isinstance(field, type) else "instance_lookups"
    before = dict(vars(field).get(own, {}))
    field.register_lookup(lookup, name)
    try:
        yield
    finally:
        field._unregister_lookup(lookup, name)
        if name in before:
            field.register_lookup(before[name], name)
        if not before:
            delattr(field, own)


def planned(model: Any) -> Any:
    return QuerySet(model, PlannedQuery(model))


def fill() -> None:
    press = Publisher.objects.create(name="press")
    authors = [Author.objects.create(name=name) for name in "abc"]
    for number, author in enumerate(authors * 2):
        book = Book.objects.create(
            title="ab"[number % 2],
            author=author,
            pages=number,
            price=Decimal(number) if number % 3 else None,
            publisher=press if number % 2 else None,
            published=NOON + datetime.timedelta(days=number),
        )
        book.genres.add(Genre.objects.get_or_create(name="ab"[number % 2])[0])
    Profile.objects.create(author=authors[0], text="of a")
    Sample.objects.create(
        flag=True, small=1, big=2**40, real=1.5, exact=Decimal("1.25"), text="a", data=b"\0x",
        day=NOON.date(), clock=NOON.time(), moment=NOON, span=datetime.timedelta(1),
        ident=uuid.UUID(int=5), document={"a": [1]}, address="::1",
    )  # fmt: skip


def compiled(queryset: Any, alias: str = "default") -> Any:
    """What would be sent, or the error that says so."""
    try:
        sql, params = queryset.query.get_compiler(alias).as_sql()
    except EmptyResultSet as error:
        return type(error)
    return sql, [(type(param), repr(param)) for param in params]


def outcome(call: Callable[[], Any]) -> Any:
    """Results with everything that is in them, or the error."""
    try:
        result = call()
        if isinstance(result, QuerySet):
            result = list(result)
    except Exception as error:
        return type(error), str(error)
    return [_shown(each) for each in result] if isinstance(result, list) else _shown(result)


def ours(model: Any) -> Any:
    return VinylQuerySet(model)


NOON = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC)
#: Shapes that are cached, each with sets of values.
CACHED: dict[str, tuple[Any, Callable[..., Any], list[tuple[Any, ...]]]] = {
    "all": (Book, lambda q: q.all(), [(), (), ()]),
    "pk": (Book, lambda q, n: q.filter(pk=n), [(1,), (2,), (3,)]),
    "text for a number": (Book, lambda q, n: q.filter(pk=n), [("1",), ("2",)]),
    "two": (Book, lambda q, n, t: q.filter(pages__gt=n, title=t), [(1, "b"), (2, "a"), (0, "")]),
    "of one field": (
        Book,
        lambda q, a, b: q.filter(pages__gt=a).filter(pages__lte=b),
        [(1, 9), (2, 2)],
    ),
    "number, rounded": (Book, lambda q, n: q.filter(pages__gte=n), [(1.5,), (2.25,)]),
    "decimal": (Book, lambda q, n: q.filter(price=n), [(Decimal("1.5"),), (Decimal(2),)]),
    "moment": (Book, lambda q, n: q.filter(published__lt=n), [(NOON,), (NOON.replace(hour=1),)]),
    "none of it": (Book, lambda q, n: q.exclude(title=n), [("a",), ("b",)]),
    "or": (Book, lambda q, a, b: q.filter(Q(title=a) | Q(pages=b)), [("a", 1), ("b", 2)]),
    "not": (Book, lambda q, a, b: q.filter(~Q(title=a), pages=b), [("a", 1), ("b", 2)]),
    "or of and": (
        Book,
        lambda q, a, b: q.filter(Q(title=a, pages=b) | Q(Q(pages__lt=b) & ~Q(title=a))),
        [("a", 1), ("b", 2)],
    ),
    "in": (Book, lambda q, *n: q.filter(pk__in=n), [(1, 2), (3, 4), (5, 6)]),
    "in, a list": (Book, lambda q, *n: q.filter(title__in=list(n)), [("a", "b"), ("c", "d")]),
    "null": (Book, lambda q, n: q.filter(price__isnull=True, pages=n), [(1,), (2,)]),
    "flag": (Sample, lambda q, n: q.filter(flag=True, small=n), [(1,), (2,)]),
    "relation": (Book, lambda q, n: q.filter(author=n), [(1,), (2,)]),
    "instance": (Book, lambda q, n: q.filter(author=n), [(Author(pk=1),), (Author(pk=2),)]),
    "across": (Book, lambda q, n: q.filter(author__name=n), [("a",), ("b",)]),
    "back": (Author, lambda q, n: q.filter(books__pages=n), [(1,), (2,)]),
    "back, as such": (Author, lambda q, n: q.filter(books=n), [(1,), (2,)]),
    "back, of one": (Author, lambda q, n: q.filter(profile=n), [(1,), (2,)]),
    "back, twice": (
        Author,
        lambda q, a, b: q.filter(books__pages=a).filter(books__title=b),
        [(1, "a"), (2, "b")],
    ),
    "back, at once": (
        Author,
        lambda q, a, b: q.filter(books__pages=a, books__title=b),
        [(1, "a"), (2, "b")],
    ),
    "order": (Book, lambda q, n: q.filter(pk=n).order_by("-author__name", "pk"), [(1,), (2,)]),
    "no order": (Book, lambda q, n: q.filter(pk=n).order_by(), [(1,), (2,)]),
    "backwards": (Book, lambda q, n: q.filter(pages=n).order_by("-pk"), [(1,), (2,)]),
    "slice": (Book, lambda q, n: q.filter(pages=n)[5:10], [(1,), (2,)]),
    "with its author": (Book, lambda q, n: q.select_related("author").filter(pk=n), [(1,), (2,)]),
    "only": (Book, lambda q, n: q.only("title").filter(pk=n), [(1,), (2,)]),
    "defer": (Book, lambda q, n: q.defer("title").filter(pk=n), [(1,), (2,)]),
    "values": (Book, lambda q, n: q.filter(pk=n).values("title", "author__name"), [(1,), (2,)]),
    "tuples": (Book, lambda q, n: q.filter(pk=n).values_list("title", flat=True), [(1,), (2,)]),
}  # fmt: skip
#: What has to be Django's each time.
OTHERS: dict[str, tuple[Any, Callable[..., Any], list[tuple[Any, ...]]]] = {
    "none": (Book, lambda q, n: q.filter(price=n), [(None,), (Decimal(1),), (None,)]),
    "empty list": (Book, lambda q, *n: q.filter(pk__in=n), [(), (1,), ()]),
    "equal in a list": (Book, lambda q, *n: q.filter(pk__in=n), [(1, 2), (1, 1), (3, 4)]),
    "out of range": (Book, lambda q, n: q.filter(pages=n), [(1,), (2**40,), (3,), (-(2**70),)]),
    "above all": (Book, lambda q, n: q.filter(pages__gt=n), [(1,), (-(2**70),), (2**70,)]),
    "flags": (Sample, lambda q, n: q.filter(flag=n), [(True,), (False,), (1,), (0,)]),
    "true is not one": (Book, lambda q, n: q.filter(pages=n), [(1,), (True,), (0,), (False,)]),
    "types": (Book, lambda q, n: q.filter(pages=n), [(1,), ("1",), (1.0,), (Decimal(1),)]),
    "pattern": (Book, lambda q, n: q.filter(title__contains=n), [("a",), ("%",), ("\\",)]),
    "transform": (Book, lambda q, n: q.filter(published__year=n), [(2026,), (1999,)]),
    "document": (Sample, lambda q, n: q.filter(document=n), [("a",), ("b",)]),
    "key": (Sample, lambda q, n: q.filter(document__a=n), [(1,), (2,)]),
    "expression": (Book, lambda q, n: q.filter(pages=F("pk") + n), [(1,), (2,)]),
    "subquery": (
        Book,
        lambda q, n: q.filter(author__in=planned(Author).filter(name=n)),
        [("a",), ("b",)],
    ),
    "exists": (
        Author,
        lambda q, n: q.filter(Exists(planned(Book).filter(author=OuterRef("pk"), pages=n))),
        [(1,), (2,)],
    ),
    "aggregate": (Author, lambda q, n: q.annotate(n=Count("books")).filter(n=n), [(1,), (2,)]),
    "annotation": (Book, lambda q, n: q.annotate(twice=F("pages") * n), [(2,), (3,)]),
    "union": (Book, lambda q, a, b: q.filter(pk=a).union(q.filter(pk=b)), [(1, 2), (3, 4)]),
    "both": (Book, lambda q, a, b: q.filter(pk=a) | q.filter(pages=b), [(1, 2), (3, 4)]),
    "not in others": (Author, lambda q, n: q.exclude(books__title=n), [("a",), ("b",)]),
    "distinct": (Book, lambda q, n: q.filter(pages=n).distinct(), [(1,), (2,)]),
    "locked": (Book, lambda q, n: q.filter(pages=n).reverse(), [(1,), (2,)]),
    "nothing": (Book, lambda q, n: q.filter(pages=n).none(), [(1,), (2,)]),
    "empty slice": (Book, lambda q, n: q.filter(pages=n)[3:3], [(1,), (2,)]),
    "extra": (Book, lambda q, n: q.extra(where=["pages = %s"], params=[n]), [(1,), (2,)]),
    "no such field": (Book, lambda q, n: q.filter(nope=n), [(1,), (1,)]),
    "not a number": (Book, lambda q, n: q.filter(pages=n), [("1",), ("abc",), ("2",)]),
    "not a date": (Book, lambda q, n: q.filter(published=n), [(NOON,), ("never",), (NOON,)]),
    "unsaved": (Book, lambda q, n: q.filter(author=n), [(Author(pk=1),), (Author(),)]),
    "another model": (Book, lambda q, n: q.filter(author=n), [(Author(pk=1),), (Genre(pk=1),)]),
    # Its last parameters are the 1 and the 0 of a CASE, where the database has no XOR.
    "one of both": (Book, lambda q, a, b: q.filter(Q(pages=a) ^ Q(pk=b)), [(1, 0), (3, 4)]),
    "after a slice": (Book, lambda q, n: q[:3].filter(pages=n), [(1,), (2,)]),
}


# --- generated

numbers = st.one_of(st.integers(-3, 3), st.sampled_from([2**31, -(2**70), 1.5, "7", True]))
words = st.sampled_from(["", "a", "%", "'"])
FIELDS = {
    "pages": numbers,
    "pk": numbers,
    "author": numbers,
    "author__pk": numbers,
    "publisher": numbers,
    "publisher__name": words,
    "genres__name": words,
    "title": words,
    "price": st.sampled_from([Decimal(1), Decimal("2.50"), 3, "4"]),
    "published": st.sampled_from([NOON, NOON.date()]),
}


@st.composite
def conditions(draw: Any, depth: int = 1) -> Q:
    kind = draw(st.sampled_from(["leaf", "leaf", "and", "or", "not"])) if depth else "leaf"
    if kind == "leaf":
        field = draw(st.sampled_from(sorted(FIELDS)))
        lookup = draw(st.sampled_from(["", "__gt", "__lte", "__in", "__isnull"]))
        if lookup == "__isnull":
            return Q(**{field + lookup: draw(st.booleans())})
        if lookup == "__in":
            values = draw(st.lists(FIELDS[field], min_size=0, max_size=3))
            return Q(**{field + lookup: values})
        return Q(**{field + lookup: draw(FIELDS[field])})
    one, other = draw(conditions(depth=depth - 1)), draw(conditions(depth=depth - 1))
    return ~one if kind == "not" else one & other if kind == "and" else one | other
