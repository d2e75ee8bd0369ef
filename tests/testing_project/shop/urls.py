"""One view, async."""

from django.http import JsonResponse
from django.urls import path

from shop.models import Customer


async def customers(request):
    if name := request.GET.get("add"):
        await Customer.vinyl.create(name=name)
    return JsonResponse({"names": [c.name async for c in Customer.vinyl.order_by("name")]})


urlpatterns = [path("customers/", customers)]
