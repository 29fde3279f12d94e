from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunetlike.preprocessing.numpy_choice import Chooser


def assert_same_stream(ours: Chooser, theirs: np.random.RandomState) -> None:
    copy = np.random.RandomState()
    copy.set_state(ours.state())
    assert copy.randint(2**30, size=700).tolist() == theirs.randint(2**30, size=700).tolist()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    draws=st.lists(st.tuples(st.integers(1, 3000), st.floats(0, 1)), min_size=1, max_size=6),
)
def test_draws_are_those_of_numpys_choice_and_leave_the_same_state(
    seed: int, draws: list[tuple[int, float]]
) -> None:
    ours, theirs = Chooser(seed), np.random.RandomState(seed)
    for total, share in draws:
        size = round(share * total)
        wanted = theirs.choice(total, size, replace=False)
        np.testing.assert_array_equal(ours.choose(total, size), wanted)
    assert_same_stream(ours, theirs)


@pytest.mark.parametrize("total", [1, 2, 3, 4, 5, 64, 65, 4096, 4097, 2**17, 2**18 + 2, 1_000_001])
def test_draws_of_a_hundredth_are_those_of_numpy(total: int) -> None:
    ours, theirs = Chooser(1234), np.random.RandomState(1234)
    for size in (-(-total // 100), total):
        wanted = theirs.choice(total, size, replace=False)
        np.testing.assert_array_equal(ours.choose(total, size), wanted)
    assert_same_stream(ours, theirs)


def test_nothing_is_drawn_of_nothing() -> None:
    ours = Chooser(5)
    assert ours.choose(0, 0).size == 0
    assert_same_stream(ours, np.random.RandomState(5))
