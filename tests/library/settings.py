"""Django settings of the tests.  fix_engine.py fills in DATABASES for each engine."""

from recordshop.settings import APPS, MIDDLEWARE, REST_FRAMEWORK, TEMPLATES

__all__ = ["MIDDLEWARE", "REST_FRAMEWORK", "TEMPLATES"]

SECRET_KEY = "tests"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    *APPS,
    "vinyl",
    "library",
    "press",
]
# Every table is made at once, from the models: an app without migrations cannot refer to one with.
MIGRATION_MODULES = dict.fromkeys(("admin", "auth", "contenttypes", "sessions"))
DATABASES: dict[str, dict] = {}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "Europe/Zurich"
ALLOWED_HOSTS = ["*"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STATIC_URL = "/static/"
