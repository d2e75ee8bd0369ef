"""Contract, section 2: managers and querysets."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.core.paginator import Paginator
from django.db.models import Count, F, Prefetch, QuerySet
from django.template import Context, Engine
from press.models import Article, LoudNotice, Notice, PlainQuerySet, Stamped, Topic, Writer
from press.seed import seed

import vinyl
from vinyl import NotFetched


def titles(articles) -> list[str]:
    return [each.title for each in articles]


async def test_founding_snippet(database) -> None:
    await seed()
    [ob, *_] = await Article.vinyl.all()
    ob.words = 13
    await ob.save()
    assert await Article.vinyl.filter(words=13).count() == 1


async def test_await_gives_the_list_and_keeps_it(database) -> None:
    await seed()
    queryset = Article.vinyl.order_by("title")
    found = await queryset
    assert type(found) is list
    assert titles(found) == ["a", "b", "c", "d"]
    assert titles(queryset) == ["a", "b", "c", "d"]
    assert len(queryset) == 4
    assert queryset
    assert found[0] in queryset
    assert queryset[1].title == "b"
    assert titles(queryset[1:3]) == ["b", "c"]
    assert queryset[0] is found[0]
    found.clear()
    assert titles(await queryset) == ["a", "b", "c", "d"]
    # filter() after await starts afresh
    later = queryset.filter(title="a")
    with pytest.raises(NotFetched):
        len(later)
    assert titles(await later) == ["a"]


async def test_every_method_that_fetches_is_awaitable(database) -> None:
    s = await seed()
    articles = Article.vinyl.order_by("title")
    assert (await articles.get(title="b")).pk == s.b.pk
    assert (await articles.first()).title == "a"
    assert (await articles.last()).title == "d"
    assert (await articles.earliest("words")).title == "d"
    assert (await articles.latest("words")).title == "c"
    assert await articles.count() == 4
    assert await articles.exists() is True
    assert await articles.contains(s.c) is True
    assert await articles.aggregate(n=Count("pk")) == {"n": 4}
    found, made = await Topic.vinyl.get_or_create(name="art")
    assert (found.pk, made) == (s.art.pk, False)
    found, made = await Topic.vinyl.update_or_create(name="new", defaults={"name": "newer"})
    assert (found.name, made) == ("newer", True)
    made = await Topic.vinyl.bulk_create([Topic(name="x"), Topic(name="y")])
    for each in made:
        each.name += "!"
    assert await Topic.vinyl.bulk_update(made, ["name"]) == 2
    assert await Topic.vinyl.filter(name__endswith="!").update(name=F("name")) == 2
    deleted, by_model = await Topic.vinyl.filter(name__endswith="!").delete()
    assert (deleted, by_model) == (2, {"press.Topic": 2})
    assert set(await articles.in_bulk([s.a.pk, s.d.pk])) == {s.a.pk, s.d.pk}
    assert isinstance(await articles.explain(), str)
    created = await Writer.vinyl.create(name="Zoe")
    assert created.pk is not None
    assert created._state.adding is False
    assert created._state.db == database.alias


async def test_methods_are_awaitable_on_a_fetched_one_too(database) -> None:
    s = await seed()
    articles = Article.vinyl.order_by("title")
    await articles
    assert await articles.count() == 4
    assert await articles.exists()
    assert await articles.contains(s.a)
    assert (await articles.first()).title == "a"
    assert (await articles[1]).title == "b"
    assert titles(await articles[1:3]) == ["b", "c"]


async def test_await_of_an_index_or_slice(database) -> None:
    await seed()
    articles = Article.vinyl.order_by("title")
    assert (await articles[2]).title == "c"
    assert titles(await articles[1:3]) == ["b", "c"]
    assert titles(await articles[::2]) == ["a", "c"]
    part = articles[1:3]
    assert isinstance(part, QuerySet)
    assert titles(await part) == ["b", "c"]
    with pytest.raises(IndexError):
        await articles[99]
    with pytest.raises(ValueError, match="Negative"):
        await articles[-1]
    with pytest.raises(TypeError):
        await articles["a"]


async def test_async_names_are_native(database) -> None:
    s = await seed()
    articles = Article.vinyl.order_by("title")
    assert (await articles.aget(title="b")).pk == s.b.pk
    assert (await articles.afirst()).title == "a"
    assert (await articles.alast()).title == "d"
    assert (await articles.aearliest("words")).title == "d"
    assert (await articles.alatest("words")).title == "c"
    assert await articles.acount() == 4
    assert await articles.aexists()
    assert await articles.acontains(s.c)
    assert await articles.aaggregate(n=Count("pk")) == {"n": 4}
    assert (await Topic.vinyl.acreate(name="q")).pk
    assert (await Topic.vinyl.aget_or_create(name="q"))[1] is False
    assert (await Topic.vinyl.aupdate_or_create(name="q"))[1] is False
    made = await Topic.vinyl.abulk_create([Topic(name="x")])
    assert await Topic.vinyl.abulk_update(made, ["name"]) == 1
    assert await Topic.vinyl.filter(name="x").aupdate(name="xx") == 1
    assert (await Topic.vinyl.filter(name="xx").adelete())[0] == 1
    assert len(await articles.ain_bulk()) == 4
    assert await articles.aexplain()
    assert [each.title async for each in articles.aiterator()] == ["a", "b", "c", "d"]
    missing = [
        name
        for name in dir(QuerySet)
        if inspect.iscoroutinefunction(getattr(QuerySet, name))
        and getattr(QuerySet, name) is getattr(type(articles), name)
    ]
    assert missing == []


async def test_async_for(database) -> None:
    await seed()
    articles = Article.vinyl.order_by("title")
    assert [each.title async for each in articles] == ["a", "b", "c", "d"]
    assert len(articles) == 4
    again = [each async for each in articles]
    assert again[0] is articles[0]


@pytest.mark.parametrize("size", [1, 3, 4, 100, None])
async def test_iterator_streams(database, size) -> None:
    await seed()
    found = [each.title async for each in Article.vinyl.order_by("title").iterator(size)]
    assert found == ["a", "b", "c", "d"]


async def test_iterator_left_early_prefetches_and_refuses_for(database) -> None:
    await seed()
    async for each in Article.vinyl.order_by("title").iterator(chunk_size=1):
        assert each.title == "a"
        break
    rows = Article.vinyl.order_by("title").prefetch_related("topics").iterator(chunk_size=2)
    found = {each.title: [topic.name for topic in each.topics.all()] async for each in rows}
    assert found == {"a": ["art", "law"], "b": ["art"], "c": [], "d": []}
    rows = Article.vinyl.order_by("title").aiterator(chunk_size=1)
    assert (await anext(rows)).title == "a"
    await rows.aclose()
    stream = Article.vinyl.iterator()
    with pytest.raises(NotFetched, match="async for"):
        iter(stream)
    with pytest.raises(ValueError, match="chunk_size"):
        Article.vinyl.prefetch_related("topics").iterator()
    with pytest.raises(ValueError, match="positive"):
        Article.vinyl.aiterator(chunk_size=0)


async def test_chaining_is_plain_django(database) -> None:
    s = await seed()
    q = Article.vinyl
    assert titles(await q.filter(words__gt=100).exclude(title="c").order_by("-title")) == ["b", "a"]
    assert await q.values("title").order_by("title").first() == {"title": "a"}
    assert await q.values_list("title", flat=True).order_by("title") == ["a", "b", "c", "d"]
    assert [row.title for row in await q.values_list("title", named=True)[:1]] == ["a"]
    annotated = await q.annotate(n=Count("topics")).order_by("-n")
    assert annotated[0].n == 2
    both = q.filter(title="a") | q.filter(title="b")
    assert await both.count() == 2
    assert await (q.filter(words__gt=100) & q.filter(words__lt=1000)).count() == 1
    assert await (q.filter(words__gt=100) ^ q.filter(words__gt=1000)).count() == 1
    assert await (q.order_by("title")[:1] | q.filter(title="b")).count() == 2
    one, other = (q.filter(title=each).order_by() for each in "ad")
    assert titles(await one.union(other).order_by("title")) == ["a", "d"]
    assert await q.none() == []
    assert (await q.select_related("author").get(pk=s.a.pk)).author.name == "Ann"
    [one] = await q.prefetch_related("topics").filter(pk=s.a.pk)
    assert [topic.name for topic in one.topics.all()] == ["art", "law"]
    only = await q.only("title").get(pk=s.a.pk)
    assert only.get_deferred_fields() >= {"words"}
    assert await q.defer("words").using(database.alias).count() == 4
    assert await q.using("default").count() == 4
    assert await q.filter(author__in=Writer.vinyl.filter(name="Ann")).count() == 3
    assert await q.using("default").filter(author__in=Writer.vinyl.using("default")).count() == 4
    assert await q.filter(author__in=await Writer.vinyl.filter(name="Bob")).count() == 1
    assert await q.filter(author=s.ann).count() == 3
    assert await q.select_for_update().none() == []
    prefetch = Prefetch("articles", Article.vinyl.filter(words__gt=1000), to_attr="long")
    [ann] = await Writer.vinyl.prefetch_related(prefetch).filter(name="Ann")
    assert titles(ann.long) == ["b", "c"]


def use_iter(q):
    return list(q)


def use_for(q):
    for _ in q:
        pass


def use_len(q):
    return len(q)


def use_bool(q):
    return bool(q)


def use_in(q):
    return 1 in q


def use_index(q):
    return q[0]


def use_step(q):
    return q[::2]


def use_pickle(q):
    return pickle.dumps(q)


def use_copy(q):
    return copy.copy(q)


USES = [
    use_iter,
    use_for,
    use_len,
    use_bool,
    use_in,
    use_index,
    use_step,
    use_pickle,
    use_copy,
]


@pytest.mark.parametrize("use", USES)
async def test_unfetched_raises_and_names_the_cure(database, use) -> None:
    with pytest.raises(NotFetched, match=r"await.*vinyl\.run") as caught:
        use(Article.vinyl.all())
    assert isinstance(caught.value, SynchronousOnlyOperation)
    assert await vinyl.run(lambda: "unharmed") == "unharmed"


@pytest.mark.parametrize("use", USES)
def test_unfetched_raises_in_plain_sync_code(database, use) -> None:
    with pytest.raises(NotFetched):
        use(Article.vinyl.all())


async def test_unfetched_raises_directly_in_a_coroutine(database) -> None:
    queryset = Article.vinyl.all()
    with pytest.raises(NotFetched):
        queryset[0]
    with pytest.raises(NotFetched):
        assert not queryset
    with pytest.raises(NotFetched):
        [each for each in queryset]  # noqa: C416
    with pytest.raises(NotFetched):
        print(*queryset)
    with pytest.raises(NotFetched):
        next(iter(queryset))


async def test_repr_never_fetches_never_raises(database) -> None:
    await seed()
    queryset = Article.vinyl.order_by("title")
    assert "press.Article" in repr(queryset)
    assert "press.Article" in str(queryset)
    assert queryset._result_cache is None
    assert repr(Article.vinyl.raw("SELECT 1"))
    assert repr(Article.vinyl)
    await queryset
    assert "Article object" in repr(queryset)
    related = (await Writer.vinyl.get(name="Ann")).articles.all()
    assert repr(related)
    assert related._result_cache is None


async def test_raw(database) -> None:
    await seed()
    sql = "SELECT id, title FROM press_article WHERE words > %s ORDER BY title"
    raw = Article.vinyl.raw(sql, [100])
    with pytest.raises(NotFetched):
        list(raw)
    with pytest.raises(NotFetched):
        len(raw)
    with pytest.raises(NotFetched):
        raw[0]
    found = await raw
    assert titles(found) == ["a", "b", "c"]
    assert titles(raw) == ["a", "b", "c"]
    assert len(raw) == 3
    assert raw[0].title == "a"
    assert (await Article.vinyl.raw(sql, [100])[1]).title == "b"
    assert [each.title async for each in Article.vinyl.raw(sql, [100])] == ["a", "b", "c"]
    with_topics = await Article.vinyl.raw(sql, [100]).prefetch_related("topics")
    assert len(with_topics[0].topics.all()) == 2
    assert titles(await Article.vinyl.raw(sql, [1000]).using("default")) == ["b", "c"]
    assert found[0]._state.db == database.alias
    assert await found[0].words == 500


async def test_custom_querysets(database) -> None:
    s = await seed()
    assert titles(await Article.awaited.long()) == ["b", "c"]
    assert titles(await Article.awaited.filter(author=s.ann).long()) == ["b", "c"]
    assert await Article.awaited.count_long() == 2
    assert await Article.awaited.order_by("title").titles() == ["a", "b", "c", "d"]
    got = await Article.awaited.get(title="a")
    assert got.seen is True
    assert (await Article.awaited.aget(title="a")).seen is True
    assert await Article.awaited.filter(title="a").update(words=1) == 1
    made = await Notice.plain.create(title="hello")
    assert made.title == "HELLO"
    assert await Notice.plain.count() == 1
    assert type(Notice.plain.all()).__name__ == "AwaitedQuerySet"
    assert isinstance(Notice.plain, vinyl.VinylManager)


async def test_methods_of_a_plain_queryset_that_fetch(database) -> None:
    await seed()
    manager = vinyl.VinylManager.from_queryset(PlainQuerySet)()
    manager.model = Article
    assert await manager.all().longest() == "c"
    assert await manager.filter(title="z").longest() == "none"
    assert await manager.all().first_title() == "a"
    assert (await manager.filter(title="d").really_delete())[0] == 1
    assert await manager.all().lengthen() == 3


async def test_a_fetched_one_tells_sync_code_how_many(database) -> None:
    await seed()
    queryset = Article.vinyl.order_by("title")
    await queryset
    pages = Paginator(queryset, 3)
    assert (pages.count, pages.num_pages, titles(pages.page(2))) == (4, 2, ["d"])
    template = Engine().from_string(
        "{{ all.count }} {% if all.exists %}{{ all.exists }}{% endif %}"
    )
    assert template.render(Context({"all": queryset})) == "4 True"

    def helper(what):
        return what.count(), what.contains(queryset[0])

    count, contains = helper(queryset)
    assert (count, contains, await count, await contains) == (4, True, 4, True)
    for unfetched in (queryset.filter(title="a"), Article.vinyl.order_by("title")):
        with pytest.raises(NotFetched, match=r"write 'await'.*vinyl\.run\(\)") as caught:
            Paginator(unfetched, 3).page(1)
        assert await caught.value.operation == len(await unfetched)


async def test_from_queryset_of_a_plain_one(database) -> None:
    await seed()
    made = vinyl.VinylManager.from_queryset(PlainQuerySet)
    manager = made()
    manager.model = Article
    assert titles(await manager.long()) == ["b", "c"]
    assert await manager.count() == 4
    queryset = manager.long()
    assert isinstance(queryset, PlainQuerySet)
    await queryset
    again = pickle.loads(pickle.dumps(queryset))
    assert titles(again) == ["b", "c"]
    assert type(again) is type(queryset)


async def test_pickle_copy_deepcopy_of_querysets(database) -> None:
    await seed()
    queryset = Article.vinyl.order_by("title")
    with pytest.raises(NotFetched):
        pickle.dumps(queryset)
    await queryset
    for again in (pickle.loads(pickle.dumps(queryset)), copy.copy(queryset)):
        assert titles(again) == ["a", "b", "c", "d"]
        assert again.filter(title="a").count is not None
        assert titles(await again.filter(title="a")) == ["a"]
    fresh = copy.deepcopy(queryset)
    assert fresh._result_cache is None
    assert len(await fresh) == 4
    query = Article.vinyl.all()
    query.query = pickle.loads(pickle.dumps(queryset.query))
    assert titles(await query) == ["a", "b", "c", "d"]


async def test_manager_of_abstract_proxy_and_child(database) -> None:
    with pytest.raises(AttributeError):
        Stamped.vinyl
    made = await LoudNotice.plain.create(title="x")
    assert type(made) is LoudNotice
    assert LoudNotice.vinyl.model is LoudNotice
    assert [type(each) for each in await LoudNotice.vinyl.all()] == [LoudNotice]
    assert LoudNotice.vinyl is LoudNotice.vinyl
    assert Notice.vinyl.model is Notice


async def test_inside_a_fiber_it_is_plain_django(database) -> None:
    await seed()

    def plain() -> None:
        queryset = Article.vinyl.order_by("title")
        assert titles(queryset) == ["a", "b", "c", "d"]
        assert Article.vinyl.count() == 4
        assert Article.vinyl.get(title="a").author.name == "Ann"
        assert queryset[0].title == "a"
        assert Article.vinyl.order_by("title")[1].title == "b"
        assert bool(Article.vinyl.all())
        assert Article.awaited.count_long() == 2
        assert Article.awaited.get(title="a").seen is True
        assert titles(Article.vinyl.order_by("title").iterator()) == ["a", "b", "c", "d"]
        assert len(Article.vinyl.raw("SELECT id FROM press_article")) == 4
        assert pickle.loads(pickle.dumps(Article.vinyl.all())).count() == 4
        made = Topic.vinyl.create(name="made in a fiber")
        made.name = "changed"
        made.save()
        made.delete()

    await vinyl.run(plain)


async def test_multi_use_and_reuse(database) -> None:
    """The same queryset awaited twice fetches once; two operations of one are two fetches."""
    s = await seed()
    queryset = Article.vinyl.order_by("title")
    first = await queryset
    await Article.vinyl.filter(pk=s.a.pk).update(title="z")
    second = await queryset
    assert [each is other for each, other in zip(first, second, strict=True)] == [True] * 4
    assert (await queryset.get(pk=s.a.pk)).title == "z"


async def test_errors_of_django_come_through(database) -> None:
    s = await seed()
    with pytest.raises(Article.DoesNotExist):
        await Article.vinyl.get(title="none")
    with pytest.raises(Article.MultipleObjectsReturned):
        await Article.vinyl.get()
    with pytest.raises(TypeError):
        await Article.vinyl.all()[:2].delete()
    from django.core.exceptions import FieldError
    from django.db import IntegrityError

    with pytest.raises(FieldError):
        await Article.vinyl.get(nothing=1)
    with pytest.raises(IntegrityError):
        await Article.vinyl.create(title="a", author=s.ann)
    assert await Article.vinyl.count() == 4
