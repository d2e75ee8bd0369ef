from django.urls import path

from . import views

urlpatterns = [
    path("", views.home, name="home"),
    path("search/", views.search, name="search"),
    path("countries/<str:iso>/", views.country, name="country"),
    path("cities/new/", views.new_city, name="new-city"),
    path("cities/<int:pk>/", views.city, name="city"),
    path("api/cities/", views.api_cities, name="api-cities"),
    path("api/cities.csv", views.export, name="export"),
    path("engine/", views.engine, name="engine"),
    path("atlas.css", views.stylesheet, name="stylesheet"),
]
