"""Django's serialized_rollback.

On its own: Django puts the rows back under their first keys, which clash with those that an
earlier test's flush has made anew (content types).
"""

from __future__ import annotations

from django.contrib.contenttypes.models import ContentType
from django.test import TransactionTestCase


class Serialized(TransactionTestCase):
    serialized_rollback = True

    async def test_what_migrations_made_is_there_1(self) -> None:
        self.assertTrue(await ContentType.vinyl.filter(model="customer").exists())
        await ContentType.vinyl.all().delete()

    test_what_migrations_made_is_there_2 = test_what_migrations_made_is_there_1
