"""The shop as servers of ASGI import it, with the threads that were started counted."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "recordshop.settings")

from recordshop import counting
from vinyl.asgi import get_asgi_application
from vinyl.handlers.asgi import StaticFilesHandler

counting.install()
# The tests' servers have no web server for static files before them.
application = StaticFilesHandler(get_asgi_application())
