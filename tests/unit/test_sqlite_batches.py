"""bulk_create() on SQLite: where nobody sees the statement, its rows go as a batch."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import django
import pytest
from django.db import IntegrityError, OperationalError, connections, models, transaction
from django.db.backends.signals import connection_created
from django.db.models import Value
from django.db.models.functions import Lower
from django.db.models.sql.compiler import SQLInsertCompiler
from django.test.utils import CaptureQueriesContext
from fix_engine import Engine
from library.models import Author, Book, Genre, Publisher, Sample
from made_support import make_model
from sample_values import VALUES

import vinyl
from vinyl.backends.sqlite3 import compiler
from vinyl.exceptions import IntegerOutOfRange

pytestmark = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of rows of the batches that were made."""
    made: list[int] = []
    real = compiler.Batch

    def make(columns: list[list[Any]]) -> Any:
        made.append(len(columns[0]))
        return real(columns)

    monkeypatch.setattr(compiler, "Batch", make)
    return made


def contents(alias: str, *tables: str) -> Any:
    found = {}
    with connections[alias].cursor() as cursor:
        for table in tables:
            cursor.execute(f"PRAGMA table_info({table})")
            columns = [row[1] for row in cursor.fetchall()]
            quoted = ", ".join(f'typeof("{name}"), quote("{name}")' for name in columns)
            cursor.execute(f"SELECT {quoted} FROM {table} ORDER BY 2")
            found[table] = cursor.fetchall()
    return found


def emptied(alias: str, *tables: str) -> None:
    with connections[alias].cursor() as cursor:
        for table in (*tables, "sqlite_sequence"):
            cursor.execute(f"DELETE FROM {table}")


TABLES = ("library_book_genres", "library_book", "library_author", "library_publisher",
          "library_genre", "library_sample")  # fmt: skip


def answer_of(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:
        cause = error.__cause__
        name = getattr(cause, "sqlite_errorname", None)
        return type(error), str(error), type(cause), str(cause), name


@contextmanager
def wrapped(alias: str, seen: list[str]) -> Iterator[None]:
    def wrapper(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        seen.append(sql)
        return execute(sql, params, many, context)

    with connections[alias].execute_wrapper(wrapper):
        yield


def both_ways(engine: Engine, batches: list[int], work: Callable[[], Any]) -> Any:
    """What ``work`` answers, or raises, and leaves, which is the same with and without batches.

    It is the answer, and how many rows went in each batch.
    """
    session = connections[engine.alias]
    seen = []
    for is_seen in (False, True):
        emptied(engine.alias, *TABLES)
        batches.clear()
        if is_seen:
            statements: list[str] = []
            with wrapped(engine.alias, statements):
                answer = answer_of(work)
            assert batches == []
            assert any("VALUES" in sql for sql in statements)
        else:
            answer = answer_of(work)
            went = list(batches)
        seen.append((answer, session.in_atomic_block, contents(engine.alias, *TABLES)))
    assert seen[0] == seen[1]
    return seen[0][0], went


def keys(objs: Any) -> Any:
    return [(each.pk, each._state.adding, each._state.db) for each in objs]


@pytest.mark.parametrize("name", VALUES)
def test_each_type(engine: Engine, batches: list[int], name: str) -> None:
    plain = [value for value in VALUES[name] if not hasattr(value, "as_sql")]

    def one_column() -> Any:
        return keys(Sample.objects.bulk_create([Sample(**{name: value}) for value in plain]))

    answer, went = both_ways(engine, batches, one_column)
    assert went == [len(plain)]
    assert answer == [(n + 1, False, engine.alias) for n in range(len(plain))]


def test_all_types(engine: Engine, batches: list[int]) -> None:
    def row(n: int) -> Sample:
        columns = VALUES | {"document": VALUES["document"][:3]}
        return Sample(**{name: values[n % len(values)] for name, values in columns.items()})

    _, went = both_ways(
        engine, batches, lambda: keys(Sample.objects.bulk_create([row(n) for n in range(20)]))
    )
    assert went == [20]


def test_relations_and_keys(engine: Engine, batches: list[int]) -> None:
    def work() -> Any:
        author, publisher = Author.objects.create(name="A"), Publisher.objects.create(name="P")
        books = [
            Book(title="a", author=author, publisher=publisher, pages=3),
            Book(pk=70, title="b", author_id=author.pk),
            Book(pk=7, title="c", author_id=author.pk),
            Book(title="d", author_id=str(author.pk), publisher_id=None),
        ]
        return keys(Book.objects.bulk_create(books))

    answer, went = both_ways(engine, batches, work)
    assert went == [2, 2]
    assert [pk for pk, _, _ in answer] == [71, 70, 7, 72]


NAMES = ["a", "b", "c", "a", "new", "b", "other"]


def conflicting(**kwargs: Any) -> Callable[[], Any]:
    def work() -> Any:
        Publisher.objects.bulk_create([Publisher(name=name) for name in "abc"])
        return keys(Publisher.objects.bulk_create([Publisher(name=n) for n in NAMES], **kwargs))

    return work


def test_conflicts_ignored(engine: Engine, batches: list[int]) -> None:
    answer, went = both_ways(engine, batches, conflicting(ignore_conflicts=True))
    assert went == [3, 7]
    assert answer == [(None, True, None)] * 7


def test_conflicts_updated(engine: Engine, batches: list[int]) -> None:
    kwargs = {"update_conflicts": True, "update_fields": ["name"], "unique_fields": ["name"]}
    answer, went = both_ways(engine, batches, conflicting(**kwargs))
    assert went == [3, 7]
    assert [pk for pk, _, _ in answer][:4] == [1, 2, 3, 1]


def test_conflicts_raised(engine: Engine, batches: list[int]) -> None:
    answer, went = both_ways(engine, batches, conflicting())
    assert answer[0] is IntegrityError
    assert answer[1] == "UNIQUE constraint failed: library_publisher.name"
    assert answer[4] == "SQLITE_CONSTRAINT_UNIQUE"
    assert went == [3, 7]


@pytest.mark.parametrize("savepoint", [False, True])
@pytest.mark.parametrize("batch_size", [None, 2])
def test_an_error_inside_a_block(
    engine: Engine, batches: list[int], savepoint: bool, batch_size: int | None
) -> None:
    """What is undone, and whether the block goes on, is Django's."""

    def work() -> Any:
        seen = []
        with transaction.atomic():
            Publisher.objects.create(name="first")
            for names in (["x", "y", "first", "z"], ["u", "v"]):
                objs = [Publisher(name=name) for name in names]
                try:
                    if savepoint:
                        with transaction.atomic():
                            Publisher.objects.bulk_create(objs, batch_size)
                    else:
                        Publisher.objects.bulk_create(objs, batch_size)
                except Exception as error:
                    seen.append((type(error), str(error)))
            seen.append(connections[engine.alias].needs_rollback)
        return seen

    answer, _ = both_ways(engine, batches, work)
    assert answer[0][0] is IntegrityError
    # Before Django 6.1 a bulk_create() of one batch opens a block too.
    opens_block = batch_size is not None or django.VERSION < (6, 1)
    assert answer[-1] is (opens_block and not savepoint)


def test_a_foreign_key_to_nothing(engine: Engine, batches: list[int]) -> None:
    """Deferred: found out by COMMIT, of the statement's own and of the block's."""

    def books() -> list[Book]:
        return [Book(title=f"t{n}", author_id=99) for n in range(3)]

    def in_block() -> None:
        with transaction.atomic():
            Author.objects.create(name="kept")
            Book.objects.bulk_create(books())
            assert Book.objects.count() == 3

    for work in (lambda: Book.objects.bulk_create(books()), in_block):
        answer, went = both_ways(engine, batches, work)
        assert answer[:2] == (IntegrityError, "FOREIGN KEY constraint failed")
        assert went == [3]
        assert Book.objects.count() == Author.objects.count() == 0


def test_null_where_it_may_not_be(engine: Engine, batches: list[int]) -> None:
    def work() -> None:
        Publisher.objects.bulk_create([Publisher(name="a"), Publisher(name=None)])

    answer, _ = both_ways(engine, batches, work)
    assert answer[:2] == (IntegrityError, "NOT NULL constraint failed: library_publisher.name")


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 2**300])
def test_integers_that_no_column_holds(engine: Engine, batches: list[int], number: int) -> None:
    def work() -> None:
        Sample.objects.bulk_create([Sample(text="t", big=1), Sample(text="t", big=number)])

    answer, _ = both_ways(engine, batches, work)
    assert issubclass(answer[0], OverflowError)
    assert answer[1].startswith("Python int too large to convert to SQLite INTEGER: parameter 17 ")


@pytest.mark.parametrize("number", [2**63, 2**300])
def test_such_an_integer_in_the_query_log(engine: Engine, number: int) -> None:
    """The log shows it; what is raised is what is raised without a log."""
    session = connections[engine.alias]
    with CaptureQueriesContext(session) as captured, pytest.raises(IntegerOutOfRange):
        Sample.objects.bulk_create([Sample(big=1), Sample(big=number)])
    assert any(f"'{number}'" in query["sql"] for query in captured)


def test_batch_size(engine: Engine, batches: list[int]) -> None:
    def work() -> Any:
        objs = [Publisher(name=f"n{n}") for n in range(8)]
        return keys(Publisher.objects.bulk_create(objs, batch_size=3))

    answer, went = both_ways(engine, batches, work)
    assert went == [3, 3, 2]
    assert [pk for pk, _, _ in answer] == list(range(1, 9))


def test_many_to_many(engine: Engine, batches: list[int]) -> None:
    def work() -> Any:
        genres = Genre.objects.bulk_create([Genre(name=f"g{n}") for n in range(6)])
        book = Book.objects.create(title="b", author=Author.objects.create(name="a"))
        book.genres.add(*genres[:4])
        book.genres.add(*genres[2:5])
        book.genres.set(genres[3:])
        return sorted(book.genres.values_list("name", flat=True))

    answer, went = both_ways(engine, batches, work)
    assert answer == ["g3", "g4", "g5"]
    assert went[:2] == [6, 4]


def test_two_objects_and_many(engine: Engine, batches: list[int]) -> None:
    for count in (1, 2, 3, 1000):
        Publisher.objects.bulk_create([Publisher(name=f"{count} {n}") for n in range(count)])
    assert batches[:2] == [2, 3]
    assert sum(batches[2:]) == 1000  # Django 5.2 has batches of 500 rows of one column
    assert Publisher.objects.count() == 1006


# --- seen by somebody


@contextmanager
def traced(alias: str, seen: list[str]) -> Iterator[None]:
    session = connections[alias]
    session.ensure_connection()
    assert session.connection.is_traced is False
    session.connection.set_trace_callback(seen.append)
    assert session.connection.is_traced is True
    try:
        yield
    finally:
        session.connection.set_trace_callback(None)
    assert session.connection.is_traced is False


@contextmanager
def with_a_cursor_of_its_own(alias: str, seen: list[str]) -> Iterator[None]:
    session = connections[alias]
    real = session.cursor

    class Cursor:
        def __init__(self) -> None:
            self.cursor = real()

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *error: object) -> None:
            self.cursor.close()

        def execute(self, sql: str, params: Any = None) -> Any:
            seen.append(sql)
            return self.cursor.execute(sql, params)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.cursor, name)

    session.cursor = Cursor
    try:
        yield
    finally:
        del session.cursor


@contextmanager
def with_as_sql_replaced(alias: str, seen: list[str]) -> Iterator[None]:
    real = SQLInsertCompiler.as_sql

    def as_sql(self: Any) -> Any:
        statements = real(self)
        seen.extend(sql for sql, _ in statements)
        return statements

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SQLInsertCompiler, "as_sql", as_sql)
        yield


@contextmanager
def with_operations_replaced(alias: str, seen: list[str]) -> Iterator[None]:
    operations = type(connections[alias].ops)
    real = operations.bulk_insert_sql

    def bulk_insert_sql(self: Any, fields: Any, rows: Any) -> Any:
        text = real(self, fields, rows)
        seen.append("INSERT " + text)
        return text

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operations, "bulk_insert_sql", bulk_insert_sql)
        yield


@pytest.mark.parametrize(
    "watched",
    [wrapped, traced, with_a_cursor_of_its_own, with_as_sql_replaced, with_operations_replaced],
)
def test_whoever_looks_sees_values(engine: Engine, batches: list[int], watched: Any) -> None:
    seen: list[str] = []
    with watched(engine.alias, seen):
        Publisher.objects.bulk_create([Publisher(name=f"n{n}") for n in range(3)])
    assert batches == []
    assert any("INSERT" in sql and "VALUES" in sql for sql in seen)
    Publisher.objects.bulk_create([Publisher(name=f"m{n}") for n in range(3)])
    assert batches == [3]
    assert Publisher.objects.count() == 6


def test_debug(engine: Engine, batches: list[int], settings_of_debug: None) -> None:
    session = connections[engine.alias]
    Publisher.objects.bulk_create([Publisher(name=f"n{n}") for n in range(3)])
    assert batches == []
    assert any("VALUES ('n0'), ('n1'), ('n2')" in query["sql"] for query in session.queries)


@pytest.fixture
def settings_of_debug() -> Iterator[None]:
    from django.test import override_settings

    with override_settings(DEBUG=True):
        yield


def test_seen_by_who_hears_of_the_connection(engine: Engine, batches: list[int]) -> None:
    seen: list[str] = []

    def watch(connection: Any, **kwargs: Any) -> None:
        connection.connection.set_trace_callback(seen.append)

    connections[engine.alias].close()
    connection_created.connect(watch)
    try:
        Publisher.objects.bulk_create([Publisher(name=name) for name in "ab"])
    finally:
        connection_created.disconnect(watch)
        connections[engine.alias].close()
    assert batches == []
    assert any("VALUES" in sql for sql in seen)


def test_the_compiler_alone_gives_values(engine: Engine, batches: list[int]) -> None:
    query = models.sql.InsertQuery(Publisher)  # type: ignore[attr-defined]
    query.insert_values([Publisher._meta.get_field("name")], [Publisher(name=n) for n in "ab"])
    (statement,) = query.get_compiler(engine.alias).as_sql()
    assert statement == ('INSERT INTO "library_publisher" ("name") VALUES (%s), (%s)', ("a", "b"))
    assert batches == []


# --- what is no batch


class Placed(models.CharField):
    """A field with a placeholder of its own."""

    def get_placeholder(self, value: Any, compiler: Any, connection: Any) -> str:
        return "lower(%s)"

    def get_placeholder_sql(self, value: Any, compiler: Any, connection: Any) -> Any:
        return "lower(%s)", (value,)


class Given(models.Model):
    placed = Placed(max_length=9)

    class Meta:
        app_label = "library"
        managed = False


class Levelled(models.Model):
    name = models.CharField(max_length=9)
    level = models.IntegerField(db_default=3)

    class Meta:
        app_label = "library"
        managed = False


class Doubled(models.Model):
    number = models.IntegerField()
    double = models.GeneratedField(
        expression=models.F("number") * 2, output_field=models.IntegerField(), db_persist=True
    )

    class Meta:
        app_label = "library"
        managed = False


@contextmanager
def table_of(model: type[models.Model], alias: str) -> Iterator[None]:
    with connections[alias].schema_editor() as editor:
        editor.create_model(model)
    yield
    with connections[alias].schema_editor() as editor:
        editor.delete_model(model)


def test_expressions_go_as_values(engine: Engine, batches: list[int]) -> None:
    Author.objects.bulk_create([Author(name="x"), Author(name=Lower(Value("Y")))])
    assert sorted(Author.objects.values_list("name", flat=True)) == ["x", "y"]
    with table_of(Given, engine.alias):
        Given.objects.bulk_create([Given(placed="A"), Given(placed="B")])
        assert sorted(Given.objects.values_list("placed", flat=True)) == ["a", "b"]
    with table_of(Levelled, engine.alias):
        Levelled.objects.bulk_create([Levelled(name="a"), Levelled(name="b", level=7)])
        assert sorted(Levelled.objects.values_list("name", "level")) == [("a", 3), ("b", 7)]
    assert batches == []


def test_as_many_columns_as_a_batch_has(engine: Engine, batches: list[int]) -> None:
    for fields, went in ((100, [2]), (101, [])):
        model = make_model(fields)
        with table_of(model, engine.alias):
            values = {f"f{n}": n for n in range(fields)}
            model.objects.bulk_create([model(**values), model(**values)])  # type: ignore[attr-defined]
            assert list(model.objects.values(*values)) == [values, values]  # type: ignore[attr-defined]
        assert batches == went
        batches.clear()


def test_columns_that_the_database_computes(engine: Engine, batches: list[int]) -> None:
    with table_of(Doubled, engine.alias):
        made = Doubled.objects.bulk_create([Doubled(number=n) for n in range(3)])
        assert [(each.pk, each.double) for each in made] == [(1, 0), (2, 2), (3, 4)]
    assert batches == [3]


# --- awaited


async def test_awaited(engine: Engine, batches: list[int]) -> None:
    made = await Author.vinyl.bulk_create([Author(name=f"n{n}") for n in range(400)])
    assert [author.pk for author in made] == list(range(1, 401))
    async with vinyl.atomic():
        await Author.vinyl.bulk_create(Author(name=f"m{n}") for n in range(3))
        with pytest.raises(IntegrityError):
            async with vinyl.atomic():
                await Author.vinyl.bulk_create([Author(pk=900, name="x"), Author(pk=1, name="y")])
        await Author.vinyl.bulk_create([Author(name="z"), Author(name="z")])
    assert batches == [400, 3, 2, 2]
    assert await Author.vinyl.count() == 405
    assert not await Author.vinyl.filter(pk=900).exists()


async def test_gathered(engine: Engine, batches: list[int]) -> None:
    await vinyl.gather(*(
        Author.vinyl.bulk_create([Author(name=f"{n}")] * 1)
        if n % 2
        else Author.vinyl.bulk_create([Author(name=f"{n}") for _ in range(50)])
        for n in range(10)
    ))  # fmt: skip
    assert batches == [50] * 5
    assert await Author.vinyl.count() == 255
    counted = await Author.vinyl.filter(name="4").count()
    assert counted == 50


async def test_statements_are_prepared_once(engine: Engine) -> None:
    """However many rows: the text is the same, and short."""

    def texts() -> list[str]:
        session = connections[engine.alias]
        with transaction.atomic():
            for count in (2, 30, 400):
                Author.objects.bulk_create([Author(name="a") for _ in range(count)])
            with session.cursor() as cursor:
                cursor.execute("SELECT sql FROM sqlite_stmt WHERE sql LIKE 'INSERT%'")
                return [sql for (sql,) in cursor.fetchall()]

    try:
        found = await vinyl.run(texts)
    except Exception as error:
        if "no such table: sqlite_stmt" not in str(error):
            raise
        pytest.skip(f"SQLite {sqlite3.sqlite_version} was built without SQLITE_ENABLE_STMTVTAB")
    assert found == [
        'INSERT INTO "library_author" ("name", "born")'
        " SELECT c0, c1 FROM sqlite_vinyl_batch(?) WHERE 1"
        ' RETURNING "library_author"."id"'
    ]


@pytest.mark.parametrize(
    "made", ["TABLE {} (c0)", "TEMP TABLE {} (c0, c1)", "VIEW {} AS SELECT 1 AS c0, 2 AS c1"]
)
async def test_no_table_of_a_project_has_the_name(
    engine: Engine, batches: list[int], made: str
) -> None:
    """The table that the rows are selected from."""
    name = compiler._select(1).partition(" FROM ")[2].partition("(")[0]

    def work() -> list[str]:
        with connections[engine.alias].cursor() as cursor:
            cursor.execute("CREATE " + made.format("vinyl_batch"))
            try:
                Author.objects.bulk_create([Author(name=each) for each in "ab"])
            finally:
                cursor.execute(f"DROP {'VIEW' if 'VIEW' in made else 'TABLE'} vinyl_batch")
            with pytest.raises(OperationalError, match="reserved for internal use"):
                cursor.execute("CREATE " + made.format(name))
        return [each.name for each in Author.objects.order_by("name")]

    assert await vinyl.run(work) == ["a", "b"]
    assert batches == [2]
