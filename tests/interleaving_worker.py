"""A worker of the interleaving test: a seeded random mix of ORM work on rows of its own, mirrored
in plain Python, so that every answer is known beforehand.

What a worker does depends on its seed alone; how the workers' statements fall between each other
depends on the loop and the database.  A wrong answer raises AssertionError, naming the seed and
the last steps.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from django.db import IntegrityError
from django.db.models import Count, F, Sum
from library.models import Author, Book, Genre, Profile, Publisher, Sample

import vinyl

GENRES = ("crime", "drama", "essay", "fable", "satire")
#: Sample.text of the row that all workers count up.
SHARED = "shared"


class Undo(Exception):
    """Raised inside a block to roll it back."""


@dataclass
class KnownBook:
    """What the row of a book must be."""

    title: str
    pages: int
    price: Decimal
    genres: set[str] = field(default_factory=set)


@dataclass
class KnownAuthor:
    """What the row of an author and those that belong to it must be."""

    name: str
    profile: str
    books: dict[int, KnownBook] = field(default_factory=dict)


class Worker:
    """``steps`` counts what it did, ``counted`` how often it has counted up the shared row."""

    def __init__(self, seed: str, genres: dict[str, Genre], on_loop: bool) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.genres = genres
        self.authors: dict[int, KnownAuthor] = {}
        self.made = 0
        self.counted = 0
        self.journal: list[str] = []
        self.work: list[Callable[[], Awaitable[None]]] = [
            self.add_author, self.add_books, self.add_books_at_once, self.change_by_query,
            self.change_by_save, self.change_genres, self.remove_book, self.remove_author,
            self.keep_outer_undo_inner, self.undo_all, self.survive_an_error, self.count_up,
            self.read_by_prefetch, self.read_by_join, self.read_by_aggregate, self.read_by_stream,
            self.read_as_sync_code, self.read_one_afresh,
        ]  # fmt: skip
        if on_loop:
            self.work += [self.read_side_by_side, self.write_side_by_side, self.give_up]

    async def run(self, steps: int, after_step: Callable[[Worker], None]) -> None:
        await self.add_author()
        for _ in range(steps):
            step = self.random.choice(self.work)
            self.journal.append(step.__name__)
            try:
                await step()
            except AssertionError as error:
                raise AssertionError(
                    f"worker {self.seed}, after {self.journal[-8:]}: {error}"
                ) from error
            after_step(self)
        await self.read_by_prefetch()

    # --- choosing

    def name(self) -> str:
        self.made += 1
        return f"{self.seed}/{self.made}"

    def known_book(self) -> KnownBook:
        price = Decimal(self.random.randrange(100, 10000)) / 100
        return KnownBook(self.name(), self.random.randrange(1000), price)

    def one_author(self) -> tuple[int, KnownAuthor]:
        return self.random.choice(list(self.authors.items()))

    def one_book(self) -> tuple[KnownAuthor, int, KnownBook] | None:
        found = [
            (author, pk, book)
            for author in self.authors.values()
            for pk, book in author.books.items()
        ]
        return self.random.choice(found) if found else None

    def mine(self) -> Any:
        return Book.vinyl.filter(author__name__startswith=f"{self.seed}/")

    def all_books(self) -> dict[int, KnownBook]:
        return {pk: book for author in self.authors.values() for pk, book in author.books.items()}

    # --- writing

    async def add_author(self) -> None:
        known = KnownAuthor(self.name(), self.name())
        async with vinyl.atomic():
            author = await Author.vinyl.create(name=known.name)
            await Profile.vinyl.create(author=author, text=known.profile)
        self.authors[author.pk] = known

    async def add_books(self) -> None:
        pk, author = self.one_author()
        row = await Author.vinyl.get(pk=pk)
        assert row.name == author.name
        known = self.known_book()
        book = await row.books.create(title=known.title, pages=known.pages, price=known.price)
        author.books[book.pk] = known

    async def add_books_at_once(self) -> None:
        pk, author = self.one_author()
        known = [self.known_book() for _ in range(self.random.randrange(1, 6))]
        rows = [
            Book(author_id=pk, title=each.title, pages=each.pages, price=each.price)
            for each in known
        ]
        await Book.vinyl.bulk_create(rows)
        author.books |= {row.pk: each for row, each in zip(rows, known, strict=True)}

    async def change_by_query(self) -> None:
        pk, author = self.one_author()
        more = self.random.randrange(1, 9)
        changed = await Book.vinyl.filter(author_id=pk).update(pages=F("pages") + more)
        assert changed == len(author.books), (changed, len(author.books))
        for book in author.books.values():
            book.pages += more

    async def change_by_save(self) -> None:
        if (found := self.one_book()) is None:
            return
        _, pk, known = found
        book = await Book.vinyl.get(pk=pk)
        known.title = book.title = self.name()
        known.pages = book.pages = book.pages + 1
        await book.save()
        await book.refresh_from_db()
        assert (book.title, book.pages) == (known.title, known.pages)

    async def change_genres(self) -> None:
        if (found := self.one_book()) is None:
            return
        _, pk, known = found
        book = await Book.vinyl.get(pk=pk)
        chosen = set(self.random.sample(GENRES, self.random.randrange(len(GENRES))))
        match self.random.randrange(4):
            case 0:
                await book.genres.set([self.genres[name] for name in chosen])
                known.genres = chosen
            case 1:
                await book.genres.add(*[self.genres[name] for name in chosen])
                known.genres |= chosen
            case 2:
                await book.genres.remove(*[self.genres[name] for name in chosen])
                known.genres -= chosen
            case 3:
                await book.genres.clear()
                known.genres = set()
        names = {genre.name for genre in await book.genres.all()}
        assert names == known.genres, (names, known.genres)

    async def remove_book(self) -> None:
        if (found := self.one_book()) is None:
            return
        author, pk, known = found
        book = await Book.vinyl.get(pk=pk)
        _, by_model = await book.delete()
        expected = {"library.Book": 1, "library.Book_genres": len(known.genres)}
        assert {k: n for k, n in by_model.items() if n} == {k: n for k, n in expected.items() if n}
        del author.books[pk]

    async def remove_author(self) -> None:
        if len(self.authors) < 3:
            return
        pk, known = self.one_author()
        _, by_model = await Author.vinyl.filter(pk=pk).delete()
        expected = {
            "library.Author": 1,
            "library.Profile": 1,
            "library.Book": len(known.books),
            "library.Book_genres": sum(len(book.genres) for book in known.books.values()),
        }
        assert {k: n for k, n in by_model.items() if n} == {k: n for k, n in expected.items() if n}
        del self.authors[pk]

    async def count_up(self) -> None:
        undone = self.random.random() < 0.4
        try:
            async with vinyl.atomic():
                changed = await Sample.vinyl.filter(text=SHARED).update(big=F("big") + 1)
                assert changed == 1
                if undone:
                    raise Undo
        except Undo:
            return
        self.counted += 1

    # --- rolling back

    async def keep_outer_undo_inner(self) -> None:
        pk, author = self.one_author()
        kept = self.known_book()
        async with vinyl.atomic():
            row = await Book.vinyl.create(
                author_id=pk, title=kept.title, pages=kept.pages, price=kept.price
            )
            try:
                async with vinyl.atomic():
                    await Book.vinyl.filter(author_id=pk).update(title="undone")
                    await Book.vinyl.create(author_id=pk, title="undone")
                    raise Undo
            except Undo:
                pass
            assert await Book.vinyl.filter(author_id=pk, title="undone").count() == 0
            assert await Book.vinyl.filter(author_id=pk).count() == len(author.books) + 1
        author.books[row.pk] = kept

    async def undo_all(self) -> None:
        try:
            async with vinyl.atomic():
                await self.mine().delete()
                assert not await self.mine().exists()
                raise Undo
        except Undo:
            pass
        assert await self.mine().count() == len(self.all_books())

    async def survive_an_error(self) -> None:
        pk, author = self.one_author()
        async with vinyl.atomic():
            name = self.name()
            await Author.vinyl.filter(pk=pk).update(name=name)
            try:
                async with vinyl.atomic():
                    await Genre.vinyl.create(name=GENRES[0])
            except IntegrityError:
                pass
            else:
                raise AssertionError("a second genre of the same name was let in")
            assert await Author.vinyl.filter(pk=pk, name=name).exists()
        author.name = name

    async def give_up(self) -> None:
        """A statement cancelled at some point has been done wholly or not at all."""
        pk, author = self.one_author()
        name = self.name()
        task = asyncio.ensure_future(Author.vinyl.filter(pk=pk).update(name=name))
        for _ in range(self.random.randrange(6)):
            await asyncio.sleep(0)
        task.cancel()
        try:
            assert await task == 1
            author.name = name
        except asyncio.CancelledError:
            row = await Author.vinyl.get(pk=pk)
            assert row.name in (name, author.name), row.name
            author.name = row.name

    # --- reading

    def same(self, rows: list[Book]) -> None:
        found = {row.pk: (row.title, row.pages, row.price) for row in rows}
        known = {pk: (b.title, b.pages, b.price) for pk, b in self.all_books().items()}
        assert found == known, set(found.items()) ^ set(known.items())

    async def read_by_prefetch(self) -> None:
        rows = await Author.vinyl.filter(name__startswith=f"{self.seed}/").prefetch_related(
            "books__genres"
        )
        assert {row.pk: row.name for row in rows} == {p: a.name for p, a in self.authors.items()}
        for row in rows:
            known = self.authors[row.pk].books
            books = {
                book.pk: (book.title, book.pages, {genre.name for genre in book.genres.all()})
                for book in row.books.all()
            }
            assert books == {pk: (b.title, b.pages, b.genres) for pk, b in known.items()}

    async def read_by_join(self) -> None:
        rows = await self.mine().select_related("author__profile")
        for row in rows:
            known = self.authors[row.author_id]
            assert (row.author.name, row.author.profile.text) == (known.name, known.profile)
        self.same(rows)

    async def read_by_aggregate(self) -> None:
        books = self.all_books().values()
        found = await self.mine().aggregate(n=Count("pk"), pages=Sum("pages"), price=Sum("price"))
        known = {
            "n": len(books),
            "pages": sum(book.pages for book in books) if books else None,
            "price": sum(book.price for book in books) if books else None,
        }
        assert found == known, (found, known)

    async def read_by_stream(self) -> None:
        self.same([row async for row in self.mine().iterator(chunk_size=3)])

    async def read_as_sync_code(self) -> None:
        mine = f"{self.seed}/"

        def sync() -> list[Book]:
            return list(Book.objects.filter(author__name__startswith=mine))

        self.same(await vinyl.run(sync))

    async def read_one_afresh(self) -> None:
        if (found := self.one_book()) is None:
            return
        author, pk, known = found
        book = await Book.vinyl.only("title").get(pk=pk)
        assert (book.title, await book.pages) == (known.title, known.pages)
        assert (await book.author).name == author.name
        assert await book.publisher is None
        assert not await Publisher.vinyl.filter(books=book).exists()

    async def read_side_by_side(self) -> None:
        chosen = list(self.authors.items())[:4]
        counts = await asyncio.gather(
            *[Book.vinyl.filter(author_id=pk).count() for pk, _ in chosen]
        )
        assert counts == [len(author.books) for _, author in chosen]

    async def write_side_by_side(self) -> None:
        """Operations of one task, gathered inside its block, are in its transaction."""
        chosen = list(self.authors.items())[:3]
        names = [self.name() for _ in chosen]
        undone = self.random.random() < 0.5
        pairs = list(zip(chosen, names, strict=True))
        try:
            async with vinyl.atomic():
                changed = await asyncio.gather(
                    *[Author.vinyl.filter(pk=pk).update(name=name) for (pk, _), name in pairs]
                )
                assert changed == [1] * len(chosen)
                if undone:
                    raise Undo
        except Undo:
            return
        for (_, author), name in pairs:
            author.name = name
