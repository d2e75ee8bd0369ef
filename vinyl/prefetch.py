"""``prefetch_related_objects()``, whose lookups travel together where none needs another one.

Django looks up one after the other, a round trip for each level of each. Here those that begin
with different relations, `grouped`, go to Django's own function side by side, each group in a
strand of its own (`_core.together`): what comes to a SELECT waits until all the others have, and
these SELECTs are sent at once.

That is right only if no group reads or sets what another one sets. Each sets its own attribute of
the instances given, and attributes of those that it has fetched itself. So nothing may lead back
to the instances given, nor to ones that another group has too; and what is no relation of Django's
may read anything. From the first lookup on that is not as it should be, all is as ever.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

from django.db import connections
from django.db import models as django_models
from django.db.models import Model, Prefetch
from django.db.models import query as django_query
from django.db.models.fields.related_descriptors import (
    ForwardManyToOneDescriptor,
    ManyToManyDescriptor,
    ReverseManyToOneDescriptor,
    ReverseOneToOneDescriptor,
)
from django.db.models.manager import BaseManager
from greenlet import getcurrent

from vinyl import direct
from vinyl._core import LOOP, Unchanged, together, where
from vinyl.generic import GenericForward
from vinyl.originals import is_original, methods_unchanged
from vinyl.related import RelatedMixin, looked_up

__all__ = ["grouped", "install"]

_django = django_query.prefetch_related_objects
_PREFETCHED = "_prefetched_objects_cache"


def install() -> None:
    """Take the place of Django's function, if nobody else has. Idempotent."""
    for module in (django_query, django_models):
        if module.prefetch_related_objects is _django and is_original(_django):
            module.prefetch_related_objects = prefetch_related_objects


@functools.wraps(_django)
def prefetch_related_objects(model_instances: Any, *related_lookups: Any) -> None:
    if len(related_lookups) > 1 and type(model_instances) is list and model_instances:
        link = _link_of(model_instances[0])
        if link is not None:
            groups, related_lookups = grouped(model_instances, related_lookups)
            if groups:
                _together(link, model_instances, groups)
    _django(model_instances, *related_lookups)


def _link_of(instance: Any) -> Any:
    """The connection by which it was fetched, where its statements can be sent together and
    nobody would notice."""
    if where() == LOOP or not isinstance(instance, Model) or instance._state.db is None:
        return None
    session = connections[instance._state.db]
    if session.vendor != "postgresql" or not direct.unseen(session):
        return None
    return session.connection


def _together(link: Any, instances: list[Any], groups: dict[str, Group]) -> None:
    before = {name for kept in _kept(instances[0]) for name in kept}
    link.parks += 1
    try:
        together([functools.partial(each.run, instances) for each in groups.values()])
    finally:
        link.parks -= 1
    names = [name for name in groups if name not in before]
    for kept in _kept(instances[0]):
        if [name for name in kept if name in names] != [name for name in names if name in kept]:
            _put_in_order(instances, names)


def _kept(instance: Any) -> Iterator[dict[str, Any]]:
    """Where the results of lookups are kept."""
    yield instance.__dict__.get(_PREFETCHED, {})
    yield instance._state.fields_cache
    yield instance.__dict__


def _put_in_order(instances: list[Any], names: list[str]) -> None:
    """Django's: a group that took more than one statement for its first relation came late."""
    for instance in instances:
        for kept in _kept(instance):
            for name in names:
                if name in kept:
                    kept[name] = kept.pop(name)


# --- which may go side by side


def grouped(instances: list[Any], lookups: tuple[Any, ...]) -> tuple[dict[str, Group], Any]:
    """The lookups of which each group can be looked up without the others, by the name of the
    attribute that it sets; and the others, which come after. No groups where it changes nothing."""
    model = type(instances[0])
    key = model, *map(_key, lookups)
    shape = _shapes.get(key)
    if shape is None or not shape.holds():
        if len(_shapes) >= _MOST_SHAPES:
            _shapes.clear()
        shape = _shapes[key] = _Shape(model, lookups)
    if not shape.walks:
        return {}, lookups
    groups = {walk.name: Group(walk, lookups) for walk in shape.walks}
    # What was there before may lead anywhere, and to the same instances.
    had = [group for group in groups.values() if group.walk.is_deep and group.is_begun(instances)]
    if any(group.walk.returns or not group.is_done(instances) for group in had):
        return {}, lookups
    for group in had:
        group.forks = False
        if group is not had[0]:
            had[0].lookups += groups.pop(group.walk.name).lookups
    if len(groups) < 2 and not any(group.forks for group in groups.values()):
        return {}, lookups
    return groups, lookups[shape.count :]


def _key(lookup: Any) -> Any:
    """All of a lookup that its way depends on."""
    if isinstance(lookup, str):
        return lookup
    if _split(lookup) is None:
        return type(lookup), None
    more = None if lookup.queryset is None else tuple(map(_key, _more(lookup.queryset)))
    return type(lookup), lookup.prefetch_through, lookup.prefetch_to, more


def _more(queryset: Any) -> tuple[Any, ...]:
    found: tuple[Any, ...] = getattr(queryset, "_prefetch_related_lookups", ())
    return found


_shapes: dict[Any, _Shape] = {}
_MOST_SHAPES = 1000


class _Shape:
    """What is known of lookups of a model's instances, and what has to be as it was then."""

    __slots__ = ("_classes", "_managers", "count", "walks")

    def __init__(self, model: type[Model], lookups: tuple[Any, ...]) -> None:
        walks: dict[str, _Walk] = {}
        met = _Met()
        #: How many lookups the groups have.
        self.count = len(lookups)
        for n, lookup in enumerate(lookups):
            parts = _split(lookup)
            name = "" if parts is None else parts[1][0]
            walk = walks.get(name) or _Walk(model, name, met)
            if not walk.add(n, lookup):
                self.count = n
                break
            walks[name] = walk
        rest = map(_split, lookups[self.count :])
        if any(parts is None or parts[1][0] in walks for parts in rest):
            walks = {}
        self.walks = tuple(walks.values())
        self._classes = Unchanged(model, *met.classes)
        self._managers = met.managers

    def holds(self) -> bool:
        return self._classes() and all(manager.holds() for manager in self._managers)


class _Met:
    """What a walk came by."""

    def __init__(self) -> None:
        self.classes: set[type] = set()
        self.managers: list[_Manager] = []


class _Manager(NamedTuple):
    """That of a relation. No guard: each manager that is made changes BaseManager."""

    cls: type[RelatedMixin] | type[BaseManager[Any]]
    method: Any
    descriptor: Any
    plain: bool

    def holds(self) -> bool:
        if self.descriptor is None:
            return self.cls.get_queryset is self.method
        cls: Any = self.descriptor.related_manager_cls
        return (
            cls is self.cls
            and cls.get_prefetch_querysets is self.method
            and cls.prefetches_nothing() is self.plain
        )


class Group:
    """Lookups that begin with the same attribute, in their order."""

    def __init__(self, walk: _Walk, lookups: tuple[Any, ...]) -> None:
        self.walk = walk
        self.lookups = [lookups[n] for n in walk.numbers]
        self.forks = walk.forks

    def _kept_of(self, instance: Any) -> Any:
        """Where an instance has the group's attribute."""
        if self.walk.is_to_attr:
            return instance.__dict__
        if self.walk.is_single:
            return instance._state.fields_cache
        return getattr(instance, _PREFETCHED, {})

    def is_begun(self, instances: list[Any]) -> bool:
        """Whether any instance has the group's attribute already."""
        return any(self.walk.name in self._kept_of(each) for each in instances)

    def is_done(self, instances: list[Any]) -> bool:
        return all(self.walk.name in self._kept_of(each) for each in instances)

    def run(self, instances: list[Any]) -> None:
        """Looks them up; where they fork, the first relation first, then what is of its end."""
        if not self.forks:
            _django(instances, *self.lookups)
            return
        first = self.lookups[0]
        is_whole = len(_parts(first)[1]) == 1
        looked_up[getcurrent()] = (), self.walk.name
        try:
            _django(instances, first if is_whole else self.walk.name)
        finally:
            found, name = looked_up.pop(getcurrent(), ((), self.walk.name))
        if self.walk.is_to_attr:
            name = self.walk.name
        ends = {id(end): end for each in instances for end in self._ends_of(each, name)}
        # Of several instances of the same row, the last one is what others are related to.
        in_order = [end for end in found if id(end) in ends]
        if len(in_order) != len(ends):
            in_order = [*ends.values()]
        deeper = self.lookups[1:] if is_whole else self.lookups
        prefetch_related_objects(in_order, *map(_without_first, deeper))

    def _ends_of(self, instance: Any, name: str) -> Any:
        end = self._kept_of(instance).get(name)
        return () if end is None else (end,) if self.walk.is_single else end


def _without_first(lookup: Any) -> Any:
    if isinstance(lookup, str):
        return lookup.partition("__")[2]
    lookup = copy.copy(lookup)
    lookup.prefetch_through = lookup.prefetch_through.partition("__")[2]
    lookup.prefetch_to = lookup.prefetch_to.partition("__")[2]
    return lookup


# --- where they lead


def _parts(lookup: Any) -> tuple[list[str], list[str]]:
    """The relations that it goes through, and the attributes that it sets."""
    if isinstance(lookup, str):
        names = lookup.split("__")
        return names, names
    return lookup.prefetch_through.split("__"), lookup.prefetch_to.split("__")


def _split(lookup: Any) -> tuple[list[str], list[str]] | None:
    """The same, where it is a lookup of Django's."""
    ours = isinstance(lookup, Prefetch) and type(lookup).__module__ in _PREFETCH_MODULES
    return _parts(lookup) if ours or isinstance(lookup, str) else None


#: Of Prefetch and GenericPrefetch, whose import would need the contenttypes app.
_PREFETCH_MODULES = (Prefetch.__module__, "django.contrib.contenttypes.prefetch")


class _Relation(NamedTuple):
    """Of what a lookup goes through."""

    #: Whose instances are at its end; None: any.
    model: type[Model] | None
    single: bool
    #: Whether its manager's querysets are known to prefetch nothing of their own.
    plain: bool


class _Walk:
    """Where the lookups of a group lead."""

    def __init__(self, root: type[Model], name: str, met: _Met) -> None:
        self.name = name
        #: Which of the lookups they are.
        self.numbers: list[int] = []
        #: Of the attribute that they begin with.
        self.is_single = self.is_to_attr = False
        #: Something is looked up of what was found.
        self.is_deep = False
        #: That may be instances of the model given, fetched anew.
        self.returns = False
        #: After the first relation there is more than one way.
        self.forks = False
        self._root = root
        self._met = met
        self._done: dict[tuple[str, ...], _Relation] = {}
        self._ways: dict[tuple[str, ...], set[str]] = {}
        self._is_plain = True

    def add(self, number: int, lookup: Any) -> bool:
        """Whether the lookup touches only what the group itself has fetched."""
        if not self._goes(self._root, (), lookup):
            return False
        to = _parts(lookup)[1]
        for n in range(1, len(to)):
            self._ways.setdefault(tuple(to[:n]), set()).add(to[n])
        if len(to) == 1 and (
            self.numbers or (not isinstance(lookup, str) and _more(lookup.queryset))
        ):
            self._is_plain = False  # more than the first relation before what is of its end
        self.numbers.append(number)
        self.is_single = self._done[(self.name,)].single
        self.forks = self._is_plain and any(len(ways) > 1 for ways in self._ways.values())
        return True

    def _goes(self, model: type[Model], path: tuple[str, ...], lookup: Any) -> bool:
        parts = _split(lookup)
        if parts is None:
            return False
        queryset = None if isinstance(lookup, str) else lookup.queryset
        count = len(parts[0])
        for name, attribute in zip(*parts, strict=True):
            relation = self._done.get(path)
            if relation is not None:
                if not self._goes_on(relation) or relation.model is None:
                    return False
                model = relation.model
            path = (*path, attribute)
            count -= 1
            if path in self._done:
                if count == 0 and not isinstance(lookup, str):
                    return False  # maybe Django's error
                continue
            found = _relation(model, name, self._met)
            if found is None or not (found.plain or (count == 0 and queryset is not None)):
                return False
            if name != attribute:
                if hasattr(model, attribute):
                    return False
                self.is_to_attr |= len(path) == 1
            self._done[path] = found
        found = self._done[path]
        return all(
            found.model is not None and self._goes(found.model, path, more)
            for more in _more(queryset)
        )

    def _goes_on(self, relation: _Relation) -> bool:
        """Whether what the relation gives are instances that nobody else has."""
        self.is_deep = True
        if relation.model is None or not _is_made_anew(relation.model):
            return False
        if _is_related(relation.model, self._root):
            self.returns = True
            return not relation.single
        return True


def _is_related(one: type[Model], other: type[Model]) -> bool:
    """Whether an instance of the one may be an instance of the other."""
    a, b = one._meta.concrete_model, other._meta.concrete_model
    return issubclass(a, b) or issubclass(b, a)


def _is_made_anew(model: type[Model]) -> bool:
    """Whether each row gives an instance: no code of the model's own gives one that is kept."""
    return (
        getattr(model.from_db, "__func__", None) is Model.from_db.__func__  # type: ignore[attr-defined]
        and model.__new__ is object.__new__
        and type(model).__call__ is type.__call__
    )


_READ = ("__get__", "__set__", "get_prefetch_querysets", "get_queryset", "is_cached")


def _relation(model: type[Model], name: str, met: _Met) -> _Relation | None:
    """What Django's function would go through, if that is as Django wrote it."""
    descriptor: Any = getattr(model, name, None)
    cls = type(descriptor)
    met.classes |= {model, cls}
    # What vinyl has put before somebody's class hides its methods, and calls them.
    if descriptor is None or not all(
        methods_unchanged(each, _READ) for each in (cls, *cls.__bases__)
    ):
        return None
    if isinstance(descriptor, ForwardManyToOneDescriptor):
        return _single(descriptor.field.remote_field.model, met)
    if isinstance(descriptor, ReverseOneToOneDescriptor):
        return _single(descriptor.related.related_model, met)
    if isinstance(descriptor, ReverseManyToOneDescriptor):
        return _many(descriptor, met)
    if isinstance(descriptor, GenericForward):
        return _Relation(None, single=True, plain=True)
    return None


def _single(model: type[Model], met: _Met) -> _Relation:
    cls = type(model._base_manager)
    plain = cls.get_queryset is BaseManager.get_queryset
    met.managers.append(_Manager(cls, cls.get_queryset, None, plain))
    return _Relation(model, single=True, plain=plain)


def _many(descriptor: Any, met: _Met) -> _Relation | None:
    rel = descriptor.rel
    manager = descriptor.related_manager_cls
    if not issubclass(manager, RelatedMixin) or not is_original(manager.get_prefetch_querysets):
        return None
    generic = hasattr(rel.field, "content_type_field_name")
    many = isinstance(descriptor, ManyToManyDescriptor)
    model = rel.model if generic or (many and not descriptor.reverse) else rel.related_model
    plain = manager.prefetches_nothing()
    met.managers.append(_Manager(manager, manager.get_prefetch_querysets, descriptor, plain))
    return _Relation(model, single=False, plain=plain)
