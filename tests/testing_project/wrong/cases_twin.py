"""Only the twin is named in ``databases``."""

from __future__ import annotations

from django.test import TestCase
from shop.steps import names

import vinyl.test


class OnlyTwin(TestCase):
    databases = {"vinyl"}

    async def test_twin(self) -> None:
        assert await names() == []


class OnlyTwinOfOurs(vinyl.test.TestCase):
    databases = {"vinyl"}

    async def test_twin(self) -> None:
        assert await names() == []
