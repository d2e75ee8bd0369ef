"""Settings of a small project whose tests the tests in tests/contract/test_testing_*.py run."""

import json
import os

DATABASES = json.loads(os.environ["PROJECT_DATABASES"])
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "vinyl",
    "shop",
]
SECRET_KEY = "tests"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
ROOT_URLCONF = "shop.urls"
