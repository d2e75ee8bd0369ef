"""For uvicorn. A deployed site serves its static files otherwise, and exports what get_… gives."""

import os

from vinyl.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "atlas.settings")
application = get_asgi_application()

from vinyl.handlers.asgi import StaticFilesHandler  # noqa: E402

application = StaticFilesHandler(application)
