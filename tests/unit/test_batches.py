"""bulk_create() and bulk_update() in batches: what travels together, as Django would do it."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from django.db import IntegrityError, OperationalError, connections, transaction
from django.db.models import Value
from django.db.models.functions import Lower, Upper
from django.test.utils import CaptureQueriesContext
from fix_engine import Engine
from flight_support import flown
from library.models import Author, Book, Genre

import vinyl
from vinyl import _core

on_a_loop = pytest.mark.modes("asyncio", "uvloop")


def genres(*names: str) -> list[Genre]:
    return [Genre(name=name) for name in names]


async def stored() -> list[str]:
    return [each.name async for each in Genre.vinyl.order_by("pk")]


async def test_batches_travel_together(engine: Engine) -> None:
    names = [f"g{number:02}" for number in range(25)]
    with flown(8, 4) if engine.name == "postgresql" else flown():
        made = await Genre.vinyl.bulk_create(genres(*names), batch_size=2)
    assert [each.name for each in made] == names
    rows = {each.pk: each.name async for each in Genre.vinyl.all()}
    assert rows == {each.pk: each.name for each in made}
    assert [each.pk for each in made] == sorted(rows)
    assert all(not each._state.adding and each._state.db == engine.alias for each in made)


@pytest.mark.parametrize("size", [None, 1, 2, 3, 4, 9])
async def test_few_batches(engine: Engine, size: int | None) -> None:
    await Genre.vinyl.bulk_create(genres("a", "b", "c", "d"), batch_size=size)
    assert await stored() == ["a", "b", "c", "d"]


async def test_a_wrong_batch_size(engine: Engine) -> None:
    with pytest.raises(ValueError, match="positive integer"):
        await Genre.vinyl.bulk_create(genres("a", "b"), batch_size=-1)
    with pytest.raises(TypeError):
        await Genre.vinyl.bulk_create(genres("a", "b"), batch_size="1")
    assert await stored() == []


@pytest.mark.parametrize("at", range(5))
async def test_an_error_in_a_batch_undoes_all(engine: Engine, at: int) -> None:
    await Genre.vinyl.create(name="taken")
    names = ["a", "b", "c", "d", "e"]
    names[at] = "taken"
    for _ in range(2):
        with pytest.raises(IntegrityError) as caught:
            await Genre.vinyl.bulk_create(genres(*names), batch_size=1)
        if engine.name == "postgresql":
            cause = caught.value.__cause__
            assert isinstance(cause, psycopg.errors.UniqueViolation)
            assert cause.diag.constraint_name is not None
        assert await stored() == ["taken"]


class Refused:
    """What no field can make a text of."""

    def __str__(self) -> str:
        raise LookupError("refused")


@pytest.mark.parametrize(("taken", "refused"), [(1, 2), (1, 4), (2, 4), (3, 4), (4, 1), (4, 3)])
async def test_the_first_of_two_errors_is_raised(engine: Engine, taken: int, refused: int) -> None:
    """Also where a later batch is refused before an earlier one has been to the server."""
    await Genre.vinyl.create(name="taken")
    names: list[Any] = ["a", "b", "c", "d", "e", "f"]
    names[taken], names[refused] = "taken", Refused()
    for _ in range(2):
        with pytest.raises(IntegrityError if taken < refused else LookupError):
            await Genre.vinyl.bulk_create(genres(*names), batch_size=1)
        assert await stored() == ["taken"]


@pytest.mark.parametrize("refused", range(5))
async def test_what_is_behind_a_refused_batch_is_not_sent(engine: Engine, refused: int) -> None:
    names: list[Any] = ["a", "b", "c", "d", "e"]
    names[refused] = Refused()
    async with vinyl.atomic():
        with pytest.raises(LookupError, match="refused"):
            await Genre.vinyl.bulk_create(genres(*names), batch_size=1)
        with pytest.raises(transaction.TransactionManagementError):
            await Genre.vinyl.count()
    assert await stored() == []
    made = await Genre.vinyl.create(name="next")
    if engine.name == "postgresql":  # whose sequences go on
        assert made.pk == refused + 1


async def test_an_error_breaks_the_block_around(engine: Engine) -> None:
    await Genre.vinyl.create(name="taken")
    async with vinyl.atomic():
        with pytest.raises(IntegrityError):
            await Genre.vinyl.bulk_create(genres("a", "b", "taken", "c"), batch_size=1)
        with pytest.raises(transaction.TransactionManagementError):
            await Genre.vinyl.count()
    async with vinyl.atomic():
        with pytest.raises(IntegrityError):
            async with vinyl.atomic():
                await Genre.vinyl.bulk_create(genres("a", "b", "taken", "c"), batch_size=1)
        await Genre.vinyl.bulk_create(genres("x", "y", "z"), batch_size=1)
    assert await stored() == ["taken", "x", "y", "z"]


async def test_conflicts(engine: Engine) -> None:
    await Genre.vinyl.create(name="b")
    with flown(3) if engine.name == "postgresql" else flown():
        made = await Genre.vinyl.bulk_create(
            genres("a", "b", "c", "d"), batch_size=1, ignore_conflicts=True
        )
    assert [each.pk for each in made] == [None] * 4
    made = await Genre.vinyl.bulk_create(
        genres("a", "b", "e", "f"),
        batch_size=1,
        update_conflicts=True,
        unique_fields=["name"],
        update_fields=["name"],
    )
    rows = {each.name: each.pk async for each in Genre.vinyl.all()}
    assert sorted(rows) == ["a", "b", "c", "d", "e", "f"]
    assert [each.pk for each in made] == [rows[name] for name in "abef"]


async def test_with_keys_and_without(engine: Engine) -> None:
    author = await Author.vinyl.create(name="A")
    books: list[Any] = [Book(pk=500 + n, title=f"k{n}", author=author) for n in range(4)]
    books += [Book(title=f"n{n}", author=author, price=Decimal(n)) for n in range(4)]
    made = await Book.vinyl.bulk_create(books[::-1], batch_size=1)
    assert {each.pk: each.title async for each in Book.vinyl.all()} == {
        each.pk: each.title for each in made
    }


async def test_expressions(engine: Engine) -> None:
    names = [Lower(Value("A")), Upper(Value("b")), Value("c"), "d"]
    await Genre.vinyl.bulk_create([Genre(name=name) for name in names], batch_size=1)
    assert await stored() == ["a", "B", "c", "d"]


async def test_who_watches_sees_each_statement(engine: Engine) -> None:
    def work() -> list[str]:
        with CaptureQueriesContext(connections[engine.alias]) as seen, flown():
            Genre.vinyl.bulk_create(genres("a", "b", "c", "d"), batch_size=1)
        return [each["sql"] for each in seen.captured_queries]

    seen = await _core.run(work)
    assert [sql.split()[0] for sql in seen] == ["BEGIN", *["INSERT"] * 4, "COMMIT"]


async def test_overridden_insert(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queryset's own ``_insert`` is called for each batch, in order."""
    sizes = []
    cls: Any = type(Genre.vinyl.all())
    insert = cls._insert

    def noting(self: Any, objs: Any, *args: Any, **kwargs: Any) -> Any:
        sizes.append([each.name for each in objs])
        return insert(self, objs, *args, **kwargs)

    monkeypatch.setattr(cls, "_insert", noting, raising=False)
    await Genre.vinyl.bulk_create(genres(*"abcde"), batch_size=2)
    assert sizes == [["a", "b"], ["c", "d"], ["e"]]
    assert await stored() == [*"abcde"]


async def renamed(count: int, add: str) -> list[Genre]:
    """Some that are stored, and have another name since."""
    made: list[Genre] = await Genre.vinyl.bulk_create(genres(*"abcdefghijklm"[:count]))
    for genre in made:
        genre.name += add
    return made


async def test_updates_travel_together(engine: Engine) -> None:
    made = await renamed(13, "!")
    with flown(8, 4) if engine.name == "postgresql" else flown():
        assert await Genre.vinyl.bulk_update(made, ["name"], batch_size=1) == 13
    assert await stored() == [f"{name}!" for name in "abcdefghijklm"]
    await made[2].delete()
    await made[3].delete()
    assert await Genre.vinyl.bulk_update(made[:2] + made[4:], ["name"], batch_size=4) == 11


@pytest.mark.parametrize("at", range(5))
async def test_an_error_in_an_update_undoes_all(engine: Engine, at: int) -> None:
    await Genre.vinyl.create(name="taken")
    made = await renamed(5, "!")
    made[at].name = "taken"
    async with vinyl.atomic():
        with pytest.raises(IntegrityError):
            await Genre.vinyl.bulk_update(made, ["name"], batch_size=1)
        with pytest.raises(transaction.TransactionManagementError):
            await Genre.vinyl.count()
    assert await stored() == ["taken", *"abcde"]
    with pytest.raises(IntegrityError):
        await Genre.vinyl.bulk_update(made, ["name"], batch_size=1)
    assert await stored() == ["taken", *"abcde"]


def blocked(admin: psycopg.Connection[Any]) -> list[int]:
    """The backends that wait for a lock."""
    return [pid for (pid,) in admin.execute("SELECT pid FROM pg_locks WHERE NOT granted")]


@on_a_loop
@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
@pytest.mark.parametrize("way", ["cancelled", "killed"])
@pytest.mark.parametrize("at", range(4))
async def test_cut_off_under_way(
    engine: Engine, at: int, way: str, postgres_admin: psycopg.Connection[Any]
) -> None:
    """While the server waits in one of the batches for somebody else's row."""
    names = ["a", "b", "c", "d"]
    with psycopg.connect(postgres_admin.info.dsn) as other:
        other.execute("INSERT INTO library_genre (name) VALUES (%s)", [names[at]])
        task = asyncio.ensure_future(Genre.vinyl.bulk_create(genres(*names), batch_size=1))
        while not blocked(postgres_admin):
            await asyncio.sleep(0.001)
        if way == "cancelled":
            task.cancel()
        else:
            (pid,) = blocked(postgres_admin)
            postgres_admin.execute("SELECT pg_terminate_backend(%s)", [pid])
        with pytest.raises(asyncio.CancelledError if way == "cancelled" else OperationalError):
            await task
        other.rollback()
    assert await stored() == []
    await Genre.vinyl.bulk_create(genres(*names), batch_size=1)
    assert await stored() == names
