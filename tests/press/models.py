"""The models of the contract tests: each way in which users shape a model."""

from __future__ import annotations

from typing import Any

from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import models

from vinyl import VinylManager, VinylQuerySet


class AwaitedQuerySet(VinylQuerySet):
    """Custom methods as a user writes them."""

    def long(self) -> AwaitedQuerySet:
        return self.filter(words__gte=1000)

    def count_long(self) -> Any:
        return self.long().count()

    async def titles(self) -> list[str]:
        return [each.title async for each in self]

    def get(self, *args: Any, **kwargs: Any) -> Any:
        # More than one fetch, and a value used in between: it must run whole.
        found = super().get(*args, **kwargs)
        found.seen = self.model.objects.filter(pk=found.pk).exists()
        return found

    def update(self, **kwargs: Any) -> Any:
        return super().update(**kwargs) + 0


class PlainQuerySet(models.QuerySet):
    """A project's own queryset, which knows nothing of vinyl."""

    def long(self) -> PlainQuerySet:
        return self.filter(words__gte=1000)

    def first_title(self) -> str:
        return self.order_by("title").first().title

    def lengthen(self) -> int:
        return self.update(words=models.F("words") + 1)

    def count(self) -> int:
        return super().count() + 0

    def really_delete(self) -> tuple[int, dict[str, int]]:
        return super().delete()

    def longest(self) -> str:
        if self.exists():
            return self.order_by("-words")[0].title
        return "none"


class Stamped(models.Model):
    """An abstract parent with a save() of its own, and a related name with a placeholder."""

    saves = models.IntegerField(default=0)
    editor = models.ForeignKey(
        "press.Writer",
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="edited_%(class)ss",
    )

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.saves += 1
        super().save(*args, **kwargs)


class Shouting:
    """A plain mixin, before the model in the MRO."""

    title: str

    def save(self, *args: Any, **kwargs: Any) -> str:
        self.title = self.title.upper()
        super().save(*args, **kwargs)  # type: ignore[misc]
        return "saved"

    def full_clean(self, *args: Any, **kwargs: Any) -> None:
        self.cleaned = True
        super().full_clean(*args, **kwargs)  # type: ignore[misc]


class Writer(models.Model):
    name = models.CharField(max_length=100, unique=True)
    bio = models.TextField(default="", blank=True)
    badge = models.OneToOneField("Badge", models.SET_NULL, null=True, related_name="bearer")

    vinyl = VinylManager()

    def __str__(self) -> str:
        return self.name

    def rename(self, name: str) -> None:
        """A model method that saves: not written in a coroutine."""
        self.name = name
        self.save()

    def has_articles(self) -> bool:
        return bool(self.articles.exists())

    async def arename(self, name: str) -> None:
        self.name = name
        await self.save()


class Badge(models.Model):
    number = models.IntegerField(unique=True)


class Topic(models.Model):
    name = models.CharField(max_length=50, unique=True)

    class Meta:
        ordering = ("name",)


class Article(Stamped):
    title = models.CharField(max_length=100)
    words = models.IntegerField(default=0)
    author = models.ForeignKey(Writer, models.CASCADE, related_name="articles")
    reviewer = models.ForeignKey(
        Writer, models.SET_NULL, null=True, blank=True, related_name="reviewed"
    )
    topics = models.ManyToManyField(Topic, related_name="articles", blank=True)
    tagged = models.ManyToManyField(
        Topic, through="Tagging", related_name="tagged_articles", blank=True
    )
    remarks = GenericRelation("Remark")

    objects = models.Manager.from_queryset(PlainQuerySet)()
    awaited = VinylManager.from_queryset(AwaitedQuerySet)()

    class Meta:
        ordering = ("pk",)
        constraints = [models.UniqueConstraint(fields=["title", "author"], name="one_title_each")]


class Tagging(models.Model):
    article = models.ForeignKey(Article, models.CASCADE)
    topic = models.ForeignKey(Topic, models.CASCADE)
    weight = models.IntegerField(default=1)


class Remark(models.Model):
    text = models.CharField(max_length=100)
    content_type = models.ForeignKey(ContentType, models.CASCADE, null=True)
    object_id = models.PositiveBigIntegerField(null=True)
    subject = GenericForeignKey()


class Place(models.Model):
    name = models.CharField(max_length=50)
    city = models.CharField(max_length=50, default="")


class Kiosk(Place):
    """Multi-table inheritance."""

    owner = models.ForeignKey(Writer, models.CASCADE, null=True, related_name="kiosks")


class Notice(Shouting, Stamped):
    title = models.CharField(max_length=100, unique=True)
    plain = AwaitedQuerySet.as_manager()


class LoudNotice(Notice):
    class Meta:
        proxy = True


class Vinyl(models.Model):
    """A model with a field of the automatic manager's name."""

    vinyl = models.CharField(max_length=20)


class Locked(models.Model):
    """A foreign key without null, whose rows protect."""

    owner = models.ForeignKey(Writer, models.PROTECT, related_name="locks")


class Seat(models.Model):
    """A primary key of two columns."""

    pk = models.CompositePrimaryKey("hall", "number")
    hall = models.IntegerField()
    number = models.IntegerField()
    name = models.CharField(max_length=20, default="")
    taken_by = models.ForeignKey(
        Writer, models.SET_NULL, null=True, blank=True, related_name="seats"
    )

    class Meta:
        ordering = ("hall", "number")
