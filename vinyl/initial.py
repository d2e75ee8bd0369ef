"""New instances, made in C where no code but Django's would run.

In coroutines and fibers ``Model(name=value, …)`` with names of columns alone does not go through
Django's loop over the fields. In plain synchronous code, and wherever the model or what is
given is anything else, Django's own ``__init__`` is called.
"""

from __future__ import annotations

import sys
from typing import Any

from django.db.models import DEFERRED, Model
from django.db.models.signals import post_init, pre_init

from vinyl import _core
from vinyl.compiler import hydrator_of, state_classes
from vinyl.originals import unchanged

__all__ = ["install"]


def install() -> None:
    """Takes the place of Django's ``Model.__init__``. Idempotent."""
    if Model.__init__ is not _core.model_init:
        _core.install_init(Model.__init__, _find)
        Model.__init__ = _core.model_init  # type: ignore[method-assign]


def _find(model: type[Model]) -> _core.Initial | None:
    """Asked once a model, and again after a change of it; not of one that keeps changing."""
    meta: Any = model._meta
    meta._vinyl_looks = getattr(meta, "_vinyl_looks", 0) + 1
    meta._vinyl_initial = _initial(model) if meta._vinyl_looks <= _MOST_LOOKS else None
    found: _core.Initial | None = meta._vinyl_initial
    return found


def _initial(model: type[Model]) -> _core.Initial | None:
    meta: Any = model._meta
    fields = meta.fields
    state = state_classes()
    hydrator = hydrator_of(model)
    if (
        hydrator is None
        or not hydrator.direct
        or not unchanged(*state)
        or tuple(fields) != tuple(meta.concrete_fields)
        or len(fields) > _MOST
        or any(field.generated for field in fields)
        or not _ends_with_django(model)
    ):
        return None
    return _core.Initial(
        hydrator,
        model,
        fields,
        tuple(sys.intern(field.attname) for field in fields),
        tuple(field.get_default for field in fields),
        (pre_init, post_init),
        DEFERRED,
        _core.Unchanged(*state, model),
        any(field.remote_field is not None for field in fields),
    )


_MOST = 64  # fields
_MOST_LOOKS = 16


def _ends_with_django(model: type[Model]) -> bool:
    """Whether Django's ``__init__`` ends with object's."""
    mro = model.__mro__
    after = mro[mro.index(Model) + 1 :]
    return all("__init__" not in vars(cls) for cls in after if cls is not object)
