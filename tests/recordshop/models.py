"""A shop for records: what the admin, the APIs and the filters of third parties work on."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models


class Label(models.Model):
    name = models.CharField(max_length=100, unique=True)
    country = models.CharField(max_length=60)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Artist(models.Model):
    name = models.CharField(max_length=100, unique=True)
    formed = models.PositiveSmallIntegerField(null=True, blank=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Style(models.Model):
    name = models.CharField(max_length=50, unique=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Record(models.Model):
    """A long-playing record, and how many of it the shop has."""

    title = models.CharField(max_length=120)
    artist = models.ForeignKey(Artist, models.CASCADE, related_name="records")
    label = models.ForeignKey(Label, models.PROTECT, related_name="records")
    styles = models.ManyToManyField(Style, related_name="records", blank=True)
    released = models.DateField()
    price = models.DecimalField(
        max_digits=6, decimal_places=2, validators=[MinValueValidator(1)], help_text="In euros."
    )
    copies = models.PositiveIntegerField("in stock", default=0)
    is_featured = models.BooleanField("in the window", default=False)

    class Meta:
        ordering = ("artist__name", "released")
        constraints = [
            models.UniqueConstraint(fields=("artist", "title"), name="one_record_of_a_title")
        ]

    def __str__(self) -> str:
        return self.title

    def clean(self) -> None:
        if self.is_featured and not self.copies:
            raise ValidationError({"is_featured": "A record that is sold out leaves the window."})


class Track(models.Model):
    record = models.ForeignKey(Record, models.CASCADE, related_name="tracks")
    side = models.CharField(max_length=1, choices=[("A", "A"), ("B", "B")], default="A")
    number = models.PositiveSmallIntegerField()
    title = models.CharField(max_length=120)
    seconds = models.PositiveSmallIntegerField()

    class Meta:
        ordering = ("side", "number")
        constraints = [
            models.UniqueConstraint(fields=("record", "side", "number"), name="one_track_a_place")
        ]

    def __str__(self) -> str:
        return self.title
