"""Test databases."""

from __future__ import annotations

from django.db.backends.postgresql import creation

from vinyl.backends.creation import CreationMixin

__all__ = ["DatabaseCreation"]


class DatabaseCreation(CreationMixin, creation.DatabaseCreation):
    """Django's, with no pooled connection in the way of CREATE and DROP DATABASE."""
