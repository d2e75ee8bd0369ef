"""Who is measured."""

from __future__ import annotations

from lanes import Entry

BASE = "Django sync"
VINYL = ("vinyl asyncio", "vinyl uvloop", "vinyl blocking")
ENTRIES = (
    Entry(BASE, "django_sync", "sync", "Django"),
    Entry("vinyl asyncio", "with_vinyl", "asyncio"),
    Entry("vinyl uvloop", "with_vinyl", "uvloop"),
    Entry("vinyl blocking", "with_vinyl", "driven"),
    Entry("Django a*", "django_async", "asyncio", "Django"),
    Entry("Django a*, ASGI", "django_asgi", "asyncio", "Django"),
    Entry(
        "django-async-backend", "async_backend", "asyncio", "django-async-backend", ("postgresql",)
    ),
    Entry("SQLAlchemy", "with_sqlalchemy", "asyncio", "SQLAlchemy"),
    Entry("Tortoise", "with_tortoise", "asyncio", "tortoise-orm"),
    Entry("Piccolo", "with_piccolo", "asyncio", "piccolo", own_process=True),
    Entry("asyncpg raw", "with_asyncpg", "asyncio", "asyncpg", ("postgresql",)),
    Entry("asyncpg raw, uvloop", "with_asyncpg", "uvloop", "asyncpg", ("postgresql",)),
    Entry("psycopg raw", "with_psycopg", "asyncio", "psycopg", ("postgresql",)),
    Entry("aiosqlite raw", "with_aiosqlite", "asyncio", "aiosqlite", ("sqlite",)),
    Entry("limit in C", "limit", "sync"),
)


def chosen(names: str, engine: str) -> list[Entry]:
    """The entries whose name contains one of the comma-separated ``names``; Django sync always."""
    wanted = [name.strip().lower() for name in names.split(",") if name.strip()]
    for name in wanted:
        if not any(name in entry.name.lower() for entry in ENTRIES):
            raise ValueError(
                f"no contender's name has {name!r}; there are {', '.join(e.name for e in ENTRIES)}"
            )
    return [
        entry
        for entry in ENTRIES
        if engine in entry.engines
        and (entry.name == BASE or not wanted or any(name in entry.name.lower() for name in wanted))
    ]
