"""The shop as servers of WSGI import it."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "recordshop.settings")

from recordshop import counting
from vinyl.wsgi import get_wsgi_application

counting.install()
application = get_wsgi_application()
