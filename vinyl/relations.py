"""Reading relations: the descriptors of one model, adapted in place.

Each of Django's descriptors gets a subclass made of a mixin and its own class,
whatever that is, and keeps its identity and state.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from django.db.models import Model
from django.db.models.fields.related_descriptors import (
    ForwardManyToOneDescriptor,
    ReverseManyToOneDescriptor,
    ReverseOneToOneDescriptor,
)
from django.db.models.query_utils import DeferredAttribute
from django.utils.functional import cached_property

from vinyl._core import Operation, awaited_expression, read_attribute
from vinyl.exceptions import NotFetched
from vinyl.frames import written_as_attribute
from vinyl.generic import GenericForward
from vinyl.instance import adopt, awaits, is_unsettled, settle
from vinyl.pending import Pending, not_fetched
from vinyl.reading import in_coroutine, read_relation
from vinyl.related import awaitable_manager_class, note_looked_up


def adapt_descriptors(model: type[Model]) -> None:
    """Adapts what Django has put on this very class; what it inherits stands on the parents."""
    for value in [*model.__dict__.values()]:
        mixin = _mixin_for(value)
        if mixin is not None and not isinstance(value, mixin):
            value.__class__ = _adapted(mixin, type(value))
            value.__dict__.pop("related_manager_cls", None)


def _mixin_for(value: Any) -> type | None:
    for base, mixin in _MIXINS:
        if isinstance(value, base):
            return mixin
    # Importing it would need the contenttypes app.
    generic = sys.modules.get("django.contrib.contenttypes.fields")
    if generic is not None:
        # Up to Django 5.2 the field is its own descriptor.
        base = getattr(generic, "GenericForeignKeyDescriptor", generic.GenericForeignKey)
        if isinstance(value, base):
            return GenericForward
    return None


@functools.cache
def _adapted(mixin: type, base: Any) -> type:
    names = {"__module__": base.__module__, "__qualname__": base.__qualname__}
    if mixin is Deferred and base.__get__ is DeferredAttribute.__get__:
        mixin = PlainDeferred
    return type(base.__name__, (mixin, base), {**names, "__doc__": base.__doc__})


def _read(name: str | None, get: Callable[..., Any], instance: Any, cls: Any) -> Any:
    """What a synchronous function reads: a template, say, that a coroutine has called."""
    try:
        return get(instance, cls)
    except NotFetched:
        raise not_fetched(f"{type(instance).__name__}.{name}") from None


class Single:
    """A relation to one instance."""

    def get_prefetch_querysets(self, instances: Any, querysets: Any = None) -> Any:
        get = super().get_prefetch_querysets  # type: ignore[misc]
        return note_looked_up(get(instances, querysets))


class Forward(Single):
    """A foreign key or one-to-one field."""

    field: Any

    def __get__(self, instance: Any, cls: Any = None) -> Any:
        get = super().__get__  # type: ignore[misc]
        field = self.field
        if instance is None or not in_coroutine(instance):
            return _read(field.name, get, instance, cls)
        unfetched = (
            not field.is_cached(instance)
            and not field.remote_field.parent_link
            and field.model is type(instance)
            and field.column is not None
            and instance.__dict__.get(field.attname, self) is not None
        )
        return read_relation(
            f"{type(instance).__name__}.{field.name}", unfetched, get, instance, cls
        )

    def __set__(self, instance: Any, value: Any) -> None:
        if isinstance(value, Pending):
            raise not_fetched(value._vinyl_label)
        if value is not None and awaits(instance):
            adopt((instance, value))
        super().__set__(instance, value)  # type: ignore[misc]


class ReverseOne(Single):
    """The other end of a one-to-one field."""

    related: Any

    def __get__(self, instance: Any, cls: Any = None) -> Any:
        get = super().__get__  # type: ignore[misc]
        if instance is None or not in_coroutine(instance):
            return _read(self.related.accessor_name, get, instance, cls)
        unfetched = not self.related.is_cached(instance) and instance.pk is not None
        label = f"{type(instance).__name__}.{self.related.accessor_name}"
        # hasattr(user, "profile") asks whether there is one: a stand-in must not say yes.
        if unfetched and not awaited_expression() and not written_as_attribute():
            raise not_fetched(label)
        return read_relation(label, unfetched, get, instance, cls)

    def __set__(self, instance: Any, value: Any) -> None:
        if isinstance(value, Pending):
            raise not_fetched(value._vinyl_label)
        if value is not None and awaits(instance):
            adopt((instance, value))
        super().__set__(instance, value)  # type: ignore[misc]


class Deferred:
    """A field that ``only()`` or ``defer()`` has left out."""

    field: Any

    def __get__(self, instance: Any, cls: Any = None) -> Any:
        get = super().__get__  # type: ignore[misc]
        if instance is None or self.field.attname in instance.__dict__:
            return get(instance, cls)
        awaited = in_coroutine(instance) and awaited_expression()
        return self._vinyl_missing(get, instance, cls, awaited)

    def _vinyl_missing(
        self, get: Callable[..., Any], instance: Any, cls: Any, awaited: bool
    ) -> Any:
        label = f"{type(instance).__name__}.{self.field.attname}"
        unsettled = is_unsettled(instance, self.field.attname)
        if awaited:
            return Operation(_read_settled, (get, instance, cls))
        if unsettled:
            if awaits(instance):
                raise not_fetched(label)
            return _read_settled(get, instance, cls)
        try:
            return get(instance, cls)
        except NotFetched:
            raise not_fetched(label) from None


class PlainDeferred(Deferred):
    """The same where the descriptor reads as Django's: what is loaded is read in C."""

    __get__ = read_attribute

    def _vinyl_read(self, instance: Any, cls: Any) -> Any:
        if instance is None:
            return self
        # Looked up here, where our caller is the one that reads.
        awaited = in_coroutine(instance) and awaited_expression()
        read = functools.partial(DeferredAttribute.__get__, self)
        return self._vinyl_missing(read, instance, cls, awaited)


def _read_settled(get: Callable[..., Any], instance: Any, cls: Any) -> Any:
    settle(instance)
    return get(instance, cls)


class Many:
    """The many end of any relation: hands out a manager."""

    rel: Any

    @cached_property
    def related_manager_cls(self) -> type:
        return awaitable_manager_class(super().related_manager_cls, self.rel)  # type: ignore[misc]


_MIXINS: tuple[tuple[type, type], ...] = (
    (ForwardManyToOneDescriptor, Forward),
    (ReverseOneToOneDescriptor, ReverseOne),
    (ReverseManyToOneDescriptor, Many),
    (DeferredAttribute, Deferred),
)
