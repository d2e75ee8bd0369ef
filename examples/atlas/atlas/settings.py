"""Settings of the atlas.  What is vinyl's: one app, and the engine of DATABASES."""

from __future__ import annotations

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = os.environ.get("ATLAS_SECRET_KEY", "only-for-this-demo")
DEBUG = os.environ.get("ATLAS_DEBUG") == "1"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "ninja",
    "vinyl",
    "world",
]
# Our own is async, the handler awaits it in the request's task; Django's run in its fiber.
MIDDLEWARE = [
    "world.middleware.statement_log",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
ROOT_URLCONF = "atlas.urls"
# One project, served either way: `make demo` and `make demo SERVER=wsgi`.
ASGI_APPLICATION = "atlas.asgi.application"
WSGI_APPLICATION = "atlas.wsgi.application"
STATIC_URL = "/static/"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# The drop-in way: Django's own engine name, with "vinyl" in place of "django.db".
if os.environ.get("ATLAS_DB") == "postgresql":
    DATABASES = {
        "default": {
            "ENGINE": "vinyl.backends.postgresql",
            "NAME": os.environ.get("PGDATABASE", "atlas"),
            "USER": os.environ.get("PGUSER", "postgres"),
            "PASSWORD": os.environ.get("PGPASSWORD", ""),
            "HOST": os.environ.get("PGHOST", ""),
            "PORT": os.environ.get("PGPORT", ""),
            "OPTIONS": {"pool": {"min_size": 1, "max_size": 10}},
        }
    }
else:
    DATABASES = {
        "default": {
            "ENGINE": "vinyl.backends.sqlite3",
            "NAME": os.environ.get("ATLAS_SQLITE", str(BASE_DIR / "atlas.sqlite3")),
            "OPTIONS": {
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
                "transaction_mode": "IMMEDIATE",
            },
        }
    }
# The careful way, for a project that wants to keep Django's own engine for everything it has:
#
#     DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "atlas"}}
#     DATABASES["vinyl"] = vinyl.twin(DATABASES["default"], of="default")

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
