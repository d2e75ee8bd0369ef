from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from recordshop import rest, views
from recordshop.ninja_api import api

urlpatterns = [
    path("admin/", admin.site.urls),
    path("rest/", include(rest.router.urls)),
    path("rest/artists/", rest.ArtistList.as_view()),
    path("rest/artists/<int:pk>/", rest.ArtistDetail.as_view()),
    path("rest/whoami/", rest.whoami),
    path("ninja/", api.urls),
    path("stock", views.stock),
    path("sync-stock", views.sync_stock),
    path("shelf", views.shelf),
    path("sync-shelf", views.sync_shelf),
    path("gathered-shelf", views.gathered_shelf),
    path("filtered", views.filtered),
    path("stream", views.stream),
    path("sync-stream", views.sync_stream),
    path("login", views.login),
    path("logout", views.logout),
    path("basket", views.basket),
    path("counter", views.counter),
    path("sell-slowly", views.sell_slowly),
    path("sync-sell-slowly", views.sync_sell_slowly),
    path("pool", views.pool),
    path("threads", views.threads),
    path("favicon.ico", views.icon),
    path("__debug__/", include("debug_toolbar.urls")),
]
