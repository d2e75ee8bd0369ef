"""Django for the benchmark: ``default`` is Django's own backend, ``vinyl`` its twin."""

from __future__ import annotations

import json
import os

import vinyl

SECRET_KEY = "bench"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "vinyl", "shop"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": json.loads(os.environ["VINYL_BENCH_DATABASE"])}
DATABASES["vinyl"] = vinyl.twin(DATABASES["default"], of="default")
