"""``application = vinyl.wsgi.get_wsgi_application()``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import django

if TYPE_CHECKING:
    from vinyl.handlers.wsgi import WSGIHandler

__all__ = ["get_wsgi_application"]


def get_wsgi_application() -> WSGIHandler:
    """The project as a WSGI application; asynchronous views and middleware run without a loop.

    In the place of ``django.core.wsgi.get_wsgi_application``.
    """
    django.setup(set_prefix=False)
    from vinyl.handlers.wsgi import WSGIHandler

    return WSGIHandler()
