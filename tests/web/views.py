"""Views of each kind.  What they saw is in the response; a test steers them by ``control``."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth import aauthenticate, aget_user, alogin
from django.core import paginator
from django.db import connections, transaction
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.template import engines
from django.template.response import TemplateResponse
from django.views import View
from library.models import Author, Publisher

import vinyl
from vinyl import _core
from web.middleware import note, tag, view_tag


class Control:
    """What a test and the views of its requests share."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.seen: list[Any] = []
        self.future: asyncio.Future[str] | None = None
        self.goes_on: Any = None
        self.call: Any = None


control: Control = None  # type: ignore[assignment]


def seen(request: HttpRequest, **more: Any) -> JsonResponse:
    note(request, "view")
    return JsonResponse(
        {
            "where": _core.where(),
            "threads": sorted(request.threads),
            "path": request.path_taken,
            "tag": tag.get(),
            **more,
        }
    )


async def async_view(request: HttpRequest) -> HttpResponse:
    view_tag.set("from view")
    count = await Publisher.vinyl.count()
    return seen(request, count=count)


def sync_view(request: HttpRequest) -> HttpResponse:
    view_tag.set("from view")
    return seen(request, count=Publisher.objects.count())


class AsyncClass(View):
    async def get(self, request: HttpRequest) -> HttpResponse:
        return seen(request, count=await Publisher.vinyl.count())


class SyncClass(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return seen(request, count=Publisher.objects.count())


def _template() -> Any:
    return engines["django"].from_string(
        "{{ hooked }}:{% for each in publishers %}{{ each.name }} {% endfor %}"
    )


def template(request: HttpRequest) -> HttpResponse:
    return TemplateResponse(request, _template(), {"publishers": Publisher.objects.all()})


async def async_template(request: HttpRequest) -> HttpResponse:
    # Not fetched: rendering does it, in the fiber.
    return TemplateResponse(request, _template(), {"publishers": Publisher.objects.all()})


class AsyncRendered(TemplateResponse):
    async def render(self) -> HttpResponse:  # type: ignore[override]
        if await Publisher.vinyl.filter(name="fail").aexists():
            raise LookupError("while rendering")
        return HttpResponse(f"rendered {await Publisher.vinyl.count()}")


async def async_render(request: HttpRequest) -> HttpResponse:
    return AsyncRendered(request, _template(), {})


def _fail(kind: str) -> None:
    from django.core.exceptions import PermissionDenied
    from django.http import Http404

    raise {
        "lookup": LookupError("x"),
        "value": ValueError("x"),
        "404": Http404("x"),
        "403": PermissionDenied("x"),
        "500": ArithmeticError("in the view"),
    }[kind]


async def fails(request: HttpRequest, kind: str) -> HttpResponse:
    await Publisher.vinyl.count()
    _fail(kind)
    raise AssertionError


def sync_fails(request: HttpRequest, kind: str) -> HttpResponse:
    _fail(kind)
    raise AssertionError


async def forgotten(request: HttpRequest) -> None:
    return None


async def write(request: HttpRequest) -> HttpResponse:
    await vinyl.gather(Publisher.vinyl.create(name="one"), Publisher.vinyl.create(name="two"))
    if "fail" in request.GET:
        raise ArithmeticError("after writing")
    return HttpResponse("written")


def sync_write(request: HttpRequest) -> HttpResponse:
    Publisher.objects.create(name="one")
    if "fail" in request.GET:
        raise ArithmeticError("after writing")
    return HttpResponse("written")


@transaction.non_atomic_requests
@transaction.non_atomic_requests("vinyl")
async def write_outside(request: HttpRequest) -> HttpResponse:
    await Publisher.vinyl.create(name="kept")
    raise ArithmeticError("after writing")


@vinyl.in_thread
def thread_write(request: HttpRequest) -> HttpResponse:
    Publisher.objects.create(name="one")
    control.seen.append(threading.get_ident())
    if "fail" in request.GET:
        raise ArithmeticError("after writing")
    return HttpResponse("written")


def _count_in_thread() -> int:
    control.seen.append((threading.get_ident(), connections["default"]))
    return Publisher.objects.count()


async def sent_to_thread(request: HttpRequest) -> HttpResponse:
    count = await sync_to_async(_count_in_thread)()
    control.seen.append(control.seen[0][1].connection)
    if "fail" in request.GET:
        raise ArithmeticError("after counting")
    return HttpResponse(str(count))


@vinyl.in_thread
def thread_body(request: HttpRequest) -> HttpResponse:
    control.call()
    control.goes_on.wait(30)
    control.seen.append(len(request.body))
    return HttpResponse("read")


@vinyl.in_thread
def blocking(request: HttpRequest) -> HttpResponse:
    view_tag.set("from thread")
    # Answered by the loop that the request runs on, which therefore is not blocked.
    answer = async_to_sync(_answer)()
    return JsonResponse(
        {
            "where": _core.where(),
            "thread": threading.get_ident(),
            "tag": tag.get(),
            "count": Publisher.objects.count(),
            "answer": answer,
        }
    )


def _decorator(view: Any) -> Any:
    from functools import wraps

    @wraps(view)
    def inner(request: HttpRequest) -> HttpResponse:
        return view(request)

    return inner


decorated_blocking = _decorator(blocking)


async def _answer() -> str:
    await asyncio.sleep(0)
    assert control.future is not None
    return await control.future


def outer_loop(request: HttpRequest) -> HttpResponse:
    # The test resolves the future from another task of the same loop.
    control.reached.set()
    answer = async_to_sync(_answer)()
    assert _core.where() == _core.FIBER
    return HttpResponse(answer)


def stream(request: HttpRequest) -> HttpResponse:
    def rows() -> Iterator[str]:
        try:
            for each in Publisher.objects.order_by("pk").iterator(chunk_size=1):
                control.seen.append(_core.where())
                yield f"{each.name},"
        finally:
            control.seen.append("closed")

    return StreamingHttpResponse(rows())


async def async_stream(request: HttpRequest) -> HttpResponse:
    async def rows() -> AsyncIterator[str]:
        try:
            async for each in Publisher.vinyl.order_by("pk").iterator(chunk_size=1):
                control.seen.append(_core.where())
                yield f"{each.name},"
        finally:
            control.seen.append("closed")

    return StreamingHttpResponse(rows())


def file(request: HttpRequest) -> HttpResponse:
    return FileResponse(open(__file__, "rb"))


def upload(request: HttpRequest) -> HttpResponse:
    data = request.FILES["file"]
    return JsonResponse(
        {"size": data.size, "class": type(data).__name__, "last": data.read()[-4:].decode()}
    )


async def wait(request: HttpRequest) -> HttpResponse:
    async with vinyl.atomic():
        await Publisher.vinyl.create(name="waits")
        control.reached.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            control.seen.append("cancelled")
            raise
    raise AssertionError


def sync_wait(request: HttpRequest) -> HttpResponse:
    with transaction.atomic():
        Publisher.objects.create(name="waits")
        control.reached.set()
        try:
            _core._sleep(60)
        except asyncio.CancelledError:
            control.seen.append("cancelled")
            raise
    raise AssertionError


async def login(request: HttpRequest) -> HttpResponse:
    user = await aauthenticate(request, username="ann", password="secret")
    await alogin(request, user)
    await request.session.aset("visits", 1)
    return HttpResponse("in")


async def who(request: HttpRequest) -> HttpResponse:
    user = await request.auser()
    again = await aget_user(request)
    visits = await request.session.aget("visits")
    await request.session.aset("visits", visits + 1)
    groups = [each async for each in user.groups.all()]
    return JsonResponse(
        {
            "user": user.username,
            "same": user == again,
            "visits": visits,
            "groups": groups,
            "may": await user.ahas_perm("library.add_author"),
        }
    )


async def api(request: HttpRequest) -> HttpResponse:
    """Django's own a-methods, one of each kind."""
    author = await Author.objects.acreate(name="Ann")
    author.name = "Anna"
    await author.asave()
    book = await author.books.acreate(title="First")
    await book.genres.aset([])
    found = await Author.objects.aget(pk=author.pk)
    names = [each.name async for each in Author.objects.all()]
    many = [each.name async for each in Author.objects.aiterator(chunk_size=1)]
    await found.arefresh_from_db()
    await book.adelete()
    pages = 1
    if hasattr(paginator, "AsyncPaginator"):  # Django 6.0
        page = await paginator.AsyncPaginator(Author.objects.order_by("pk"), 1).apage(1)
        assert [each.name async for each in page] == names
        pages = await page.paginator.anum_pages()
    return JsonResponse({"names": names, "many": many, "pages": pages})


async def sleep(request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(1)
    raise AssertionError


async def gather(request: HttpRequest) -> HttpResponse:
    return JsonResponse(await asyncio.gather(Publisher.vinyl.count()), safe=False)


async def both(request: HttpRequest) -> HttpResponse:
    first, second = await vinyl.gather(Publisher.vinyl.count(), Author.vinyl.count())
    return JsonResponse([first, second], safe=False)
