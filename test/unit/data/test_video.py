"""Facts of videos, and the frames of clips."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunetlike.core.errors import DataError
from nnunetlike.data.video import uniform_frame_indices


@pytest.mark.parametrize(
    ("frames", "expected"),
    [(10, tuple(range(10))), (19, tuple(range(0, 19, 2)))],
)
def test_a_clip_of_ten_frames_is_evenly_spaced(frames: int, expected: tuple[int, ...]) -> None:
    assert uniform_frame_indices(0, frames - 1, 10, frames) == expected


def test_twenty_frames_give_ten_distinct_ones_with_both_ends() -> None:
    found = uniform_frame_indices(0, 19, 10, 20)
    assert found[0] == 0
    assert found[-1] == 19
    assert len(set(found)) == 10


def test_nine_frames_give_a_clip_of_ten_with_one_repeat() -> None:
    found = uniform_frame_indices(0, 8, 10, 9)
    assert set(found) == set(range(9))
    assert list(found) == sorted(found)
    assert len(found) == 10


def test_a_systole_before_the_diastole_wraps_over_the_end() -> None:
    assert uniform_frame_indices(8, 1, 4, 10) == (8, 9, 0, 1)


def test_a_clip_of_one_frame_is_the_first() -> None:
    assert uniform_frame_indices(3, 7, 1, 10) == (3,)


def test_ends_outside_the_video_are_an_error_that_names_them() -> None:
    with pytest.raises(DataError, match="from frame 0 to frame 10 does not lie in a video of 10"):
        uniform_frame_indices(0, 10, 5, 10)


@given(
    frames=st.integers(1, 80), count=st.integers(2, 20), first=st.integers(0, 79),
    last=st.integers(0, 79),
)  # fmt: skip
def test_clips_keep_their_ends_and_never_turn_back(
    frames: int, count: int, first: int, last: int
) -> None:
    first, last = first % frames, last % frames
    found = uniform_frame_indices(first, last, count, frames)
    assert (found[0], found[-1], len(found)) == (first, last, count)
    steps = [(b - a) % frames for a, b in pairwise(found)]
    span = (last - first) % frames
    assert sum(steps) == span
    assert (len(set(found)) == count) == (span >= count - 1)
