"""Django for the benchmark: ``default`` is Django's own backend, ``vinyl`` its twin.

``pooled`` is Django's with its pool, as its documentation asks under ASGI; ``peer`` is
django-async-backend's.
"""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from typing import Any

import vinyl

SECRET_KEY = "bench"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "vinyl", "shop"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES: dict[str, Any] = {"default": json.loads(os.environ["VINYL_BENCH_DATABASE"])}
DATABASES["vinyl"] = vinyl.twin(DATABASES["default"], of="default")
DATABASES["pooled"] = dict(DATABASES["default"])
if "postgresql" in DATABASES["default"]["ENGINE"]:
    pool = {"OPTIONS": {"pool": {"min_size": 1, "max_size": 10}}}
    DATABASES["pooled"] |= pool
    if find_spec("django_async_backend"):
        INSTALLED_APPS.append("django_async_backend")
        ASYNC_BACKEND_DISABLE_POOL_WARNING = True
        engine = {"ENGINE": "django_async_backend.db.backends.postgresql"}
        DATABASES["peer"] = DATABASES["default"] | pool | engine
