"""Contract, section 3: instances and their methods."""

from __future__ import annotations

import copy
import pickle

import pytest
from django.core import serializers
from django.core.exceptions import ValidationError
from django.db import DatabaseError, IntegrityError, models
from django.db.models import ProtectedError, signals
from django.forms import modelform_factory
from django.forms.models import model_to_dict
from press.models import Article, Badge, Kiosk, Locked, LoudNotice, Notice, Tagging, Topic, Writer
from press.seed import seed

import vinyl
from vinyl import NotFetched


async def test_save_delete_refresh(database) -> None:
    writer = Writer(name="Ann")
    assert await writer.save() is None
    assert writer.pk is not None
    assert writer._state.db == database.alias
    assert writer._state.adding is False
    writer.name = "Anna"
    await writer.save(update_fields=["name"])
    other = await Writer.vinyl.get()
    assert other.name == "Anna"
    other.name = "Zoe"
    await other.save(force_update=True)
    assert await writer.refresh_from_db() is None
    assert writer.name == "Zoe"
    assert await writer.delete() == (1, {"press.Writer": 1})
    assert writer.pk is None
    with pytest.raises(Writer.DoesNotExist):
        await other.refresh_from_db()
    with pytest.raises(Writer.NotUpdated if hasattr(Writer, "NotUpdated") else Exception):
        await other.save(force_update=True)


async def test_async_names(database) -> None:
    writer = Writer(name="Ann")
    await writer.asave()
    writer.name = "lost"
    await writer.arefresh_from_db(fields=["name"])
    assert writer.name == "Ann"
    assert (await writer.adelete())[0] == 1
    notice = Notice(title="x")
    await notice.asave()
    assert notice.title == "X"
    assert notice.saves == 1


async def test_create_and_new_instances(database) -> None:
    ann = await Writer.vinyl.create(name="Ann")
    article = Article(title="x", author=ann)
    await article.save()
    assert (article.author_id, article.saves) == (ann.pk, 1)
    assert await Article.vinyl.filter(author__name="Ann").count() == 1
    with pytest.raises(ValueError, match="unsaved related object"):
        await Article(title="y", author=Writer(name="new")).save()
    with pytest.raises(ValueError, match="can't be deleted"):
        await Writer(name="z").delete()


async def test_overrides_mixins_and_signals_run_once(database) -> None:
    calls = []

    def before(sender, instance, **kwargs):
        calls.append(("pre", instance.saves))

    def after(sender, instance, created, **kwargs):
        # plain sync Django, in the fiber
        calls.append(("post", created, sender.objects.filter(pk=instance.pk).count()))

    signals.pre_save.connect(before, sender=Notice)
    signals.post_save.connect(after, sender=Notice)
    try:
        notice = Notice(title="hello")
        assert await notice.save() == "saved"
    finally:
        signals.pre_save.disconnect(before, sender=Notice)
        signals.post_save.disconnect(after, sender=Notice)
    assert calls == [("pre", 1), ("post", True, 1)]
    assert (notice.title, notice.saves) == ("HELLO", 1)
    proxy = LoudNotice(title="proxy")
    assert await proxy.save() == "saved"
    assert (proxy.title, proxy.saves) == ("PROXY", 1)


async def test_multi_table_inheritance(database) -> None:
    kiosk = Kiosk(name="K", city="Bern")
    await kiosk.save()
    again = await Kiosk.vinyl.get(name="K")
    again.city = "Basel"
    await again.save()
    place = await Kiosk.place_ptr.get_queryset(instance=again).model.vinyl.get(pk=kiosk.pk)
    assert place.city == "Basel"
    assert again.place_ptr.city == "Basel"
    assert (await again.place_ptr).pk == kiosk.pk
    assert (await place.kiosk).pk == kiosk.pk
    assert (await again.delete())[0] == 2


async def test_cascades_and_on_delete(database) -> None:
    s = await seed()
    locked = await Locked.vinyl.create(owner=s.bob)
    with pytest.raises(ProtectedError):
        await s.bob.delete()
    await locked.delete()
    _, by_model = await s.bob.delete()
    assert by_model["press.Writer"] == 1
    assert by_model["press.Article"] == 1
    await s.a.refresh_from_db()
    assert s.a.reviewer_id is None
    assert await s.a.reviewer is None


async def test_validation(database) -> None:
    s = await seed()
    article = Article(title="a", author=s.ann)
    with pytest.raises(ValidationError) as caught:
        await article.full_clean()
    assert "already exists" in str(caught.value)
    assert article._state.db in (None, database.alias)
    article.title = "new"
    assert await article.full_clean() is None
    await article.validate_unique()
    with pytest.raises(ValidationError):
        await Badge(number=7).validate_unique()
    with pytest.raises(ValidationError, match="name"):
        await Writer(name="Ann").full_clean()
    notice = Notice(title="x")
    await notice.full_clean()
    assert notice.cleaned is True


async def test_errors_and_state_after_them(database) -> None:
    await seed()
    badge = Badge(number=7)
    with pytest.raises(IntegrityError) as caught:
        await badge.save()
    assert caught.value.__cause__ is not None
    assert badge.pk is None
    assert badge._state.adding
    badge.number = 8
    await badge.save()
    assert await Badge.vinyl.count() == 2


async def test_what_was_not_saved_belongs_to_no_database(engine) -> None:
    """As in Django, whatever else is done with it, and as its signals see it."""
    heard = []

    def hear(instance, **kwargs):
        heard.append(instance._state.db)

    writer = Writer(pk=1, name="Ann")
    writer._state.adding = False
    signals.pre_save.connect(hear, sender=Writer)
    try:
        for _ in range(3):
            with pytest.raises(DatabaseError, match="did not affect any rows"):
                await writer.save(force_update=True)
            await writer.save(update_fields=[])
            await writer.validate_unique()
            assert writer._state.db is None
            assert await writer.delete() == (0, {})
            assert writer._state.db is None
            writer.pk = 1
        await writer.save()
    finally:
        signals.pre_save.disconnect(hear, sender=Writer)
    assert heard == [None] * 4
    assert writer._state.db == engine.alias


async def test_deferred_fields(database) -> None:
    s = await seed()
    article = await Article.vinyl.only("title").get(pk=s.a.pk)
    with pytest.raises(NotFetched, match=r"Article\.words.*await"):
        article.words
    assert "words" in article.get_deferred_fields()
    assert await article.words == 500
    assert article.words == 500
    assert article.title == "a"
    # a deferred foreign key
    assert (await article.author).name == "Ann"
    assert article.author_id == s.ann.pk


async def test_pickle_copy_compare_hash_serialize(database) -> None:
    s = await seed()
    article = await Article.vinyl.select_related("author").get(pk=s.a.pk)
    assert type(article) is Article
    again = pickle.loads(pickle.dumps(article))
    assert type(again) is Article
    assert again == article
    assert hash(again) == hash(article)
    assert again.author.name == "Ann"
    assert again._state.db == database.alias
    again.title = "pickled"
    await again.save()
    await article.refresh_from_db()
    assert article.title == "pickled"
    assert copy.copy(article) == article
    assert copy.deepcopy(again).author.name == "Ann"
    assert len({article, again}) == 1
    [row] = serializers.serialize("python", [s.ann])
    assert row["fields"]["name"] == "Ann"
    text = await vinyl.run(serializers.serialize, "json", [article])
    [back] = serializers.deserialize("json", text, using=database.alias)
    assert back.object == article
    await vinyl.run(back.save)
    assert model_to_dict(article, fields=["title", "author"]) == {
        "title": "pickled",
        "author": s.ann.pk,
    }


async def test_plain_use_in_a_fiber(database) -> None:
    s = await seed()

    def plain(article: Article) -> int:
        article.title = "fiber"
        article.save()
        article.refresh_from_db()
        assert article.reviewer.name == "Bob"
        assert article.author.articles.count() == 3
        assert [topic.name for topic in article.topics.all()] == ["art", "law"]
        assert article.author.badge.bearer == article.author
        Writer(name="New").save()
        form = modelform_factory(Writer, fields=["name"])({"name": "New"})
        assert not form.is_valid()
        form = modelform_factory(Writer, fields=["name"])({"name": "Newer"})
        assert form.is_valid()
        return form.save().pk

    pk = await vinyl.run(plain, await Article.vinyl.get(pk=s.a.pk))
    assert (await Writer.vinyl.get(pk=pk)).name == "Newer"


def test_plain_sync_code_uses_vinyl_instances(database, mode) -> None:
    """An instance that a coroutine fetched is plain Django in plain sync code."""
    from fix_mode import run_in_mode

    kept = []

    async def fetch() -> None:
        await seed()
        kept.append(await Article.vinyl.get(title="a"))

    run_in_mode(mode, fetch)
    [article] = kept
    article.title = "sync"
    article.save()
    assert article.author.name == "Ann"
    assert article.author.articles.count() == 3
    assert [topic.name for topic in article.topics.all()] == ["art", "law"]
    article.refresh_from_db()
    assert article.title == "sync"
    assert Article.objects.get(pk=article.pk).title == "sync"
    article.author.delete()


async def test_alias_and_twin_are_one(database) -> None:
    """Instances of the plain alias count as of the vinyl alias in coroutines and fibers."""
    s = await seed()
    plain = await vinyl.run(lambda: Article.objects.using("default").get(pk=s.a.pk))
    plain.title = "changed"
    await plain.save()
    assert (await plain.author).name == "Ann"
    assert await plain.topics.count() == 2
    await s.a.refresh_from_db()
    assert s.a.title == "changed"
    ann = await vinyl.run(lambda: Writer.objects.using("default").get(pk=s.ann.pk))
    ann._state.db = "default"
    article = Article(title="mixed", author=ann)
    await article.save()
    d = await Article.vinyl.get(pk=s.d.pk)
    d._state.db = "default"
    d.author = s.ann
    await d.save()
    topic = await vinyl.run(lambda: Topic.objects.create(name="plain"))
    topic._state.db = "default"
    await s.a.topics.add(topic)
    d._state.db = "default"
    await s.bob.articles.add(d)
    assert await s.bob.articles.count() == 1

    def in_fiber() -> None:
        d._state.db = "default"
        s.ann.articles.add(d)
        d._state.db = "default"
        d.author = s.bob
        d.save()
        assert list(s.bob.articles.all()) == [d]

    await vinyl.run(in_fiber)


async def test_a_field_named_as_the_manager(database) -> None:
    from press.models import Vinyl

    row = Vinyl(vinyl="LP")
    await row.save()
    assert row.vinyl == "LP"
    manager = vinyl.VinylManager()
    manager.model = Vinyl
    assert (await manager.get()).vinyl == "LP"


async def test_through_rows(database) -> None:
    s = await seed()
    await Tagging(article=s.a, topic=s.art, weight=3).save()
    assert (await Tagging.vinyl.select_related("topic").get()).topic.name == "art"
    assert isinstance(Article.topics.through.vinyl, vinyl.VinylManager)
    assert await Article.topics.through.vinyl.count() == 3
    assert issubclass(Article.topics.through, models.Model)
