"""Contract, section 1: settings, engines, twins, system checks, migrations."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connections, models, router
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.state import ProjectState
from fix_engine import installed
from fix_mode import run_in_mode
from press.models import Article, Writer

import vinyl
from vinyl import aliases, conf


def test_twin_describes_the_same_server() -> None:
    before = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "shop",
        "HOST": "db",
        "OPTIONS": {"pool": {"max_size": 4}},
        "TEST": {"CHARSET": "UTF8"},
    }
    made = vinyl.twin(before, of="main")
    assert made["ENGINE"] == "vinyl.backends.postgresql"
    assert {k: made[k] for k in ("NAME", "HOST", "OPTIONS")} == {
        k: before[k] for k in ("NAME", "HOST", "OPTIONS")
    }
    assert made["TEST"] == {"CHARSET": "UTF8", "MIRROR": "main"}
    made["OPTIONS"]["pool"]["max_size"] = 5
    assert before["OPTIONS"] == {"pool": {"max_size": 4}}
    assert "MIRROR" not in before["TEST"]


@pytest.mark.parametrize("name", ["postgresql", "sqlite3", "mysql"])
def test_twin_knows_each_engine(name: str) -> None:
    made = vinyl.twin({"ENGINE": f"django.db.backends.{name}", "NAME": "x"})
    assert made["ENGINE"] == f"vinyl.backends.{name}"
    assert made["TEST"]["MIRROR"] == "default"


@pytest.mark.parametrize("engine", ["", "vinyl.backends.postgresql", "mssql"])
def test_twin_of_something_else_is_refused(engine: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="ENGINE"):
        vinyl.twin({"ENGINE": engine, "NAME": "x", "PASSWORD": "secret"})


def test_twin_is_importable_in_a_settings_file() -> None:
    code = (
        "import vinyl, sys\n"
        "DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': 'x'}}\n"
        "DATABASES['vinyl'] = vinyl.twin(DATABASES['default'], of='default')\n"
        "from django.conf import settings\n"
        "assert not settings.configured\n"
        "assert 'django.db.models' not in sys.modules\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_alias_and_twin_find_each_other(database) -> None:
    assert aliases.vinyl_alias(database.alias) == database.alias
    assert aliases.vinyl_alias("default") == database.alias
    assert aliases.same_database("default", database.alias)
    assert not aliases.same_database("default", None)


def test_twin_is_found_by_server_and_name_alone(tmp_path) -> None:
    plain = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "a")}
    with installed(
        {
            "default": plain,
            "other": {"ENGINE": "vinyl.backends.sqlite3", "NAME": str(tmp_path / "b")},
            "same": {"ENGINE": "vinyl.backends.sqlite3", "NAME": str(tmp_path / "a")},
        }
    ):
        assert aliases.vinyl_alias("default") == "same"
        assert aliases.vinyl_alias("other") == "other"
        assert not aliases.same_database("default", "other")


def test_missing_twin_is_named(tmp_path, mode) -> None:
    plain = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "a")}

    async def check() -> None:
        with pytest.raises(ImproperlyConfigured, match=r"DATABASES\['default'\].*vinyl\.twin"):
            await Article.vinyl.count()
        with pytest.raises(ImproperlyConfigured, match="DATABASES"):
            await Article.vinyl.all()
        with pytest.raises(ImproperlyConfigured, match="DATABASES"):
            async with vinyl.atomic():
                pass

    with installed({"default": plain}):
        run_in_mode(mode, check)


class ToOther:
    """A router that sends writers elsewhere."""

    def db_for_read(self, model, **hints):
        return "other" if model is Writer else None

    db_for_write = db_for_read


@pytest.fixture
def routed(monkeypatch):
    monkeypatch.setattr(router, "routers", [ToOther()])


def _plain_pair(tmp_path):
    return (
        {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "a")},
        {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "b")},
    )


def test_routers_choose_the_alias(tmp_path, routed, mode) -> None:
    plain, other = _plain_pair(tmp_path)

    async def check() -> None:
        assert Article.vinyl.all().db == "fast"
        assert Writer.vinyl.all().db == "fast_other"
        assert Writer.vinyl.db == "fast_other"
        assert Writer.vinyl.using("default").db == "fast"

    twins = {"fast": vinyl.twin(plain), "fast_other": vinyl.twin(other, of="other")}
    with installed({"default": plain, "other": other, **twins}):
        run_in_mode(mode, check)


def test_the_missing_twin_of_a_router_is_named(tmp_path, routed, mode) -> None:
    plain, other = _plain_pair(tmp_path)

    async def check() -> None:
        with pytest.raises(ImproperlyConfigured, match=r"Writer.*'other'"):
            await Writer.vinyl.count()

    with installed({"default": plain, "other": other, "fast": vinyl.twin(plain)}):
        run_in_mode(mode, check)


def test_every_model_has_the_manager(database) -> None:
    for model in apps.get_models():
        if model._meta.label == "press.Vinyl":
            assert isinstance(model.__dict__["vinyl"], models.query_utils.DeferredAttribute)
        else:
            assert isinstance(model.vinyl, vinyl.VinylManager), model
            assert model.vinyl.model is model
    with pytest.raises(AttributeError, match="isn't accessible via Article instances"):
        Article().vinyl


def test_the_manager_stays_in_the_background(database) -> None:
    for model in apps.get_models():
        meta = model._meta
        assert not any(isinstance(each, vinyl.VinylManager) for each in meta.managers), model
        assert not isinstance(meta.default_manager, vinyl.VinylManager)
        assert not isinstance(meta.base_manager, vinyl.VinylManager)
    assert type(Writer.objects) is models.Manager
    assert Writer._default_manager is Writer.objects


@pytest.fixture
def make_model():
    """Makes a model of the app press, and forgets it."""

    def make(**attributes):
        class Meta:
            app_label = "press"

        return type("Made", (models.Model,), {"__module__": __name__, "Meta": Meta, **attributes})

    yield make
    del apps.all_models["press"]["made"]
    apps.clear_cache()


def test_objects_cannot_be_the_only_one(make_model) -> None:
    from vinyl.checks import check_managers
    from vinyl.manager import named

    assert check_managers() == []
    made = make_model(objects=vinyl.VinylManager())
    [error] = check_managers()
    assert (error.id, error.obj) == ("vinyl.E005", made)
    named.remove((made, "objects"))


def test_objects_beside_another_manager(make_model) -> None:
    from vinyl.checks import check_managers

    made = make_model(plain=models.Manager(), objects=vinyl.VinylManager())
    assert check_managers() == []
    assert isinstance(made.objects, vinyl.VinylManager)
    assert made._default_manager is made.plain


@pytest.mark.parametrize("name", ["awaited_too", None])
def test_auto_manager_can_be_named_or_turned_off(name, settings_of_vinyl, make_model) -> None:
    settings_of_vinyl({"AUTO_MANAGER": name})
    made = make_model()
    assert hasattr(made, "awaited_too") is (name is not None)
    assert not hasattr(made, "vinyl")


@pytest.fixture
def settings_of_vinyl():
    from django.test import override_settings

    changed = []

    def change(value):
        override = override_settings(VINYL=value)
        override.enable()
        changed.append(override)

    yield change
    for each in changed:
        each.disable()


def test_checks_name_what_is_wrong(database, settings_of_vinyl) -> None:
    from vinyl.checks import check_databases, check_setting

    assert check_setting() == []
    assert check_databases() == []
    settings_of_vinyl({"AUTO_MANAGERS": "vinyl", "AUTO_MANAGER": "not a name"})
    assert [each.id for each in check_setting()] == ["vinyl.E002", "vinyl.E003"]
    call_command("check", "--tag", "models")


def test_checks_warn_of_no_engine_and_no_mirror(tmp_path) -> None:
    from vinyl.checks import check_databases

    plain = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "a")}
    with installed({"default": plain}):
        assert [each.id for each in check_databases()] == ["vinyl.W001"]
    with installed({"default": plain, "v": {**plain, "ENGINE": "vinyl.backends.sqlite3"}}):
        assert [each.id for each in check_databases()] == ["vinyl.W002"]


def test_migrations_see_no_change(database) -> None:
    """The state with vinyl's managers and descriptors is the state without."""
    state = ProjectState.from_apps(apps)
    for key, each in state.models.items():
        assert all(not isinstance(m, vinyl.VinylManager) for _, m in each.managers), key
    writer = state.models["press", "writer"]
    assert writer.managers == []
    assert set(writer.fields) == {"id", "name", "bio", "badge"}
    again = ProjectState.from_apps(apps)
    changes = MigrationAutodetector(state, again)._detect_changes()
    assert changes == {}


def test_historical_models_are_plain(database) -> None:
    historical = ProjectState.from_apps(apps).apps.get_model("press", "Article")
    assert not hasattr(historical, "vinyl")
    descriptor = historical.__dict__["author"]
    assert type(descriptor) is models.fields.related_descriptors.ForwardManyToOneDescriptor


def test_plain_sync_code_is_plain_django(database) -> None:
    """On a vinyl engine as ``default`` too."""
    ann = Writer.objects.create(name="Ann")
    article = Article(title="x", author_id=ann.pk)
    article.full_clean()
    article.save()
    article = Article.objects.get()
    assert article.author.name == "Ann"
    assert [each.title for each in ann.articles.all()] == ["x"]
    assert ann.articles.count() == 1
    assert ann.articles.first_title() == "x"
    article.title = "y"
    article.save()
    assert Article.objects.values_list("title", flat=True)[0] == "y"
    article.refresh_from_db()
    ann.delete()
    assert not Article.objects.exists()
    assert connections["default"].vendor == database.name


def test_management_commands(database, tmp_path, capsys) -> None:
    """On the vinyl alias itself."""
    alias = database.alias
    ann = Writer.objects.using(alias).create(name="Ann")
    Article.objects.using(alias).create(title="x", author=ann)
    fixture = tmp_path / "press.json"
    call_command("dumpdata", "press", database=alias, output=str(fixture), verbosity=0)
    Writer.objects.using(alias).all().delete()
    call_command("loaddata", str(fixture), database=alias, verbosity=0)
    assert Article.objects.using(alias).get().author.name == "Ann"
    call_command("migrate", run_syncdb=True, database=alias, verbosity=0)
    call_command("inspectdb", "press_writer", database=alias)
    assert "class PressWriter(models.Model)" in capsys.readouterr().out
    call_command("check", database=[alias])
    call_command("sqlsequencereset", "press", database=alias)
    call_command("flush", database=alias, interactive=False, verbosity=0)
    assert Article.objects.using(alias).count() == 0


def test_dbshell_gets_what_djangos_backend_would_give(twin) -> None:
    plain, ours = connections["default"].client, connections["vinyl"].client
    given = [
        client.settings_to_cmd_args_env(connections["default"].settings_dict, [])
        for client in (plain, ours)
    ]
    assert given[0] == given[1]


def test_twin_serves_the_plain_alias_from_the_start(tmp_path) -> None:
    """In a process where nothing has used a connection yet."""
    code = f"""
import asyncio, django, vinyl
from django.conf import settings
default = {{"ENGINE": "django.db.backends.sqlite3", "NAME": {str(tmp_path / "db")!r}}}
settings.configure(
    INSTALLED_APPS=["vinyl", "django.contrib.contenttypes"],
    DATABASES={{"default": default, "vinyl": vinyl.twin(default)}},
)
django.setup()
from django.db import connections
from django.contrib.contenttypes.models import ContentType

async def main():
    assert connections["default"] is connections["vinyl"]
    assert connections["default"].alias == "vinyl"
    from django.core.management import call_command
    await vinyl.run(call_command, "migrate", verbosity=0)
    await ContentType.vinyl.create(app_label="x", model="y")
    assert await vinyl.run(ContentType.objects.using("default").filter(model="y").count) == 1

asyncio.run(main())
assert connections["default"].alias == "default"
assert ContentType.objects.filter(model="y").count() == 1
"""
    environment = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_conf_rejects_what_is_no_dictionary(settings_of_vinyl) -> None:
    settings_of_vinyl("vinyl")
    with pytest.raises(ImproperlyConfigured, match="VINYL"):
        conf.get("AUTO_MANAGER")
