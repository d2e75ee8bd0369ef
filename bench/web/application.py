"""``application:application``: what uvicorn and gunicorn serve, made as the contender says."""

from __future__ import annotations

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "settings"

from django.utils.module_loading import import_string
from settings import CONTENDER

application = import_string(CONTENDER["application"])()
