"""Plain Django models: vinyl needs nothing here.  Each has ``.vinyl`` besides ``.objects``."""

from __future__ import annotations

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.urls import reverse


class Continent(models.Model):
    code = models.CharField(max_length=2, primary_key=True)
    name = models.CharField(max_length=40)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Language(models.Model):
    code = models.CharField(max_length=3, primary_key=True)
    name = models.CharField(max_length=60)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Country(models.Model):
    iso = models.CharField(max_length=2, primary_key=True)
    name = models.CharField(max_length=80, db_index=True)
    continent = models.ForeignKey(Continent, models.PROTECT, related_name="countries")
    capital = models.CharField(max_length=80, blank=True)
    area = models.FloatField("area in km²")
    population = models.BigIntegerField()
    currency = models.CharField(max_length=40, blank=True)
    phone = models.CharField(max_length=20, blank=True)
    tld = models.CharField(max_length=4, blank=True)
    languages = models.ManyToManyField(Language, related_name="countries")
    neighbours = models.ManyToManyField("self")

    class Meta:
        ordering = ("name",)
        verbose_name_plural = "countries"

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("country", args=[self.iso])

    @property
    def flag(self) -> str:
        """The flag as an emoji: the ISO code in regional indicator letters."""
        return "".join(chr(ord(letter) + 0x1F1A5) for letter in self.iso)

    @property
    def density(self) -> float | None:
        """Inhabitants per km²."""
        return self.population / self.area if self.area else None


class City(models.Model):
    name = models.CharField(max_length=80, db_index=True)
    other_names = models.TextField(blank=True)
    country = models.ForeignKey(Country, models.CASCADE, related_name="cities")
    population = models.PositiveIntegerField(db_index=True)
    latitude = models.FloatField(validators=[MinValueValidator(-90), MaxValueValidator(90)])
    longitude = models.FloatField(validators=[MinValueValidator(-180), MaxValueValidator(180)])
    timezone = models.CharField(max_length=40, default="UTC")
    note_count = models.PositiveIntegerField(default=0, editable=False)

    class Meta:
        ordering = ("-population", "name")
        verbose_name_plural = "cities"
        constraints = [
            models.UniqueConstraint(
                fields=["country", "name", "latitude", "longitude"], name="city_once"
            )
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("city", args=[self.pk])


class Note(models.Model):
    """An entry in a city's guest book."""

    city = models.ForeignKey(City, models.CASCADE, related_name="notes")
    author = models.CharField("your name", max_length=60)
    text = models.TextField("your note", max_length=500)
    written = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-written", "-pk")

    def __str__(self) -> str:
        return f"{self.author}: {self.text[:40]}"
