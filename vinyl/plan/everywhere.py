"""For Django's own test suite: every queryset is planned, not only those of ``Model.vinyl``."""

from __future__ import annotations

import functools
from typing import Any

from django.db.models import Manager
from django.db.models.query import QuerySet

from vinyl.rows import install as install_loops

from . import calls
from .fetch import fetch
from .query import PlannedQuery
from .statement import stats

__all__ = ["install"]


def install() -> dict[str, int]:
    """To be called before the first query; gives the counters."""
    install_loops()
    init, fetch_all, get = QuerySet.__init__, QuerySet._fetch_all, Manager.get

    @functools.wraps(init)
    def __init__(  # noqa: N807
        self: Any, model: Any = None, query: Any = None, using: Any = None, hints: Any = None
    ) -> None:
        if query is None and model is not None:
            query = PlannedQuery(model)
        init(self, model, query, using, hints)

    @functools.wraps(fetch_all)
    def _fetch_all(self: Any) -> None:
        if self._result_cache is None and type(self.query) is PlannedQuery:
            self._result_cache = fetch(self)
        fetch_all(self)

    @functools.wraps(get)
    def get_of_manager(self: Any, *args: Any, **kwargs: Any) -> Any:
        return calls.get(self, args, kwargs)

    QuerySet.__init__ = __init__  # type: ignore[method-assign]
    QuerySet._fetch_all = _fetch_all  # type: ignore[method-assign]
    Manager.get = get_of_manager  # type: ignore[method-assign]
    calls.plain_querysets.add(QuerySet)
    return stats
