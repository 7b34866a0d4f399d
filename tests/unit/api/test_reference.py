"""docs/reference.md has every field, reason and condition."""

from __future__ import annotations

import pytest
from dsr_operator.compile import reasons

from tools.reference import PAGE, filled

REASONS = sorted(v for k, v in vars(reasons).items() if k.isupper() and isinstance(v, str))


def test_field_tables_are_those_of_the_crds() -> None:
    page = PAGE.read_text()
    assert page == filled(page), "run: python tools/reference.py"


@pytest.mark.parametrize("word", REASONS)
def test_conditions_and_reasons_are_explained(word: str) -> None:
    assert f"`{word}`" in PAGE.read_text()
