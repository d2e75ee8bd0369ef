"""Related managers, whose methods are awaited where a coroutine calls them."""

from __future__ import annotations

import functools
from typing import Any

from asgiref.sync import markcoroutinefunction
from django.db.models import ForeignObject, Manager, Model
from django.db.models.manager import BaseManager
from greenlet import getcurrent

from vinyl import _core, rows
from vinyl._core import FIBER, PLAIN, Operation, where, written_in_coroutine
from vinyl.exceptions import NotFetched
from vinyl.holding import held_together
from vinyl.instance import adopt, alias_of, awaits
from vinyl.originals import is_original
from vinyl.queryset import (
    DEFAULT_CHUNK,
    TERMINALS,
    VinylQuerySetMixin,
    awaitable_queryset,
    custom_methods,
    start_planned,
    tried,
)

_OWN = ("add", "remove", "set", "clear")
_NAMES = (*TERMINALS, *_OWN)
# What Django's related managers have that managers have not.
_RELATED = {*_OWN, *("a" + name for name in _OWN), "get_prefetch_querysets", "get_content_type"}


#: Strand -> the queryset that a relation has prefetched in it last, and the name by which that is
#: kept, where the strand asks for it.
looked_up: dict[Any, Any] = {}


def note_looked_up(answer: tuple[Any, ...]) -> tuple[Any, ...]:
    """What ``get_prefetch_querysets()`` answers."""
    if looked_up and getcurrent() in looked_up:
        looked_up[getcurrent()] = answer[0], answer[4]
    return answer


class RelatedMixin:
    """Put before a related manager class that Django has made."""

    instance: Model

    def get_queryset(self) -> Any:
        queryset = super().get_queryset()  # type: ignore[misc]
        # A prefetched one may be of VinylQuerySet, whatever the default manager is.
        if awaits(self.instance) or isinstance(queryset, VinylQuerySetMixin):
            awaitable_queryset(queryset, strict=True)
        # Django has put down what it is to be filtered by, and touched nothing yet.
        if (
            queryset._deferred_filter
            and where() != PLAIN
            and alias_of(self.instance) is not None
            and _starts_as_djangos(type(self))
        ):
            start_planned(queryset)
        return queryset

    def __call__(self, *, manager: str) -> Any:
        other = super().__call__(manager=manager)  # type: ignore[misc]
        return awaitable_manager_class(type(other), self._vinyl_rel)(self.instance)

    _vinyl_rel: Any = None
    #: See `vinyl.holding`.
    _vinyl_known: Any = None

    def iterator(self, chunk_size: int | None = None) -> Any:
        queryset: Any = self.get_queryset()
        if awaits(self.instance) and written_in_coroutine():
            return queryset.aiterator(chunk_size or DEFAULT_CHUNK)
        return queryset.iterator(chunk_size)

    #: Whether a queryset of this class was seen to have lookups of its own; None: none was seen.
    _vinyl_prefetches: bool | None = None

    @classmethod
    def prefetches_nothing(cls) -> bool:
        return _starts_as_djangos(cls) or cls._vinyl_prefetches is False

    def get_prefetch_querysets(self, instances: Any, querysets: Any = None) -> Any:
        answer = note_looked_up(self._vinyl_prefetch_querysets(instances, querysets))
        cls = type(self)
        if not querysets and cls._vinyl_prefetches is not True and not _starts_as_djangos(cls):
            cls._vinyl_prefetches = bool(getattr(answer[0], "_prefetch_related_lookups", ()))
        return answer

    def _vinyl_prefetch_querysets(self, instances: Any, querysets: Any) -> Any:
        prefetch = super().get_prefetch_querysets  # type: ignore[misc]
        field = getattr(self, "field", None)
        if field is None or not _has_simple_key(field):
            return prefetch(instances, querysets)
        self.field = known = _Known(field, self.model, instances[0])  # type: ignore[attr-defined]
        rows.prefetches.append(known)
        try:
            return known.answer(prefetch(instances, querysets))
        finally:
            rows.prefetches.remove(known)
            self.field = field

    def _vinyl_settle(self) -> None:
        """Called in the fiber, before a method runs."""


def _starts_as_djangos(manager_class: Any) -> bool:
    """Whether its querysets start with a new Query: of the manager that Django derived it from."""
    base = manager_class.__bases__[1].__bases__[0]
    get_queryset = base.get_queryset
    # No guard: each manager that is made changes BaseManager, which counts them.
    return get_queryset is BaseManager.get_queryset and is_original(get_queryset)


def _has_simple_key(field: Any) -> bool:
    """Whether Django's own methods find out, by one column, what an object is related to."""
    columns = getattr(field, "local_related_fields", ())
    cls = type(field)
    return (
        len(columns) == 1
        and not columns[0].primary_key
        and isinstance(field, ForeignObject)
        and all(getattr(cls, name) is getattr(ForeignObject, name) for name in _KEY_METHODS)
    )


_KEY_METHODS = (
    "get_local_related_value",
    "get_foreign_related_value",
    "get_instance_value_for_fields",
    "is_cached",
    "set_cached_value",
)


class _Known:
    """A related manager's field while Django prefetches: it notes the instances as Django asks
    for their keys, so that an object is related as it is made (`rows`), or else as soon as it is
    asked whether it is."""

    def __init__(self, field: Any, model: type[Model], first: Model) -> None:
        self._field = field
        self._instances: dict[Any, Model] = {}
        self.attname = field.local_related_fields[0].attname
        self.relation = _core.KnownRelation(self.attname, field.cache_name, self._instances)
        self._key_of_related = self.relation.key
        self.is_cached = self.relation.relate
        # How its queryset is known.
        self.model = model
        self.first = first
        self.fiber = getcurrent()
        self.queryset: Any = None

    def made(self) -> None:
        """All objects of the queryset have been made."""
        if self.queryset is not None and not self.relation.missed:
            self.is_cached = self.relation.related

    def __getattr__(self, name: str) -> Any:
        return getattr(self._field, name)

    def get_foreign_related_value(self, instance: Model) -> Any:
        value = self._field.get_foreign_related_value(instance)
        self._instances[value[0]] = instance
        return value

    def answer(self, answer: tuple[Any, ...]) -> tuple[Any, ...]:
        """Django's answer has functions that give the key of a related object, and the same of
        an instance: here a value in place of a tuple of one."""
        found, of_related, of_instance, *rest = answer
        if self.queryset is not None and found is not self.queryset:
            for ob in found:  # those of another queryset were taken for these
                self.relation.relate(ob)
        if (
            of_related != self._field.get_local_related_value
            or of_instance != self.get_foreign_related_value
        ):
            return answer
        key_of = self._field.get_foreign_related_value

        def first(instance: Model) -> Any:
            return key_of(instance)[0]

        return found, self._key_of_related, first, *rest


class GenericRelatedMixin(RelatedMixin):
    """Django looks up the content type when the manager is made; in a coroutine, where that
    cannot be done, it is named instead and looked up before the first method runs."""

    _vinyl_late = False

    def __init__(self, instance: Any = None) -> None:
        try:
            super().__init__(instance)  # type: ignore[call-arg]
        except NotFetched:
            self._vinyl_late = True
            self._vinyl_name_content_type(instance)
        else:
            self._vinyl_late = False

    def _vinyl_name_content_type(self, instance: Model) -> None:
        field = self._vinyl_rel.field
        meta = instance._meta.concrete_model._meta if field.for_concrete_model else instance._meta
        self.content_type_field_name = field.content_type_field_name
        self.object_id_field_name = field.object_id_field_name
        self.prefetch_cache_name = field.attname
        self.pk_val = instance.pk
        self.core_filters = {
            f"{field.content_type_field_name}__app_label": meta.app_label,
            f"{field.content_type_field_name}__model": meta.model_name,
            field.object_id_field_name: instance.pk,
        }

    def _vinyl_settle(self) -> None:
        if self._vinyl_late:
            self.__init__(self.instance)  # type: ignore[misc]


def _in_fiber(method: Any) -> Any:
    """The method as an operation calls it, under its own name for messages."""

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._vinyl_settle()
        return method(self, *_adopted(method, args), **kwargs)

    return call


def _adopted(method: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    if method.__name__ == "set" and args:
        args = (tuple(args[0]), *args[1:])
        adopt(args[0])
    else:
        adopt(args)
    return args


def _method(method: Any) -> Any:
    call = _in_fiber(method)

    @functools.wraps(method)
    def start(self: Any, *args: Any, **kwargs: Any) -> Any:
        if awaits(self.instance) and written_in_coroutine():
            return Operation(call, (self, *args), kwargs)
        if where() == FIBER and method.__name__ in _OWN:
            return call(self, *args, **kwargs)
        return method(self, *args, **kwargs)

    return start


def _custom_method(method: Any) -> Any:
    """A method of the user's own manager or queryset. In a coroutine it is tried where it is
    called, so that it can give a queryset; what needs I/O runs in a fiber, from its start."""
    call = _in_fiber(method)

    @functools.wraps(method)
    def start(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not (awaits(self.instance) and written_in_coroutine()):
            return method(self, *args, **kwargs)
        return tried(call, (self, *args), kwargs)

    return start


def _async_method(method: Any, name: str) -> Any:
    @functools.wraps(method)
    def start(self: Any, *args: Any, **kwargs: Any) -> Any:
        if awaits(self.instance):
            return Operation(_settled, (self, name, args, kwargs))
        return method(self, *args, **kwargs)

    return markcoroutinefunction(start)


def _settled(manager: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    manager._vinyl_settle()
    return getattr(manager, name)(*args, **kwargs)


@functools.cache
def awaitable_manager_class(base: Any, rel: Any) -> type:
    """`base` with its methods awaited in coroutines; `rel` is the relation it manages."""
    if issubclass(base, RelatedMixin):
        return base
    names: dict[str, Any] = {
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
        "_vinyl_rel": rel,
    }
    for name in _NAMES:
        if hasattr(base, name):
            method = getattr(base, name)
            if name in _OWN and rel.field.many_to_many:
                method = held_together(method)
            names[name] = _method(method)
        if hasattr(base, "a" + name):
            names["a" + name] = _async_method(getattr(base, "a" + name), name)
    for name in custom_methods(base, Manager):
        if name not in _RELATED:
            names[name] = _custom_method(getattr(base, name))
    mixin = GenericRelatedMixin if hasattr(rel.field, "content_type_field_name") else RelatedMixin
    return type(base.__name__, (mixin, base), names)
