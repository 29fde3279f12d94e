from __future__ import annotations

import pytest

from nnunetlike.core.errors import UsageError
from nnunetlike.core.registry import Registry


def registry() -> Registry[int]:
    made: Registry[int] = Registry("number", "nnunetlike.core")
    made.add("three", 3)
    made.add("thirteen", 13)
    return made


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no number is called 'thre'. Did you mean 'three'\?"):
        registry().get("thre")


def test_a_name_is_given_once() -> None:
    with pytest.raises(ValueError, match="two numbers are called 'three'"):
        registry().add("three", 4)


def test_names_are_sorted_and_found_again() -> None:
    made = registry()
    assert made.names() == ["thirteen", "three"]
    assert made.name_of(made.get("three")) == "three"
