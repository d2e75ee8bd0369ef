"""A deferred constraint refuses a statement outside a transaction, where the server commits."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, connection
from fix_engine import Engine
from library.models import Book

from vinyl import _core


def backend() -> Any:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
async def test_its_error_is_raised_whichever_way_the_statement_goes(
    engine: Engine, mode: str
) -> None:
    def refuse() -> None:
        before = backend()
        for n in range(4):  # at first as it is, then with its PREPARE, then prepared
            with pytest.raises(IntegrityError, match="author_id"):
                Book.objects.create(title=str(n), author_id=10**6)
            with pytest.raises(IntegrityError, match="author_id"):
                Book.objects.bulk_create([Book(title=str(n), author_id=10**6) for n in range(3)])
            with pytest.raises(IntegrityError), connection.cursor() as cursor:
                cursor.execute(
                    "INSERT INTO library_book (title, author_id, pages) VALUES ('t', 1000000, 1)"
                )
        assert backend() == before
        assert not Book.objects.exists()

    await _core.run(refuse)
