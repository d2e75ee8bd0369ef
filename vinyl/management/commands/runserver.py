"""``manage.py runserver``: Django's, serving vinyl's ASGI application."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.management.commands import runserver
from django.utils.module_loading import import_string

from vinyl.handlers import development


class BlockingCommand(runserver.Command):
    """Django's, with vinyl's WSGI handler where the project names no application."""

    def get_handler(self, *args: Any, **options: Any) -> Any:
        if settings.WSGI_APPLICATION is not None:
            return super().get_handler(*args, **options)
        from vinyl.wsgi import get_wsgi_application

        return get_wsgi_application()


Bases: tuple[type, ...] = (BlockingCommand,)
if apps.is_installed("django.contrib.staticfiles"):
    from django.contrib.staticfiles.management.commands import runserver as with_static

    Bases = (with_static.Command, BlockingCommand)


class Command(*Bases):  # type: ignore[misc]
    """Serves settings.ASGI_APPLICATION, or else the project under vinyl's handler, with uvicorn.

    Reloading, checks, addresses and static files are Django's. With ``--wsgi``, or without
    uvicorn, it is Django's own server in blocking mode.
    """

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--wsgi",
            action="store_true",
            help="Serve WSGI, with Django's own server: the same views in blocking mode.",
        )

    def run(self, **options: Any) -> None:
        self._is_asgi = not options["wsgi"]
        if self._is_asgi and not development.is_available():
            self._is_asgi = False
            self.stderr.write(
                self.style.WARNING("ASGI is served with uvicorn, which is not installed: WSGI.")
            )
        if self._is_asgi:
            self.server_cls = development.DevelopmentServer
        super().run(**options)

    def get_handler(self, *args: Any, **options: Any) -> Any:
        if not self._is_asgi:
            return super().get_handler(*args, **options)
        path = getattr(settings, "ASGI_APPLICATION", None)
        if path:
            application = import_string(path)
        else:
            from vinyl.asgi import get_asgi_application

            application = get_asgi_application()
        serves_static = options.get("use_static_handler") and (
            settings.DEBUG or options.get("insecure_serving")
        )
        if not serves_static:
            return application
        from vinyl.handlers.asgi import StaticFilesHandler

        return StaticFilesHandler(application)

    def on_bind(self, server_port: int) -> None:
        if not self._is_asgi:
            super().on_bind(server_port)
            return
        host = f"[{self.addr}]" if self._raw_ipv6 else self.addr
        self.stdout.write(
            f"Django {self.get_version()}, settings {settings.SETTINGS_MODULE!r}\n"
            f"vinyl serves ASGI at {self.protocol}://{host}:{server_port}/\n"
            "Quit with CONTROL-C. This server is for development."
        )
