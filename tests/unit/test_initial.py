"""New instances made in C are what Django's Model.__init__ makes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from django.db import models
from django.db.models import DEFERRED
from django.db.models.signals import post_init, pre_init
from fix_engine import Engine
from library.models import Author, Book, Genre, Sample
from made_support import made, make_model
from press.models import Kiosk

import vinyl
from vinyl import _core


def described(make: Callable[[], Any]) -> Any:
    try:
        ob = make()
    except Exception as error:
        return type(error), str(error)
    ob._state.fields_cache  # noqa: B018
    return type(ob), {**vars(ob), "_state": None}, vars(ob._state), list(vars(ob))


def both(make: Callable[[], Any]) -> tuple[Any, Any]:
    """In a coroutine, and in plain synchronous code, where it is Django's."""

    async def ours() -> Any:
        return described(make)

    return asyncio.run(ours()), described(make)


AUTHOR = Author(pk=7, name="a")
CASES: dict[str, Callable[[], Any]] = {
    "all": lambda: Genre(id=3, name="g"),
    "some": lambda: Author(name="a"),
    "another order": lambda: Author(born=None, name="a"),
    "key": lambda: Book(title="t", author_id=7, pages=3),
    "instance": lambda: Book(title="t", author=AUTHOR),
    "both": lambda: Book(title="t", author=AUTHOR, author_id=7),
    "pk": lambda: Genre(pk=3, name="g"),
    "none": lambda: Book(title=None, publisher_id=None),
    "nothing": lambda: Genre(),
    "in turn": lambda: Genre(3, "g"),
    "in turn and named": lambda: Genre(3, name="g"),
    "twice": lambda: Genre(3, id=3),
    "too many": lambda: Genre(3, "g", 4),
    "unknown": lambda: Genre(name="g", nothing=3),
    "deferred": lambda: Genre(name=DEFERRED),
    "m2m": lambda: Book(title="t", genres=[1]),
    "generic": lambda: Book(title="t", notes=[1]),
    "many": lambda: Sample(text="t", big=3),
    "inherited": lambda: Kiosk(name="n", city="c"),
}


@pytest.mark.parametrize("name", CASES)
def test_equal_to_django(engine: Engine, name: str) -> None:
    fast, slow = both(CASES[name])
    assert fast == slow


def test_it_is_done_on_this_python(engine: Engine) -> None:
    async def ours() -> None:
        assert isinstance(Genre(name="g"), Genre)
        assert isinstance(Genre._meta._vinyl_initial, _core.Initial)
        assert Kiosk(name="n") is not None

    asyncio.run(ours())
    assert models.Model.__init__ is _core.model_init
    assert str(inspect.signature(Genre)) == "(*args, **kwargs)"
    assert str(inspect.signature(Genre.__init__)) == "(self, /, *args, **kwargs)"


def test_models_with_code_of_their_own(engine: Engine) -> None:
    seen: list[str] = []

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        seen.append("init")
        models.Model.__init__(self, *args, **kwargs)

    def before(self: Any, **kwargs: Any) -> None:
        self.early = 1
        models.Model.__init__(self, **kwargs)

    def put(self: Any, name: str, value: Any) -> None:
        seen.append(name)
        object.__setattr__(self, name, value)

    class Last:
        def __init__(self) -> None:
            seen.append("last")

    last = type(models.Model)(
        f"MadeLast{len(made)}",
        (models.Model, Last),
        {
            "__module__": __name__,
            "Meta": type("Meta", (), {"app_label": "library", "managed": False}),
            "f0": models.IntegerField(),
        },
    )
    made.append(last)
    for model in (
        make_model(2, __init__=init),
        make_model(2, __init__=before),
        make_model(2, __setattr__=put),
        last,
    ):
        seen.clear()
        fast, slow = both(lambda model=model: model(f0=1))
        assert fast == slow
        half = len(seen) // 2
        assert seen[:half] == seen[half:]


def test_what_changes_later_is_seen(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def doubled(self: Any, name: str, value: Any) -> None:
        object.__setattr__(self, name, value * 2 if name == "f0" else value)

    model = make_model(2)
    fast, slow = both(lambda: model(f0=1))
    assert fast == slow
    seen: list[Any] = []

    def listen(sender: Any, **kwargs: Any) -> None:
        given = kwargs.get("kwargs")  # which Django takes apart
        seen.append(kwargs["instance"].f0 if given is None else dict(given))

    for signal in (pre_init, post_init):
        signal.connect(listen, sender=model)
    try:
        fast, slow = both(lambda: model(f0=1))
    finally:
        for signal in (pre_init, post_init):
            signal.disconnect(listen, sender=model)
    assert fast == slow
    assert seen == [{"f0": 1}, 1] * 2
    with monkeypatch.context() as patch:
        patch.setattr(model, "__setattr__", doubled)
        fast, slow = both(lambda: model(f0=1))
        assert fast == slow
    fast, slow = both(lambda: model(f0=1))
    assert fast == slow
    model._meta.get_field("f1").default = lambda: 5
    del model._meta.get_field("f1").__dict__["_get_default"]
    model.add_to_class("f2", models.CharField(max_length=3))
    fast, slow = both(lambda: model(f0=1, f2="x"))
    assert fast == slow
    assert fast[1]["f1"] == 5


def test_defaults_that_fail(engine: Engine) -> None:
    def fail() -> None:
        raise LookupError("no default")

    model = make_model(1, late=models.IntegerField(default=fail))
    fast, slow = both(lambda: model(f0=1))
    assert fast == slow == (LookupError, "no default")


def test_no_reference_is_lost_or_kept(engine: Engine) -> None:
    import sys

    model = make_model(2)
    value = object()

    async def ours() -> None:
        before = sys.getrefcount(value)
        obs = [model(f0=value) for _ in range(10)]
        assert sys.getrefcount(value) == before + 10
        del obs
        assert sys.getrefcount(value) == before

    asyncio.run(ours())


def test_where_it_is_used(engine: Engine) -> None:
    async def work() -> tuple[Any, Any]:
        author = await Author.vinyl.create(name="a")
        books = await Book.vinyl.bulk_create([Book(title=str(n), author=author) for n in range(3)])
        more = await Book.vinyl.bulk_create(
            [Book(title=str(n), author_id=author.pk) for n in range(3, 6)]
        )
        assert [(await book.author) == author for book in (*books, *more)] == [True] * 6
        assert all(book._state.db == engine.alias for book in more)
        return author, await Book.vinyl.count()

    _author, count = vinyl.drive(work())
    assert count == 6


def test_a_model_that_keeps_changing_is_left_to_django(engine: Engine) -> None:
    model = make_model(1)

    async def ours() -> None:
        for n in range(40):
            model.count = n
            assert model(f0=n).f0 == n

    asyncio.run(ours())
    assert model._meta._vinyl_initial is None
