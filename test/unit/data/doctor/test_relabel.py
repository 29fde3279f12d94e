from __future__ import annotations

from collections.abc import Sequence

import pytest

from nnunetlike.core.errors import UsageError
from nnunetlike.data.doctor.relabel import as_asked, parse_map, propose

TWO = {0: "background", 1: "x", 2: "y"}


@pytest.mark.parametrize(
    ("names", "files", "values", "certain"),
    [
        ([0, 255], [[0, 255]], {255: 1}, True),
        ([0, 1], [[0, 255], [0]], {255: 1}, True),
        ([0, 1, 7, 8, 9], [[0, 1, 7, 8, 9]], {7: 2, 8: 3, 9: 4}, True),
        ([0, 1], [[0, 1], [0, 255]], {255: 1}, False),
        ([0, 1], [[0, 1, 255]], {255: 2}, False),
        ([0, 1, 2], [[0, 7, 9]], {7: 1, 9: 2}, False),
        ([0, 1, 2, 3, 4], [[0, 2, 3], [4, 5]], {2: 1, 3: 2, 4: 3, 5: 4}, False),
        ([0, 1], [[0, 1, 7, 8, 9]], {7: 2, 8: 3, 9: 4}, False),
        ([0, 1], [[-1, 0, 1]], {-1: 0}, False),
    ],
)
def test_labels_are_mapped_to_consecutive_values(
    names: Sequence[int], files: list[list[int]], values: dict[int, int], certain: bool
) -> None:
    proposed = propose({n: f"name {n}" for n in names}, [frozenset(file) for file in files])
    assert proposed is not None
    assert (proposed.values, proposed.certain) == (values, certain)
    assert sorted(proposed.names) == list(range(len(proposed.names)))


def test_names_move_with_their_labels() -> None:
    proposed = propose({0: "background", 3: "x", 7: "y"}, [frozenset({0, 3, 7})])
    assert proposed is not None
    assert proposed.names == {0: "background", 1: "x", 2: "y"}


def test_what_is_consecutive_stays() -> None:
    assert propose(TWO, [frozenset({0, 1}), frozenset({2})]) is None


def test_a_map_declares_what_is_new() -> None:
    asked = as_asked(TWO, {9: 3, 255: 2})
    assert asked.names == {0: "background", 1: "x", 2: "y", 3: "label 9"}


def test_a_map_moves_names_to_new_numbers() -> None:
    assert as_asked({0: "background", 1: "x", 9: "y"}, {9: 2}).names == TWO


def test_a_map_that_leaves_gaps_is_refused() -> None:
    with pytest.raises(UsageError, match="0, 1, 2, 9"):
        as_asked(TWO, {4: 9})


@pytest.mark.parametrize("text", ["255", "a:1", "1:2,1:3", "1:-1", ""])
def test_what_is_no_map_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_map(text)


def test_a_map_is_read_as_it_is_proposed() -> None:
    proposed = propose({0: "background", 1: "x"}, [frozenset({-1, 0, 1, 5})])
    assert proposed is not None
    assert parse_map(proposed.as_option().removeprefix("--map=")) == proposed.values
