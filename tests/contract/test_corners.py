"""Corners of contract sections 2 and 3: other apps' models, subqueries, what is not yet loaded."""

from __future__ import annotations

import pickle

import pytest
from django.contrib.auth.models import Group, User
from django.contrib.contenttypes.models import ContentType
from django.core.paginator import Paginator
from django.db import models
from django.db.models import Exists, OuterRef, Subquery
from django.http import Http404
from django.shortcuts import aget_object_or_404, get_object_or_404
from django.template import Context, Engine
from press.models import Article, Kiosk, Place, Remark, Topic, Writer
from press.seed import seed

import vinyl
from vinyl import NotFetched


async def test_auth(database):
    u = await User.vinyl.create(username="u")
    u.set_password("x")
    await u.save()
    g = Group(name="g")
    await g.save()
    await u.groups.add(g)
    assert await u.groups.filter(name="g").exists()
    assert [x.name for x in await u.groups.all()] == ["g"]
    with pytest.raises(NotFetched):
        u.has_perm("x.y")
    assert await vinyl.run(u.has_perm, "x.y") is False
    u2 = await vinyl.run(User.objects.create_user, "v", "v@x.org", "pw")
    assert await vinyl.run(u2.check_password, "pw")


async def test_paginator(database):
    await seed()
    qs = Article.vinyl.order_by("title")
    await qs
    p = Paginator(list(qs), 2)
    assert [a.title for a in p.page(2)] == ["c", "d"]
    p = await vinyl.run(lambda: list(Paginator(Article.vinyl.order_by("title"), 2).page(1)))
    assert len(p) == 2


async def test_using_subquery_in_fiber(database):
    await seed()

    def f():
        writers = Writer.objects.using("default").filter(name="Ann")
        return list(Article.objects.using("default").filter(author__in=writers))

    assert len(await vinyl.run(f)) == 3


async def test_vinyl_subquery_from_plain(database):
    await seed()

    def f():
        return list(Article.objects.filter(author__in=Writer.vinyl.filter(name="Ann")))

    assert len(await vinyl.run(f)) == 3


async def test_vinyl_with_plain_using_subquery(database):
    await seed()
    writers = Writer.objects.using("default").filter(name="Ann")
    assert len(await Article.vinyl.filter(author__in=writers)) == 3


async def test_prefetched_vinyl_qs(database):
    s = await seed()
    prefetch = models.Prefetch("topics", Topic.vinyl.all())
    [a] = await Article.vinyl.filter(pk=s.a.pk).prefetch_related(prefetch)
    assert [t.name for t in a.topics.all()] == ["art", "law"]
    assert await a.topics.filter(name="art").count() == 1

    def f():
        return [t.name for t in a.topics.filter(name="art")], a.topics.count()

    assert await vinyl.run(f) == (["art"], 2)


async def test_only_relation(database):
    s = await seed()
    a = await Article.vinyl.only("title").get(pk=s.a.pk)
    assert (await a.author).name == "Ann"
    a = await Article.vinyl.defer("author").get(pk=s.a.pk)
    with pytest.raises(NotFetched):
        a.author.name
    with pytest.raises(NotFetched):
        a.author_id
    assert await a.author_id == s.ann.pk
    a = await Article.vinyl.defer("reviewer").get(pk=s.b.pk)
    assert await a.reviewer is None


async def test_new_with_pk_relations(database):
    s = await seed()
    w = Writer(pk=s.ann.pk)
    assert await w.articles.count() == 3
    a = Article(pk=s.a.pk)
    assert await a.topics.count() == 2


async def test_mti(database):
    k = await Kiosk.vinyl.create(name="k", owner=await Writer.vinyl.create(name="o"))
    k = await Kiosk.vinyl.only("name").get(pk=k.pk)
    assert await k.city == ""
    p = await k.place_ptr
    assert p.name == "k"
    p = await Place.vinyl.get()
    with pytest.raises(NotFetched):
        p.kiosk.owner
    kk = await p.kiosk
    assert (await kk.owner).name == "o"


async def test_signals_m2m(database):
    s = await seed()
    seen = []

    def receive(sender, action, **kwargs):
        seen.append((action, Topic.objects.count()))

    models.signals.m2m_changed.connect(receive, sender=Article.topics.through)
    try:
        await s.c.topics.add(s.art)
    finally:
        models.signals.m2m_changed.disconnect(receive, sender=Article.topics.through)
    assert seen == [("pre_add", 2), ("post_add", 2)]


async def test_awaited_twice(database):
    op = Topic.vinyl.count()
    await op
    with pytest.raises(RuntimeError):
        await op


async def test_pickled_pending_state(database):
    s = await seed()
    ContentType.objects.clear_cache()
    r = Remark(text="t", subject=s.a)
    r2 = pickle.loads(pickle.dumps(r))
    await r2.save()
    assert (await (await Remark.vinyl.get()).subject) == s.a
    ContentType.objects.clear_cache()
    await Remark.vinyl.bulk_create([Remark(text="b", subject=s.b)])
    assert (await (await Remark.vinyl.get(text="b")).subject) == s.b
    ContentType.objects.clear_cache()
    r = Remark(text="f", subject=s.ann)
    await r.full_clean()
    await vinyl.run(r.save)
    assert await Remark.vinyl.filter(text="f").count() == 1
    ContentType.objects.clear_cache()
    r = Remark(text="g", subject=s.ann)
    with pytest.raises(NotFetched):
        r.content_type_id
    assert await r.content_type_id


async def test_operations_from_expressions(database):
    await seed()
    arts = await Article.vinyl.order_by("title")
    got = await vinyl.gather(*(a.author for a in arts))
    assert [w.name for w in got] == ["Ann", "Ann", "Ann", "Bob"]
    await vinyl.gather(*(a.save() for a in arts))


async def test_class_checks(database):
    s = await seed()
    assert isinstance(Article.vinyl, models.Manager)
    assert isinstance(Article.vinyl.all(), models.QuerySet)
    assert bool(await Article.vinyl.all())
    assert Article.vinyl.filter(pk=1).query is not None
    assert str(Article.vinyl.filter(pk=1).query).startswith("SELECT")
    assert Article.vinyl.order_by("pk").ordered
    qs = Article.vinyl.all()
    assert qs.model is Article
    assert (await qs.values("title").distinct().order_by("title"))[0] == {"title": "a"}
    assert await qs.values_list("pk", flat=True).filter(title="a") == [s.a.pk]
    first = Article.vinyl.filter(author=OuterRef("pk")).values("title")[:1]
    r = await Writer.vinyl.annotate(t=Subquery(first)).order_by("name")
    assert [x.t for x in r] == ["a", "d"]
    r = await Writer.vinyl.filter(Exists(Article.vinyl.filter(author=OuterRef("pk"), title="d")))
    assert [x.name for x in r] == ["Bob"]


async def test_template_ops(database):
    await seed()
    w = (await Writer.vinyl.prefetch_related("articles").order_by("name"))[0]
    source = (
        "{{ w.articles.count }} {{ w.articles.all.0.title }} {% if w.articles.all %}y{% endif %}"
    )
    assert Engine().from_string(source).render(Context({"w": w})) == "3 a y"


async def test_get_object_or_404(database):
    s = await seed()
    assert (await vinyl.run(get_object_or_404, Article, title="a")).pk == s.a.pk
    long = Article.vinyl.filter(words__gt=1)
    assert (await vinyl.run(get_object_or_404, long, title="a")).pk == s.a.pk
    with pytest.raises(Http404):
        await vinyl.run(get_object_or_404, Article, title="zzz")
    assert (await aget_object_or_404(Article.vinyl.all(), title="a")).pk == s.a.pk


async def test_ordering_of_save_kwargs(database):
    w = Writer(name="x")
    await w.save(using=database.alias)
    await w.save(using="default")
    w.bio = "b"
    await w.save(update_fields=["bio"], using="default")
    await w.refresh_from_db(fields=["bio"])
    await w.delete(using="default")


async def test_db_state_alias_in_fiber(database):
    await seed()
    ob = await vinyl.run(Article.objects.first)
    assert ob._state.db == database.alias
    ob2 = await Article.vinyl.first()
    assert ob == ob2
    await ob.save()
