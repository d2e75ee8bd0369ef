"""Who is measured: each as its own documentation serves it, with one worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

CONNECTIONS = 10  # of each pool; gunicorn's threads have one each


@dataclass(frozen=True)
class Contender:
    name: str
    server: str
    application: str
    answers: str
    engine: str
    apps: tuple[str, ...] = ()
    database: dict[str, Any] = field(default_factory=dict)
    model_base: str = ""
    package: str = ""  # left out where it is not installed

    def settings(self, database: dict[str, Any], middleware: bool) -> dict[str, Any]:
        """What settings.py reads from VINYL_BENCH_CONTENDER."""
        return {
            "application": self.application,
            "answers": self.answers,
            "apps": self.apps,
            "database": database | {"ENGINE": self.engine} | self.database,
            "model_base": self.model_base,
            "middleware": middleware,
        }


KEPT = {"CONN_MAX_AGE": None}
# Under ASGI each request has a thread of its own: only a pool keeps connections.
POOLED = {"OPTIONS": {"pool": {"max_size": CONNECTIONS}}}
DJANGO = "django.db.backends.postgresql"
VINYL = "vinyl.backends.postgresql"

BASE = Contender(
    "Django sync, gunicorn", "gunicorn", "django.core.wsgi.get_wsgi_application",
    "django_sync", DJANGO, database=KEPT,
)  # fmt: skip
CONTENDERS = (
    BASE,
    Contender(
        "Django a*, uvicorn", "uvicorn", "django.core.asgi.get_asgi_application",
        "django_async", DJANGO, database=POOLED,
    ),
    Contender(
        "django-async-backend, uvicorn", "uvicorn", "django.core.asgi.get_asgi_application",
        "async_backend", "django_async_backend.db.backends.postgresql",
        apps=("django_async_backend",), database=POOLED,
        model_base="django_async_backend.db.models.base.AsyncModelMixin",
        package="django-async-backend",
    ),
    Contender(
        "vinyl, uvicorn", "uvicorn", "vinyl.asgi.get_asgi_application",
        "with_vinyl", VINYL, apps=("vinyl",), database=POOLED,
    ),
    Contender(
        "vinyl, sync views, uvicorn", "uvicorn", "vinyl.asgi.get_asgi_application",
        "django_sync", VINYL, apps=("vinyl",), database=POOLED,
    ),
    Contender(
        "vinyl, gunicorn", "gunicorn", "vinyl.wsgi.get_wsgi_application",
        "with_vinyl", VINYL, apps=("vinyl",), database=POOLED,
    ),
)  # fmt: skip
