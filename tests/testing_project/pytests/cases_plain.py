"""pytest-django's marks, plain code."""

from __future__ import annotations

import pytest
from shop.models import Customer
from shop.steps import add, names, plain_names

import vinyl


@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.django_db
def test_plain_and_driven_code_are_one_transaction(turn) -> None:
    Customer.objects.create(name="plain")
    vinyl.drive(add("driven"))
    assert plain_names() == vinyl.drive(names()) == ["driven", "plain"]
