"""``application = vinyl.asgi.get_asgi_application()``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import django

if TYPE_CHECKING:
    from vinyl.handlers.asgi import ASGIHandler

__all__ = ["get_asgi_application"]


def get_asgi_application() -> ASGIHandler:
    """The project as an ASGI application, with no thread hop in a request.

    In the place of ``django.core.asgi.get_asgi_application``.
    """
    django.setup(set_prefix=False)
    from vinyl.handlers.asgi import ASGIHandler

    return ASGIHandler()
