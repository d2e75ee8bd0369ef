"""Contract, section 3: nothing is ever lost silently."""

from __future__ import annotations

import gc
import warnings

import pytest
from django.forms import modelform_factory
from django.template import Context, Engine
from press.models import Article, Kiosk, Place, Remark, Writer
from press.seed import seed

import vinyl
from vinyl import NotFetched


async def test_sync_helpers_that_save_raise(database) -> None:
    s = await seed()
    ann = await Writer.vinyl.get(name="Ann")
    with pytest.raises(NotFetched, match=r"vinyl\.run"):
        ann.rename("lost")
    with pytest.raises(NotFetched, match=r"vinyl\.run"):
        ann.has_articles()

    def helper() -> None:
        s.a.save()

    with pytest.raises(NotFetched, match=r"vinyl\.run"):
        helper()

    def delete() -> None:
        s.a.delete()

    with pytest.raises(NotFetched, match=r"vinyl\.run"):
        delete()

    def add() -> None:
        s.a.topics.add(s.law)

    with pytest.raises(NotFetched, match=r"vinyl\.run"):
        add()

    def check() -> str:
        return "yes" if ann.articles.filter(title="a").exists() else "no"

    with pytest.raises(NotFetched, match=r"vinyl\.run"):
        check()

    def count() -> int:
        return ann.articles.count()

    with pytest.raises(NotFetched, match=r"vinyl\.run"):
        count()

    def new() -> None:
        Writer(name="new").save()

    with pytest.raises(NotFetched, match=r"vinyl\.run"):
        new()
    assert await Writer.vinyl.count() == 2
    assert (await Writer.vinyl.get(pk=ann.pk)).name == "Ann"
    await vinyl.run(ann.rename, "kept")
    assert await vinyl.run(ann.has_articles) is True
    await ann.arename("kept again")
    assert (await Writer.vinyl.get(pk=ann.pk)).name == "kept again"


async def test_forms_in_a_coroutine_raise_and_run_in_a_fiber(database) -> None:
    await seed()
    form = modelform_factory(Writer, fields=["name"])
    with pytest.raises(NotFetched, match=r"vinyl\.run"):
        form({"name": "Ann"}).is_valid()
    bound = form({"name": "Ann"})
    assert await vinyl.run(bound.is_valid) is False
    article = modelform_factory(Article, fields=["title", "author", "topics"])
    ann = await Writer.vinyl.get(name="Ann")
    bound = article({"title": "formed", "author": ann.pk, "topics": []})
    assert await vinyl.run(bound.is_valid) is True
    made = await vinyl.run(bound.save)
    assert (await made.author) == ann
    page = await vinyl.run(lambda: article(instance=made).as_p())
    assert "formed" in page


async def test_templates_name_the_relation_that_is_not_fetched(database) -> None:
    s = await seed()
    remark = await vinyl.run(Remark.objects.using(database.alias).create, text="t", subject=s.a)
    remark = await Remark.vinyl.get(pk=remark.pk)
    kiosk = await Kiosk.vinyl.create(name="k")
    place = await Place.vinyl.get(pk=kiosk.pk)
    for value, path, label in (
        (s.a, "reviewer.name", None),  # null: nothing to fetch
        (await Article.vinyl.get(pk=s.a.pk), "author.name", "Article.author"),
        (place, "kiosk.name", "Place.kiosk"),
        (remark, "subject.title", "Remark.subject"),
    ):
        template = Engine().from_string("{{ it." + path + " }}")
        if label is None:
            template.render(Context({"it": value}))
            continue
        with pytest.raises(NotFetched, match=f"^{label} is not fetched yet.*vinyl.run"):
            template.render(Context({"it": value}))


async def test_templates(database) -> None:
    s = await seed()
    template = Engine().from_string(
        "{{ a.author.name }}{% for t in a.topics.all %} {{ t.name }}{% endfor %}"
    )
    article = await Article.vinyl.get(pk=s.a.pk)
    with pytest.raises(NotFetched, match=r"Article\.author is not fetched yet"):
        template.render(Context({"a": article}))
    fetched = await Article.vinyl.select_related("author").prefetch_related("topics").get(pk=s.a.pk)
    assert template.render(Context({"a": fetched})) == "Ann art law"
    assert await vinyl.run(template.render, Context({"a": article})) == "Ann art law"
    loop = Engine().from_string("{% for a in articles %}{{ a.title }}{% endfor %}")
    articles = Article.vinyl.order_by("title")
    with pytest.raises(NotFetched):
        loop.render(Context({"articles": articles}))
    await articles
    assert loop.render(Context({"articles": articles})) == "abcd"


async def test_lambdas_and_comprehensions_are_the_coroutines(database) -> None:
    s = await seed()
    articles = await Article.vinyl.order_by("title")
    for each in articles:
        each.words += 1
    await vinyl.gather(*[each.save() for each in articles])
    await vinyl.gather(*(each.save() for each in articles))
    start = lambda: s.a.refresh_from_db()  # noqa: E731
    await start()
    assert s.a.words == 501
    names = [(await each.author).name for each in await Article.vinyl.order_by("title")]
    assert names == ["Ann", "Ann", "Ann", "Bob"]
    assert {each.title: await each.topics.count() for each in articles} == {
        "a": 2,
        "b": 1,
        "c": 0,
        "d": 0,
    }


async def test_unawaited_operations(database) -> None:
    s = await seed()
    operation = s.a.save()
    for use in (
        bool,
        list,
        lambda x: x == 1,
        lambda x: x.pk,
        len,
        lambda x: x[0],
        lambda x: 1 in x,
    ):
        with pytest.raises(NotFetched):
            use(operation)
    await operation
    exists = Article.vinyl.filter(title="a").exists()
    with pytest.raises(NotFetched):
        assert not exists
    assert await exists


async def test_dropping_an_operation_warns(database) -> None:
    s = await seed()

    async def save() -> None:
        s.a.save()

    async def delete() -> None:
        Article.vinyl.filter(title="a").delete()

    async def clear() -> None:
        s.a.topics.clear()

    for drops, name in ((save, "save"), (delete, "delete"), (clear, "clear")):
        with pytest.warns(RuntimeWarning, match=rf"\.{name}'.* never awaited"):
            await drops()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Article.vinyl.filter(title="a")
        s.a.topics.all()
        gc.collect()
    assert await Article.vinyl.count() == 4


async def test_other_sync_code_is_untouched(database) -> None:
    """What needs no I/O works anywhere."""
    s = await seed()

    def plain() -> None:
        assert str(s.ann) == "Ann"
        assert s.a.author is s.ann
        assert s.a.author_id == s.ann.pk
        assert Article(title="x", author=s.ann).author.name == "Ann"
        assert s.b.reviewer is None
        s.b.reviewer = s.bob
        assert s.b.reviewer_id == s.bob.pk

    plain()


async def test_a_lambda_is_the_coroutines_whoever_calls_it(database) -> None:
    def call(function):
        return function()

    author = await Writer.vinyl.create(name="A")
    await call(lambda: author.save())
    assert [await each for each in call(lambda: [author.save() for _ in range(2)])] == [None, None]

    def helper():
        return call(lambda: author.save())  # this lambda is sync code's

    with pytest.raises(NotFetched, match=r"vinyl\.run"):
        helper()


async def test_an_operation_is_not_text(database) -> None:
    operation = Writer.vinyl.count()
    for use in (str, format, lambda op: f"{op} writers"):
        with pytest.raises(NotFetched, match="turned into text"):
            use(operation)
    assert "not awaited" in repr(operation)
    assert await operation == 0
