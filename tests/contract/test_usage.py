"""Contract, sections 2 and 3: as users write it, in loops, in blocks, with everything chained."""

from __future__ import annotations

import asyncio
import pickle

import django
import pytest
from django.db import IntegrityError, models
from press.models import Article, Badge, Tagging, Writer
from press.seed import seed

import vinyl
from vinyl import NotFetched


@pytest.mark.skipif(django.VERSION < (6, 1), reason="fetch modes are new in Django 6.1")
async def test_fetch_modes(database):
    from django.core.exceptions import FieldFetchBlocked

    await seed()
    articles = await Article.vinyl.fetch_mode(models.FETCH_PEERS).order_by("title")
    assert (await articles[0].author).name == "Ann"
    assert articles[3].author.name == "Bob"
    articles = await Article.vinyl.fetch_mode(models.FETCH_RAISE).order_by("title")
    with pytest.raises(FieldFetchBlocked):
        await articles[0].author
    writers = await Writer.vinyl.fetch_mode(models.FETCH_PEERS).only("name").order_by("name")
    assert await writers[0].bio == "long"
    assert writers[1].bio == ""


async def test_async_with_in_loops(database):
    await seed()
    async for w in Writer.vinyl.order_by("name"):
        async for a in w.articles.all():
            async for t in a.topics.all():
                assert t.name

    async def rows():
        async for a in Article.vinyl.order_by("title"):
            yield (await a.author).name

    assert [x async for x in rows()] == ["Ann", "Ann", "Ann", "Bob"]


async def test_save_in_iteration(database):
    await seed()
    async for a in Article.vinyl.order_by("title").iterator(chunk_size=2):
        a.words += 1
        await a.save()
    assert await Article.vinyl.filter(words=501).count() == 1


async def test_async_method_on_model(database):
    s = await seed()
    await s.ann.arename("Z")
    assert (await Writer.vinyl.get(pk=s.ann.pk)).name == "Z"


async def test_custom_manager_subclass(database):
    class M(vinyl.VinylManager):
        def get_queryset(self):
            return super().get_queryset().filter(words__gt=1000)

        def titled(self, t):
            return self.get(title=t)

        async def names(self):
            return [a.title async for a in self.order_by("title")]

    await seed()
    m = M()
    m.model = Article
    assert await m.count() == 2
    assert (await m.titled("b")).words == 1500
    assert await m.names() == ["b", "c"]


async def test_values_list_flat_slices(database):
    await seed()
    assert await Article.vinyl.order_by("title").values_list("title", flat=True)[1] == "b"
    assert await Article.vinyl.order_by("title").values_list("title", flat=True)[1:3] == ["b", "c"]


async def test_gather_queries_in_block(database):
    await seed()
    async with vinyl.atomic():
        a, b = await vinyl.gather(Article.vinyl.all(), Writer.vinyl.count())
        assert (len(a), b) == (4, 2)


@pytest.mark.modes("asyncio")
async def test_asyncio_gather_querysets_outside(database):
    await seed()
    a, b = await asyncio.gather(Article.vinyl.all(), Writer.vinyl.count())
    assert (len(a), b) == (4, 2)
    async with asyncio.TaskGroup() as tg:
        t = tg.create_task(Article.vinyl.count())
    assert t.result() == 4
    assert await asyncio.wait_for(Article.vinyl.all(), 5)
    assert await asyncio.shield(Article.vinyl.count()) == 4


async def test_create_with_unsaved(database):
    w = Writer(name="n")
    a = Article(title="t", author=w)
    await w.save()
    await a.save()
    assert a.author_id == w.pk


async def test_o2o_set(database):
    s = await seed()
    b = Badge(number=99)
    await b.save()
    s.bob.badge = b
    await s.bob.save()
    assert (await (await Badge.vinyl.get(number=99)).bearer) == s.bob
    s.ann.badge = None
    await s.ann.save()
    again = await Badge.vinyl.get(number=7)
    again.bearer = s.ann
    await s.ann.save()
    assert (await (await Writer.vinyl.get(name="Ann")).badge) == again


async def test_m2m_through_defaults_and_symm(database):
    s = await seed()
    await s.a.tagged.add(s.art, s.law, through_defaults={"weight": 2})
    assert await Tagging.vinyl.filter(weight=2).count() == 2
    assert [t.name async for t in s.a.tagged.order_by("name")] == ["art", "law"]
    assert await s.art.tagged_articles.count() == 1


async def test_chained_related(database):
    s = await seed()
    qs = s.ann.articles.all()
    sub = qs.filter(words__gt=1000)
    with pytest.raises(NotFetched):
        list(sub)
    assert len(await sub) == 2
    assert len(sub) == 2
    assert [a.title for a in sub] == ["b", "c"]
    assert (await sub.first()).title == "b"
    assert await (s.ann.articles.filter(title="a") | s.ann.articles.filter(title="b")).count() == 2
    assert await s.ann.articles.values("title").order_by("title").first() == {"title": "a"}
    assert await s.ann.articles.filter(title="a").exists()
    assert (await s.ann.articles.in_bulk())[s.a.pk] == s.a
    assert await s.ann.articles.using(database.alias).count() == 3
    assert await s.ann.articles.raw("select * from press_article where title=%s", ["a"])
    assert await s.ann.articles.all().bulk_update([s.a], ["words"]) == 1
    await s.ann.articles.bulk_create([Article(title="bulk", author=s.ann)])
    assert await s.ann.articles.none() == []
    assert await s.ann.articles.db_manager("default").count() == 4


async def test_pickle_related_qs(database):
    s = await seed()
    qs = s.ann.articles.order_by("title")
    await qs
    again = pickle.loads(pickle.dumps(qs))
    assert [a.title for a in again] == ["a", "b", "c"]
    assert await again.filter(title="a").count() == 1


async def test_deletion_collect(database):
    await seed()
    _n, d = await Writer.vinyl.filter(name="Ann").delete()
    assert d["press.Article"] == 3


async def test_errors_have_causes(database):
    await Badge.vinyl.create(number=1)
    with pytest.raises(IntegrityError) as e:
        await Badge.vinyl.create(number=1)
    c = e.value.__cause__
    if database.name == "postgresql":
        assert c.sqlstate == "23505"
    else:
        assert c.sqlite_errorname == "SQLITE_CONSTRAINT_UNIQUE"


async def test_update_fields_deferred_save(database):
    s = await seed()
    a = await Article.vinyl.only("title").get(pk=s.a.pk)
    a.title = "only"
    await a.save(update_fields=["title"])
    b = await Article.vinyl.defer("words").get(pk=s.b.pk)
    b.title = "dd"
    await b.save(update_fields=["title"])
    assert await Article.vinyl.filter(title__in=["only", "dd"]).count() == 2
