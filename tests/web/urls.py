"""The site that the handlers' tests visit."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import path

from web import views


def broken_500(request: HttpRequest) -> HttpResponse:
    return HttpResponse("our 500", status=500)


handler500 = broken_500

urlpatterns = [
    path("async", views.async_view),
    path("sync", views.sync_view),
    path("async-class", views.AsyncClass.as_view()),
    path("sync-class", views.SyncClass.as_view()),
    path("template", views.template),
    path("async-template", views.async_template),
    path("async-render", views.async_render),
    path("fails/<str:kind>", views.fails),
    path("sync-fails/<str:kind>", views.sync_fails),
    path("forgotten", views.forgotten),
    path("write", views.write),
    path("sync-write", views.sync_write),
    path("write-outside", views.write_outside),
    path("thread-write", views.thread_write),
    path("thread-body", views.thread_body),
    path("in-thread", views.blocking),
    path("sent-to-thread", views.sent_to_thread),
    path("decorated-in-thread", views.decorated_blocking),
    path("stream", views.stream),
    path("async-stream", views.async_stream),
    path("file", views.file),
    path("upload", views.upload),
    path("wait", views.wait),
    path("sync-wait", views.sync_wait),
    path("outer-loop", views.outer_loop),
    path("login", views.login),
    path("who", views.who),
    path("api", views.api),
    path("sleep", views.sleep),
    path("gather", views.gather),
    path("both", views.both),
]
