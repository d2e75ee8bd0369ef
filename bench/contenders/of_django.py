"""What the contenders with Django's models share."""

from __future__ import annotations

from typing import Any

from contenders import Base


class DjangoBase(Base):
    def row(self, found: Any) -> tuple[Any, ...]:
        if isinstance(found, tuple):
            return found
        if isinstance(found, dict):
            return tuple(found.values())
        return tuple(getattr(found, field.attname) for field in found._meta.concrete_fields)

    def joined(self, found: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return self.row(found), self.row(found.maker)
