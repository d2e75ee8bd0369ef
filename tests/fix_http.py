"""The site of ``tests/web`` under vinyl's handlers: fixtures ``site``, ``asgi``, ``wsgi``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from django.test import override_settings
from django.urls import clear_url_caches

DJANGO_MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]


def web_settings(**more: Any) -> AbstractContextManager[None]:
    """The settings of the site, and ``more``."""
    return override_settings(**{"ROOT_URLCONF": "web.urls", "TEMPLATES": TEMPLATES, **more})


@pytest.fixture
def control() -> Iterator[Any]:
    """What the views of this test share with it."""
    from web import views

    views.control = views.Control()
    yield views.control
    views.control = None  # type: ignore[assignment]


@pytest.fixture
def site(control: Any) -> Iterator[Callable[..., None]]:
    """Call it with settings to change the site's; they end with the test."""
    entered: list[AbstractContextManager[None]] = []

    def change(**more: Any) -> None:
        changed = web_settings(**more)
        changed.__enter__()
        entered.append(changed)

    change()
    yield change
    for each in reversed(entered):
        each.__exit__(None, None, None)
    clear_url_caches()


@pytest.fixture
def asgi(site: Callable[..., None]) -> Callable[..., Any]:
    """Makes vinyl's ASGI application of the site, with settings changed."""

    def make(*middleware: str, **more: Any) -> Any:
        from vinyl.asgi import get_asgi_application

        site(MIDDLEWARE=list(middleware), **more)
        return get_asgi_application()

    return make


@pytest.fixture
def wsgi(site: Callable[..., None]) -> Callable[..., Any]:
    """Makes vinyl's WSGI application of the site, with settings changed."""

    def make(*middleware: str, **more: Any) -> Any:
        from vinyl.wsgi import get_wsgi_application

        site(MIDDLEWARE=list(middleware), **more)
        return get_wsgi_application()

    return make
