"""Django settings of the tests.  fix_engine.py fills in DATABASES for each engine."""

SECRET_KEY = "tests"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "vinyl",
    "library",
    "press",
]
# Every table is made at once, from the models: an app without migrations cannot refer to one with.
MIGRATION_MODULES = {"contenttypes": None, "auth": None, "sessions": None}
DATABASES: dict[str, dict] = {}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "Europe/Zurich"
ALLOWED_HOSTS = ["*"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
