"""Contract, section 3: relations and related managers."""

from __future__ import annotations

import pickle
from typing import Any

import django
import pytest
from fix_engine import Engine
from press.models import (
    Article,
    Badge,
    Kiosk,
    Notice,
    PlainQuerySet,
    Remark,
    Tagging,
    Topic,
    Writer,
)
from press.seed import seed

import vinyl
from vinyl import NotFetched, _core


def titles(articles) -> list[str]:
    return [each.title for each in articles]


async def test_foreign_key(database) -> None:
    s = await seed()
    article = await Article.vinyl.get(pk=s.a.pk)
    author = await article.author
    assert author.name == "Ann"
    assert article.author is author
    assert article.author.name == "Ann"
    assert (await article.author) is author
    assert author._state.db == database.alias
    other = await Article.vinyl.get(pk=s.b.pk)
    assert other.reviewer is None
    assert (await other.reviewer) is None
    joined = await Article.vinyl.select_related("author", "reviewer").get(pk=s.a.pk)
    assert joined.author.name == "Ann"
    assert joined.reviewer.name == "Bob"
    assert (await joined.author).name == "Ann"
    assert (await getattr(article, "editor")).name == "Bob"  # noqa: B009
    fresh = Article(author_id=s.ann.pk)
    assert (await fresh.author).name == "Ann"
    with pytest.raises(Article.author.RelatedObjectDoesNotExist):
        await Article().author
    missing = Article(author_id=10**9)
    with pytest.raises(Writer.DoesNotExist):
        await missing.author
    assigned = Article(author=s.ann)
    assert assigned.author is s.ann


async def test_one_to_one_both_ways(database) -> None:
    s = await seed()
    ann = await Writer.vinyl.get(name="Ann")
    badge = await ann.badge
    assert badge.number == 7
    again = await Badge.vinyl.get(number=7)
    assert (await again.bearer).pk == ann.pk
    assert again.bearer.name == "Ann"
    assert (await again.bearer) is again.bearer
    bob = await Writer.vinyl.get(name="Bob")
    assert (await bob.badge) is None
    lonely = await Badge.vinyl.create(number=8)
    with pytest.raises(Badge.bearer.RelatedObjectDoesNotExist):
        await lonely.bearer
    assert s.bob == bob


async def test_generic_foreign_key(database) -> None:
    s = await seed()
    made = await Remark.vinyl.create(text="good", subject=s.a)
    remark = await Remark.vinyl.get(pk=made.pk)
    with pytest.raises(NotFetched):
        remark.subject.title
    subject = await remark.subject
    assert subject == s.a
    assert remark.subject is subject
    assert (await remark.subject) is subject
    assert remark.subject.title == "a"
    assert (await Remark(text="none").subject) is None
    assert Remark(text="none").subject is None
    [prefetched] = await Remark.vinyl.prefetch_related("subject")
    assert prefetched.subject.title == "a"
    dangling = Remark(text="x", content_type_id=remark.content_type_id, object_id=10**9)
    assert (await dangling.subject) is None


async def test_generic_relation(database) -> None:
    from django.contrib.contenttypes.models import ContentType

    s = await seed()
    ContentType.objects.clear_cache()
    article = await Article.vinyl.get(pk=s.a.pk)
    assert await article.remarks.count() == 0
    ContentType.objects.clear_cache()
    remark = await article.remarks.create(text="first")
    assert remark.pk
    ContentType.objects.clear_cache()
    assert [each.text for each in await article.remarks.all()] == ["first"]
    ContentType.objects.clear_cache()
    assert await article.remarks.filter(text="first").exists()
    other = Remark(text="second")
    await article.remarks.add(other, bulk=False)
    assert await article.remarks.count() == 2
    await article.remarks.remove(other)
    assert await article.remarks.count() == 1
    await article.remarks.set([remark])
    await article.remarks.clear()
    assert await Remark.vinyl.count() == 0


def attribute(x):
    return x.name


def truth(x):
    return bool(x)


def equality(x):
    return x == 1


def inequality(x):
    return x != 1


def iteration(x):
    return list(x)


def call(x):
    return x()


def measure(x):
    return len(x)


def text(x):
    return f"{x}"


def item(x):
    return x["name"]


def assign(x):
    x.name = "lost"


def pickled(x):
    return pickle.dumps(x)


def less(x):
    return x < 1


def add(x):
    return x + 1


def has(x):
    return hasattr(x, "name")


@pytest.mark.parametrize(
    "use",
    [
        attribute,
        truth,
        equality,
        inequality,
        iteration,
        call,
        measure,
        text,
        item,
        assign,
        pickled,
        less,
        add,
        has,
    ],
)
@pytest.mark.modes("asyncio", "blocking")
async def test_unfetched_relation_used_without_await(database, use) -> None:
    s = await seed()
    article = await Article.vinyl.get(pk=s.a.pk)
    with pytest.raises(NotFetched, match=r"Article\.author.*await.*vinyl\.run"):
        use(article.author)
    badge = await Badge.vinyl.get()
    with pytest.raises(NotFetched):
        use(badge.bearer)
    # nothing is broken by it
    assert (await article.author).name == "Ann"
    assert "Article.author" in repr((await Article.vinyl.get(pk=s.a.pk)).author)


async def test_unfetched_one_to_one_does_not_answer_hasattr(database) -> None:
    await seed()
    badge = await Badge.vinyl.get()
    with pytest.raises(NotFetched):
        hasattr(badge, "bearer")
    with pytest.raises(NotFetched):
        getattr(badge, "bearer", None)
    await badge.bearer
    assert hasattr(badge, "bearer")
    assert not hasattr(Badge(number=1), "bearer")


async def test_a_stand_in_cannot_be_assigned_or_looked_up(database) -> None:
    s = await seed()
    article = await Article.vinyl.get(pk=s.a.pk)
    other = await Article.vinyl.get(pk=s.b.pk)
    with pytest.raises(NotFetched):
        other.reviewer = article.author
    with pytest.raises(NotFetched):
        Article(author=article.author)
    with pytest.raises(NotFetched):
        await Article.vinyl.filter(author=article.author)
    pending = article.author
    assert (await pending).name == "Ann"
    third = await Article.vinyl.get(pk=s.d.pk)
    [one, two] = await vinyl.gather(other.author, third.author)
    assert (one.name, two.name) == ("Ann", "Bob")


async def test_sync_code_called_by_a_coroutine_gets_plain_django(database) -> None:
    s = await seed()
    article = await Article.vinyl.get(pk=s.a.pk)

    def helper() -> str:
        return article.author.name

    with pytest.raises(NotFetched, match=r"vinyl\.run"):
        helper()
    await article.author
    assert helper() == "Ann"
    assert await vinyl.run(helper) == "Ann"


async def test_related_manager_reads(database) -> None:
    s = await seed()
    ann = await Writer.vinyl.get(name="Ann")
    assert titles(await ann.articles.all()) == ["a", "b", "c"]
    assert titles(await ann.articles.filter(words__gt=1000)) == ["b", "c"]
    assert await ann.articles.count() == 3
    assert await ann.articles.exists() is True
    assert await ann.articles.filter(title="z").exists() is False
    assert (await ann.articles.get(title="b")).pk == s.b.pk
    assert (await ann.articles.first()).title == "a"
    assert (await ann.articles.order_by("-title").first()).title == "c"
    assert await ann.articles.contains(s.a)
    assert (await ann.articles.aggregate(n=vinyl_sum("words")))["n"] == 4500
    assert [each.title async for each in ann.articles.all()] == ["a", "b", "c"]
    assert [each.title async for each in ann.articles.filter(words__lt=1000)] == ["a"]
    assert [each.title async for each in ann.articles.iterator(chunk_size=2)] == ["a", "b", "c"]
    assert [each.title async for each in ann.articles.all().iterator()] == ["a", "b", "c"]
    assert [each.title async for each in ann.articles.aiterator()] == ["a", "b", "c"]
    assert (await ann.articles.all()[1]).title == "b"
    assert titles(await ann.articles.all()[:2]) == ["a", "b"]
    assert await ann.articles.values_list("title", flat=True) == ["a", "b", "c"]
    # the known parent is set
    [first, *_] = await ann.articles.all()
    assert first.author is ann
    assert await ann.edited_articles.count() == 0
    assert await s.art.articles.count() == 2
    assert await ann.kiosks.count() == 0
    assert isinstance(ann.kiosks.all(), type(Kiosk.vinyl.all()))


def vinyl_sum(name):
    from django.db.models import Sum

    return Sum(name)


async def test_related_manager_has_the_default_managers_methods(database) -> None:
    await seed()
    ann = await Writer.vinyl.get(name="Ann")
    assert titles(await ann.articles.long()) == ["b", "c"]
    assert await ann.articles.long().count() == 2
    assert titles(await ann.articles.filter(title="b").long()) == ["b"]
    assert isinstance(ann.articles.all(), PlainQuerySet)
    assert await vinyl.run(lambda: ann.articles.first_title()) == "a"
    # written in a coroutine: what needs I/O is awaited, by a manager and by a queryset
    assert await ann.articles.first_title() == "a"
    assert await ann.articles.filter(words__gt=1000).first_title() == "b"

    def helper() -> str:
        return ann.articles.first_title()

    with pytest.raises(NotFetched):
        helper()
    assert await ann.articles(manager="awaited").long().count() == 2


async def test_related_manager_writes(database) -> None:
    s = await seed()
    ann = await Writer.vinyl.get(name="Ann")
    made = await ann.articles.create(title="new")
    assert (made.author, made.saves) == (ann, 1)
    got, created = await ann.articles.get_or_create(title="new")
    assert (got, created) == (made, False)
    got, created = await ann.articles.update_or_create(title="newer", defaults={"words": 3})
    assert (got.words, created) == (3, True)
    assert await ann.articles.filter(title__startswith="new").update(words=9) == 2
    assert (await ann.articles.filter(title__startswith="new").delete())[0] == 2
    await ann.articles.add(s.d)
    assert await ann.articles.count() == 4
    await ann.reviewed.add(s.b, s.c)
    await ann.reviewed.remove(s.b)
    assert await ann.reviewed.count() == 1
    await ann.reviewed.set([s.a, s.d])
    assert titles(await ann.reviewed.order_by("title")) == ["a", "d"]
    await ann.reviewed.clear()
    assert await ann.reviewed.count() == 0
    # the foreign key without null has neither
    assert not hasattr(ann.articles, "remove")
    assert not hasattr(ann.articles, "clear")
    new = Article(title="by add")
    await ann.articles.add(new, bulk=False)
    assert new.pk
    with pytest.raises(TypeError, match="instance expected"):
        await ann.articles.add(s.art)
    with pytest.raises(TypeError, match="prohibited"):
        ann.articles = []


async def test_related_manager_async_names(database) -> None:
    s = await seed()
    ann = await Writer.vinyl.get(name="Ann")
    assert await ann.articles.acount() == 3
    assert (await ann.articles.aget(title="a")).pk == s.a.pk
    assert (await ann.articles.acreate(title="x")).author_id == ann.pk
    await ann.reviewed.aadd(s.b)
    await ann.reviewed.aset([s.c])
    await ann.reviewed.aremove(s.c)
    await ann.reviewed.aclear()
    article = await Article.vinyl.get(pk=s.b.pk)
    await article.topics.aadd(s.law)
    assert await article.topics.acount() == 2
    await article.topics.aclear()
    assert not await article.topics.aexists()


async def test_many_to_many(database) -> None:
    s = await seed()
    a = await Article.vinyl.get(pk=s.a.pk)
    assert [each.name for each in await a.topics.all()] == ["art", "law"]
    assert await a.topics.count() == 2
    assert await a.topics.exists()
    made = await a.topics.create(name="made")
    await a.topics.remove(s.art)
    assert [each.name for each in await a.topics.all()] == ["law", "made"]
    await a.topics.set([s.art, made.pk])
    assert await a.topics.filter(name="art").exists()
    await a.topics.add(s.law.pk)
    assert await a.topics.count() == 3
    await a.topics.clear()
    assert await a.topics.count() == 0
    await s.art.articles.add(a)
    assert titles(await s.art.articles.order_by("title")) == ["a", "b"]
    await s.art.articles.set(Article.vinyl.filter(title__in=["c", "d"]))
    assert titles(await s.art.articles.order_by("title")) == ["c", "d"]
    await a.tagged.add(s.law, through_defaults={"weight": 5})
    assert (await Tagging.vinyl.get()).weight == 5
    assert [each.name for each in await a.tagged.all()] == ["law"]
    await a.topics.add(made)
    got, created = await a.topics.get_or_create(name="made")
    assert (got, created) == (made, False)
    with pytest.raises(ValueError, match="needs to have a value"):
        Article(title="unsaved").topics


async def test_prefetched_managers_iterate_without_await(database) -> None:
    await seed()
    authors = await Writer.vinyl.prefetch_related("articles__topics", "reviewed").order_by("name")
    ann = authors[0]
    assert titles(ann.articles.all()) == ["a", "b", "c"]
    assert len(ann.articles.all()) == 3
    assert [each.name for each in ann.articles.all()[0].topics.all()] == ["art", "law"]
    assert titles(await ann.articles.all()) == ["a", "b", "c"]
    assert await ann.articles.count() == 3

    def template() -> list[str]:
        return [each.title for each in ann.articles.all()]

    assert template() == ["a", "b", "c"]
    with pytest.raises(NotFetched):
        list(ann.articles.filter(title="a"))
    assert [each.title async for each in ann.articles.all()] == ["a", "b", "c"]
    await ann.articles.create(title="later")
    assert await ann.articles.count() == 4


async def test_generic_foreign_key_set_in_a_coroutine(database) -> None:
    from django.contrib.contenttypes.models import ContentType

    s = await seed()
    ContentType.objects.clear_cache()
    remark = Remark(text="set", subject=s.a)
    assert remark.subject is s.a or (await remark.subject) == s.a
    await remark.save()
    assert (await Remark.vinyl.get(text="set")).object_id == s.a.pk
    assert await s.a.remarks.count() == 1
    ContentType.objects.clear_cache()
    remark.subject = s.ann
    await remark.save()
    again = await Remark.vinyl.get(text="set")
    assert (await again.subject) == s.ann


async def test_reverse_relation_of_an_abstract_parents_key(database) -> None:
    s = await seed()
    notice = Notice(title="n", editor=s.ann)
    await notice.save()
    assert await s.ann.edited_notices.count() == 1
    assert (await (await Notice.vinyl.get()).editor) == s.ann
    assert await Topic.vinyl.filter(articles__author=s.ann).distinct().count() == 2


def test_a_loaded_column_is_read_in_c(engine: Engine) -> None:
    descriptor: Any = Article.__dict__["author_id"]
    article = Article(author_id=5)
    assert type(descriptor).__get__ is _core.read_attribute
    assert (article.author_id, Article.author_id, descriptor.__get__(None)) == (
        5,
        descriptor,
        descriptor,
    )
    assert descriptor.__get__(article) == descriptor.__get__(article, Article) == 5
    for wrong in [(), (article, Article, 3)]:
        with pytest.raises(TypeError):
            descriptor.__get__(*wrong)
    del article.__dict__["author_id"]
    # Of an instance that was never saved: before Django 6.0 it was looked for all the same.
    missing = AttributeError if django.VERSION >= (6, 0) else Article.DoesNotExist
    with pytest.raises(missing, match=r"deferred field|does not exist"):
        article.author_id
    assert Article.author_id.field is Article._meta.get_field("author")
