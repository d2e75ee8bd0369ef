"""For gunicorn: the same async views, with no event loop."""

import os

from django.contrib.staticfiles.handlers import StaticFilesHandler

from vinyl.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "atlas.settings")
application = StaticFilesHandler(get_wsgi_application())
