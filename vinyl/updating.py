"""bulk_update(): Django's statements, without expressions of each value's own.

Django makes ``Case(When(pk=…, then=…), …)`` of all instances for each field, and compiles it.
Where the values are plain (see ``inserting``), all these WHENs have the same SQL, and their
parameters are known. So Django is given a few of them, and `Whens` repeats their SQL with the
parameters of all. Each statement is compiled once before anything is executed: should Django's
SQL or parameters not be as expected, Django does it all.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from django.core.exceptions import EmptyResultSet, FieldDoesNotExist, FullResultSet
from django.db import connections, transaction
from django.db.models import Case, Model, Q, QuerySet, Value, When
from django.db.models.functions import Cast
from django.db.models.sql import UpdateQuery

from vinyl import _core
from vinyl.batches import may_travel, run_together
from vinyl.inserting import BulkInsertOperations, value_rule

__all__ = ["install"]

_django: Any = QuerySet.bulk_update


def install() -> None:
    """Take the place of Django's method. Idempotent."""
    QuerySet.bulk_update = bulk_update  # type: ignore[method-assign]


@functools.wraps(_django)
def bulk_update(self: Any, objs: Any, fields: Any, batch_size: int | None = None) -> int:
    objs, fields = list(objs), list(fields or ())
    batches = _batches(self, objs, fields, batch_size)
    if batches is None:
        answer: int = _django(self, objs, fields, batch_size)
        return answer
    queryset = self.using(self.db)
    calls = [
        functools.partial(queryset.filter(pk__in=pks).update, **values) for pks, values in batches
    ]
    with transaction.atomic(using=self.db, savepoint=False):
        if len(calls) > 2 and may_travel(self.db, ()):
            return sum(run_together(self.db, calls))
        return sum(call() for call in calls)


def _batches(
    queryset: Any, objs: list[Any], names: list[Any], batch_size: int | None
) -> list[tuple[list[Any], dict[str, Any]]] | None:
    """The keys and the new values of each UPDATE; None where Django has to do it."""
    fields = _fields(queryset.model, names)
    if (
        len(objs) < 2
        or not fields
        or queryset.query.combinator
        or queryset.query.is_sliced
        or (batch_size is not None and batch_size <= 0)
        or not all(_is_plain(cls, queryset.model) for cls in set(map(type, objs)))
    ):
        return None
    pk = queryset.model._meta.pk
    raw = list(map(attrgetter(pk.attname), objs))
    if None in raw:
        return None
    for ob in objs:
        # Nothing to look at where no relation has been read or set.
        if ob._state.fields_cache:
            ob._prepare_related_fields_for_save(operation_name="bulk_update", fields=fields)
    queryset._for_write = True
    connection = connections[queryset.db]
    if not isinstance(connection.ops, BulkInsertOperations):
        return None
    keys = _column(pk, objs, connection)
    columns = [_column(field, objs, connection) for field in fields]
    if keys is None or None in columns or not _in_range(pk, raw, connection):
        return None
    most = connection.ops.bulk_batch_size([pk, pk, *fields], objs)
    size = min(batch_size, most) if batch_size else most
    batches = []
    for start in range(0, len(objs), size):
        part = slice(start, start + size)
        values: dict[str, Any] = {}
        for field, column in zip(fields, columns, strict=True):
            case: Any = Case(
                Whens.of(field, objs[part], raw[part], keys[part], column[part]),
                output_field=field,
            )
            if connection.features.requires_casted_case_in_updates:
                case = Cast(case, output_field=field)
            values[field.attname] = case
        batches.append((raw[part], values))
    return batches if _hold(queryset, batches) else None


def _is_plain(cls: Any, model: Any) -> bool:
    """Whether such an object's ``pk``, which Django looks at, is the attribute of the key."""
    return (
        issubclass(cls, Model)
        and cls._meta.concrete_model is model._meta.concrete_model
        # Not asked for: that of several columns cannot be, of a class.
        and next(vars(each)["pk"] for each in cls.__mro__ if "pk" in vars(each)) is Model.pk
        and cls._is_pk_set is Model._is_pk_set
    )


def _hold(queryset: Any, batches: list[tuple[list[Any], dict[str, Any]]]) -> bool:
    """Whether Django compiles the values to what `Whens` expects."""
    db = queryset.db
    for pks, values in batches:
        query = queryset.using(db).filter(pk=pks[0]).query.chain(UpdateQuery)
        query.add_update_values(values)
        try:
            query.get_compiler(db).as_sql()
        except Exception:
            return False  # of Django's errors, too: it raises them in its transaction
    return True


class _Unexpected(Exception):
    pass


def _fields(model: type[Model], names: list[Any]) -> list[Any] | None:
    """The fields, when all are columns of the model's own table, and so is its key."""
    opts = model._meta
    try:
        fields = [opts.get_field(name) for name in names]
    except FieldDoesNotExist:
        return None
    pk = opts.pk
    if (
        pk is None
        or pk.is_relation
        or pk.model is not opts.concrete_model
        or any(
            not getattr(field, "concrete", False)
            or field.many_to_many
            or field.primary_key
            or field.model is not opts.concrete_model
            for field in fields
        )
    ):
        return None
    return fields


def _column(field: Any, objs: list[Any], connection: Any) -> Any:
    """The parameters of a field's values, or None where its methods have to be asked."""
    rule = value_rule(field, connection)
    return None if rule is None else _core.plain_column(objs, field.attname, *rule)


def _in_range(pk: Any, keys: list[Any], connection: Any) -> bool:
    """Whether a comparison with each key is one, and not known to be false."""
    if not isinstance(keys[0], int):
        return True
    least, most = connection.ops.integer_field_range(pk.get_internal_type())
    return (least is None or min(keys) >= least) and (most is None or max(keys) <= most)


class Whens(When):
    """``WHEN pk = … THEN …`` of many instances: itself the first's, with samples of the others."""

    _keys: Sequence[Any]
    _params: Sequence[Any]
    _at: tuple[int, ...]
    _samples: list[Any]

    @classmethod
    def of(cls, field: Any, objs: Any, raw: Any, keys: Any, params: Any) -> Whens:
        def when(make: Any, n: int) -> Any:
            value = Value(getattr(objs[n], field.attname), output_field=field)
            return make(Q(pk=raw[n]), then=value)

        nulls = [param is None for param in params]
        at = {len(params) - 1, nulls.index(not nulls[0]) if len(set(nulls)) > 1 else 0}
        made: Whens = when(cls, 0)
        made._keys, made._params = keys, params
        made._at = tuple(at - {0})
        made._samples = [when(When, n) for n in made._at]
        return made

    def get_source_expressions(self) -> list[Any]:
        return [*super().get_source_expressions(), *self._samples]

    def set_source_expressions(self, exprs: Sequence[Any]) -> None:
        condition, result, *self._samples = exprs
        super().set_source_expressions([condition, result])

    def as_sql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        keys, params = self._keys, self._params
        texts: dict[bool, str] = {}
        try:
            found = [(0, super().as_sql(compiler, connection, **context))]
            found += zip(self._at, map(compiler.compile, self._samples), strict=True)
        except (EmptyResultSet, FullResultSet):
            raise _Unexpected from None
        for n, (sql, got) in found:
            null = params[n] is None
            expected = [keys[n]] if null else [keys[n], params[n]]
            if not _same(got, expected) or texts.setdefault(null, sql) != sql:
                raise _Unexpected
        if len(texts) == 1:
            (text,) = texts.values()
            sql = " ".join([text] * len(params))
        else:
            sql = " ".join([texts[param is None] for param in params])
        pairs = zip(keys, params, strict=True)
        return sql, tuple([each for pair in pairs for each in pair if each is not None])


def _same(found: Any, expected: list[Any]) -> bool:
    return list(map(type, found)) == list(map(type, expected)) and list(found) == expected
