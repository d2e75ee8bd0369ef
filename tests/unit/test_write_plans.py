"""Planned writes: what is stored, and the SQL that stores it, is Django's."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from typing import Any
from unittest import mock

import pytest
from django.core.exceptions import FieldError
from django.db import DatabaseError, IntegrityError, connections, models, router, transaction
from django.db.models import F, Value
from django.db.models.functions import Lower, Now
from django.db.models.signals import post_save, pre_save
from django.db.models.sql.compiler import SQLInsertCompiler
from django.test.utils import CaptureQueriesContext, override_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from library.models import Author, Book, Note, Profile, Publisher, Sample
from write_support import both_ways, fresh_plans, hits  # noqa: F401

from vinyl import VinylManager, conf
from vinyl.plan import statement as statements
from vinyl.plan.statement import PlanMismatch
from vinyl.plan.table import MOST_WRITES

pytestmark = pytest.mark.usefixtures("fresh_plans")

NOON = datetime.datetime(2026, 1, 2, 12, 30, 1, 5, tzinfo=datetime.UTC)
VALUES: dict[str, list[Any]] = {
    "flag": [True, False, None, 1, 0, "True"],
    "small": [0, -3, 32767, None, "12", 3.0, Decimal(4), True],
    "big": [2**62, -1, None, "5"],
    "real": [0.5, -1e300, 3, None, "2.5", Decimal("1.5")],
    "exact": [Decimal("1.5"), Decimal("-0.000001"), 3, None, "2.25", 1.5],
    "text": ["", "a", "ü%s\\'\"", None, 5],
    "data": [b"", b"\0\xff", bytearray(b"x"), memoryview(b"y"), None],
    "day": [datetime.date(2026, 1, 2), None, "2026-01-02", NOON],
    "clock": [datetime.time(1, 2, 3, 4), None, "01:02:03"],
    "moment": [NOON, None, "2026-01-02T03:04:05Z", NOON.astimezone(datetime.timezone.max)],
    "span": [datetime.timedelta(days=-1, microseconds=3), None],
    "ident": [uuid.UUID(int=7), None, str(uuid.UUID(int=8)), uuid.UUID(int=9).hex],
    "document": [{"a": [1, None]}, [], "x", 1.5, None, Value(None, models.JSONField())],
    "address": ["127.0.0.1", "::1", None],
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_each_type_as_django(engine: Any, name: str) -> None:
    both_ways(engine.alias, Sample, lambda: [Sample(**{name: value}) for value in VALUES[name]])
    stored = Sample.objects.create()
    for value in VALUES[name]:

        def one(value: Any = value) -> list[Sample]:
            sample = Sample.objects.get(pk=stored.pk)
            setattr(sample, name, value)
            return [sample]

        both_ways(engine.alias, Sample, one)
        both_ways(engine.alias, Sample, one, update_fields=[name])


#: Values that each field accepts, of the classes that need no preparing and of others.
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "flag": st.none() | st.booleans(),
    "small": st.none() | st.integers(-32768, 32767) | st.booleans(),
    "big": st.none() | st.integers(-(2**63), 2**63 - 1),
    "real": st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9),
    "exact": st.none() | st.decimals(-(10**9), 10**9, places=6) | st.integers(-9, 9),
    "text": st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    "data": st.none() | st.binary(max_size=9),
    "day": st.none() | st.dates(),
    "clock": st.none() | st.times(),
    "moment": st.none() | st.datetimes(
        datetime.datetime(2, 1, 1), datetime.datetime(9998, 1, 1),
        timezones=st.sampled_from([datetime.UTC, datetime.timezone(datetime.timedelta(hours=5))]),
    ),
    "span": st.none() | st.timedeltas(datetime.timedelta(-999), datetime.timedelta(999)),
    "ident": st.none() | st.uuids(),
    "document": st.none() | st.dictionaries(st.sampled_from("abc"), st.integers(-9, 9) | st.none()),
    "address": st.none() | st.ip_addresses(v=4).map(str),
}  # fmt: skip


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    rows=st.lists(st.fixed_dictionaries({}, optional=FIELDS), min_size=1, max_size=4),
    changes=st.fixed_dictionaries({}, optional=FIELDS),
    only=st.booleans(),
)
def test_generated_instances(
    engine: Any, rows: list[dict[str, Any]], changes: dict[str, Any], only: bool
) -> None:
    both_ways(engine.alias, Sample, lambda: [Sample(**values) for values in rows])
    stored = Sample.objects.create(**rows[0])

    def changed() -> list[Sample]:
        sample = Sample.objects.get(pk=stored.pk)
        for name, value in changes.items():
            setattr(sample, name, value)
        return [sample]

    both_ways(engine.alias, Sample, changed, **({"update_fields": changes} if only else {}))


def test_hits_are_counted(engine: Any) -> None:
    for n in range(3):
        author = Author(name=f"a{n}", born=NOON.date())
        author.save()
        author.save()
        author.save(update_fields=["born"])
        author.delete()
        Author.objects.create(pk=100 - n, name="with a key")
    assert statements.stats == {"hits": 10, "misses": 5, "uncached": 0}


def test_every_way_to_a_save_is_planned(engine: Any) -> None:
    author = Author.objects.create(name="a", born=NOON.date())
    before = hits()
    Author.objects.create(name="b")
    Author.objects.get_or_create(name="c")
    Author.objects.update_or_create(name="c", defaults={"born": NOON.date()})
    Author(name="d").save_base()
    author.books.create(title="t")
    author.books.create(title="u")
    author.save_base(force_update=True)
    author.save_base(force_update=True)
    assert hits() - before == 5
    assert statements.stats["uncached"] == 0


async def test_in_every_mode(engine: Any) -> None:
    before = hits()
    for n in range(3):
        author = await Author.vinyl.create(name=f"a{n}", born=NOON.date())
        assert author.pk
        assert not author._state.adding
        assert author._state.db == engine.alias
        author.name = f"b{n}"
        await author.save()
        await author.asave(update_fields=["born"])
    assert hits() - before == 6
    assert sorted([each.name for each in await Author.vinyl.all()]) == ["b0", "b1", "b2"]


async def test_create_is_that_of_a_new_queryset(engine: Any) -> None:
    for _ in range(2):
        made = await Author.vinyl.create(name="a")
        theirs = await Author.vinyl.all().create(name="b")
        assert made._state.__dict__ == theirs._state.__dict__
        assert made.__dict__.keys() == theirs.__dict__.keys()
        assert (await Author.vinyl.using(engine.alias).create(name="c")).name == "c"
        for create in (Author.vinyl.create, Author.vinyl.all().create):
            with pytest.raises(ValueError, match=r"do not exist in this model: profile$"):
                await create(profile=Profile())
            with pytest.raises(TypeError, match=r"unexpected keyword arguments: 'nope'$"):
                await create(nope=1)
    operation = Author.vinyl.create(name="d")
    assert "QuerySet.create" in repr(operation)
    await operation


class Named(models.QuerySet[Any]):
    def create(self, **kwargs: Any) -> Any:
        return super().create(**kwargs | {"name": "overridden"})


async def test_a_create_of_the_querysets_own(engine: Any) -> None:
    manager = VinylManager.from_queryset(Named)()
    manager.model = Author
    assert (await manager.create(name="a")).name == "overridden"
    with mock.patch.object(models.QuerySet, "create", return_value="patched"):
        assert await Author.vinyl.create(name="b") == "patched"
    assert (await Author.vinyl.create(name="b")).name == "b"


# --- what Django does around a save


def test_signals(engine: Any) -> None:
    heard: list[Any] = []

    def hear(signal: Any, **kwargs: Any) -> None:
        heard.append({k: v for k, v in kwargs.items() if k != "instance"})

    def rename(instance: Any, **kwargs: Any) -> None:
        instance.name += "!"

    runs = []
    for plans in (True, True, False):
        heard.clear()
        pre_save.connect(hear, sender=Author)
        pre_save.connect(rename, sender=Author)
        post_save.connect(hear, sender=Author)
        try:
            with override_settings(VINYL={"PLAN_CACHE": plans}):
                author = Author(name="a")
                author.save()
                author.save()
                author.save(update_fields=("name",))
                author.save(force_update=True)
                author.save(update_fields=[])
                author.save_base(raw=True)
        finally:
            for signal, receiver in ((pre_save, hear), (pre_save, rename), (post_save, hear)):
                signal.disconnect(receiver, sender=Author)
        assert Author.objects.get(pk=author.pk).name == "a!!!!!"
        runs.append(list(heard))
    assert runs[0] == runs[1] == runs[2]
    assert len(runs[0]) == 10


class Loud(Author):
    """Overrides on the way."""

    class Meta:
        proxy = True
        app_label = "library"

    calls: list[str] = []

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.calls.append("save")
        super().save(*args, **kwargs)

    def _do_insert(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append("_do_insert")
        return super()._do_insert(*args, **kwargs)  # type: ignore[misc]

    def _do_update(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append("_do_update")
        return super()._do_update(*args, **kwargs)  # type: ignore[misc]


def test_overrides_are_called(engine: Any) -> None:
    for _ in range(2):
        Loud.calls.clear()
        author = Loud(name="a")
        author.save()
        author.save()
        assert Loud.calls == ["save", "_do_insert", "save", "_do_update"]
    with (
        mock.patch.object(Author, "save_base", side_effect=KeyError("seen")),
        pytest.raises(KeyError, match="seen"),
    ):
        Author(name="b").save()
    with mock.patch.object(Author, "_do_insert", return_value=[(77,)]) as patched:
        author = Author(name="b")
        author.save()
        assert author.pk == 77
        assert patched.called
    Author(name="c").save()
    assert Author.objects.count() == 3
    with mock.patch.object(SQLInsertCompiler, "execute_sql", return_value=[(78,)]):
        assert Author.objects.create(name="d").pk == 78


class Quiet(Author):
    class Meta:
        proxy = True
        app_label = "library"


def test_a_proxy_is_planned(engine: Any) -> None:
    senders = []

    def hear(sender: Any, **kwargs: Any) -> None:
        senders.append(sender)

    pre_save.connect(hear)
    try:
        Quiet.objects.create(name="a")
        Quiet.objects.create(name="b")
    finally:
        pre_save.disconnect(hear)
    assert senders == [Quiet, Quiet]
    assert hits() == 1


def test_the_router_is_asked_once(engine: Any) -> None:
    author = Author.objects.create(name="a")
    for _ in range(2):
        with mock.patch.object(router, "db_for_write", wraps=router.db_for_write) as asked:
            author.save()
            Author(name="b").save()
        assert asked.call_args_list == [
            mock.call(Author, instance=author),
            mock.call(Author, instance=mock.ANY),
        ]


def test_number_of_queries(engine: Any) -> None:
    author = Author.objects.create(name="a")
    author.save()
    with CaptureQueriesContext(connections[engine.alias]) as captured:
        author.save()
        Author(pk=author.pk, name="b").save()
        Author(pk=9999, name="c").save()
        Author.objects.create(name="d")
    assert [query["sql"].split()[0] for query in captured] == [
        "UPDATE", "UPDATE", "UPDATE", "INSERT", "INSERT",
    ]  # fmt: skip


# --- errors


def test_rows_that_are_not_there(engine: Any) -> None:
    error = getattr(Author, "NotUpdated", DatabaseError)
    for plans in (True, True, False):
        with override_settings(VINYL={"PLAN_CACHE": plans}):
            gone = Author(pk=4711, name="x")
            with pytest.raises(error, match=r"^Forced update did not affect any rows\.$"):
                gone.save(force_update=True)
            with pytest.raises(error, match=r"^Save with update_fields did not affect any rows\.$"):
                gone.save(update_fields=["name"])
            with pytest.raises(ValueError, match="Cannot force an update in save"):
                Author(name="x").save(force_update=True)
            with pytest.raises(ValueError, match="Cannot force both insert and updating"):
                gone.save(force_insert=True, force_update=True)
            with pytest.raises(ValueError, match=r"do not exist in this model.*: nope"):
                gone.save(update_fields=["nope"])
    assert Author.objects.count() == 0


def test_refused_by_field_and_by_server(engine: Any) -> None:
    Publisher.objects.create(name="P")
    for plans in (True, True, False):
        with override_settings(VINYL={"PLAN_CACHE": plans}):
            with pytest.raises(ValueError, match="Field 'pages' expected a number but got 'many'"):
                Book(title="t", author_id=1, pages="many").save()
            with pytest.raises(IntegrityError) as caught:
                Publisher(name="P").save()
            assert caught.value.__cause__ is not None
            with pytest.raises(ValueError, match="unsaved related object 'author'"):
                Book(title="t", author=Author(name="unsaved")).save()
    assert Publisher.objects.count() == 1


def test_a_failure_breaks_the_transaction(engine: Any) -> None:
    Publisher.objects.create(name="P")
    session = connections[engine.alias]
    for plans in (True, True, False):
        with override_settings(VINYL={"PLAN_CACHE": plans}):
            with transaction.atomic():
                with pytest.raises(IntegrityError):
                    Publisher(name="P").save()
                assert session.needs_rollback
                assert isinstance(session.rollback_exc, IntegrityError)
                with pytest.raises(transaction.TransactionManagementError):
                    Author(name="a").save()
            assert not session.in_atomic_block
            Author(name="a").save()
            # What fails in Python breaks it too.
            with transaction.atomic():
                with pytest.raises(ValueError, match="expected a number"):
                    Book(title="t", author_id=1, pages="many").save()
                assert session.needs_rollback
    assert Author.objects.count() == 3


# --- values that need Django


def test_expressions(engine: Any) -> None:
    author = Author.objects.create(name="Ab")
    for _ in range(2):
        author.name = Lower(Value("ABC"))
        author.save()
        author.refresh_from_db()
        assert author.name == "abc"
        book = Book.objects.create(title="t", author=author, pages=1)
        book.published = Now()
        book.save(update_fields=["published"])
        book.refresh_from_db()
        assert isinstance(book.published, datetime.datetime)
        book.pages = F("pages") + 1
        book.save()
        book.refresh_from_db()
        assert book.pages == 2
        created = Author.objects.create(name=Lower(Value("XY")))
        created.refresh_from_db()
        assert created.name == "xy"
        with pytest.raises(ValueError, match="can only be used to update"):
            Author(name=F("name")).save()
        with pytest.raises(FieldError, match="Aggregate functions are not allowed"):
            Author(name=models.Count(Value(1))).save()


def test_relations(engine: Any) -> None:
    for _ in range(2):
        author = Author(name="late")
        book = Book(title="t", author=author)
        author.save()
        book.save()
        assert Book.objects.get(pk=book.pk).author_id == author.pk
        # An instance as the value of its column is its key there.
        book.author_id = author
        book.save(update_fields=["author"])
        assert Book.objects.get(pk=book.pk).author_id == author.pk
        # A column that was changed loses the instance.
        other = Author.objects.create(name="other")
        book = Book.objects.select_related("author").get(pk=book.pk)
        book.author_id = other.pk
        book.save()
        assert book.author == other
        note = Note.objects.create(text="n", subject=author)
        assert Note.objects.get(pk=note.pk).subject == author
        with pytest.raises(ValueError, match="unsaved related object 'subject'"):
            Note(text="n", subject=Author(name="unsaved")).save()
    assert hits() > 0


def test_deferred_fields_are_left_alone(engine: Any) -> None:
    author = Author.objects.create(name="a", born=NOON.date())
    for _ in range(2):
        part = Author.objects.only("name").get(pk=author.pk)
        part.name = "b"
        with CaptureQueriesContext(connections[engine.alias]) as captured:
            part.save()
        (query,) = captured
        assert "born" not in query["sql"]
        assert part.get_deferred_fields() == {"born"}
    part.save(force_update=True)
    assert Author.objects.get(pk=author.pk).born == NOON.date()


@pytest.mark.parametrize("key", ["17", 17.0, True, 2**70])
def test_odd_keys(engine: Any, key: Any) -> None:
    if key == 2**70:  # out of range: Django's UPDATE is empty and its INSERT fails
        for _ in range(2):
            with pytest.raises((DatabaseError, OverflowError)), transaction.atomic():
                Author(pk=key, name="x").save()
        return
    for _ in range(2):
        Author(pk=key, name="x").save()
        Author(pk=key, name="y").save()
    assert [each.pk for each in Author.objects.all()] == [int(key)]
    with pytest.raises(ValueError, match="expected a number"):
        Author(pk="abc", name="x").save()


# --- the cache


def test_off(engine: Any) -> None:
    with override_settings(VINYL={"PLAN_CACHE": False}):
        for _ in range(3):
            Author.objects.create(name="a").save()
    assert statements.stats == {"hits": 0, "misses": 0, "uncached": 0}
    assert conf.get("PLAN_CACHE") is True


def test_check_notices_a_difference(engine: Any) -> None:
    Author.objects.create(name="a")
    table = Author._meta.__dict__["_vinyl_tables"][engine.alias]
    write = table.writes[False]
    write.sql = write.sql.replace('"name"', '"born"', 1)
    with (
        override_settings(VINYL={"PLAN_CACHE": "check"}),
        pytest.raises(PlanMismatch, match="The plan cache had"),
    ):
        Author.objects.create(name="b")


def test_memory_is_bounded(engine: Any) -> None:
    sample = Sample.objects.create()
    names = [field.name for field in Sample._meta.concrete_fields if not field.primary_key]
    for n in range(1, MOST_WRITES + 20):
        sample.save(update_fields=[name for at, name in enumerate(names) if n >> at & 1])
    assert len(Sample._meta.__dict__["_vinyl_tables"][engine.alias].writes) == MOST_WRITES


def test_what_changes_is_compiled_again(engine: Any) -> None:
    Author.objects.create(name="a")
    Author.objects.create(name="a")
    with (
        mock.patch.object(Author._meta, "db_table", "no_such_table"),
        pytest.raises(DatabaseError, match="no_such_table"),
        transaction.atomic(),
    ):
        Author.objects.create(name="b")
    Author.objects.create(name="c")
    author = Author.objects.get(name="c")
    author.save()
    with (
        mock.patch.object(Author._meta, "select_on_save", True),
        CaptureQueriesContext(connections[engine.alias]) as captured,
    ):
        author.save()
    assert [query["sql"].split()[0] for query in captured] == ["SELECT", "UPDATE"]


def test_time_zone(engine: Any) -> None:
    """SQLite stores a moment in the connection's time zone."""
    for zone in ("UTC", "Asia/Tokyo", "UTC"):
        session = connections[engine.alias]
        with mock.patch.dict(session.settings_dict, {"TIME_ZONE": zone}):
            for name in ("timezone", "timezone_name"):
                session.__dict__.pop(name, None)
            both_ways(engine.alias, Sample, lambda: [Sample(moment=NOON)])
        for name in ("timezone", "timezone_name"):
            session.__dict__.pop(name, None)
