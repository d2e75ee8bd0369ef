"""The tables that are measured: two columns, ten columns, and relations."""

from __future__ import annotations

from django.db import models


class Tag(models.Model):
    name = models.CharField(max_length=50)


class Maker(models.Model):
    name = models.CharField(max_length=100)
    founded = models.DateField(null=True)


class Item(models.Model):
    maker = models.ForeignKey(Maker, models.CASCADE, related_name="items")
    name = models.CharField(max_length=100)
    text = models.TextField()
    price = models.DecimalField(max_digits=10, decimal_places=2)
    weight = models.FloatField()
    stock = models.IntegerField()
    active = models.BooleanField(default=True)
    created = models.DateTimeField()
    code = models.UUIDField()
