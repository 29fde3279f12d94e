"""Windows cover every axis, whatever its length."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from nnunetlike.inference.windows import window_starts


@given(window=st.integers(1, 200), room=st.integers(0, 500), step=st.floats(0.05, 1))
def test_windows_cover_the_axis(window: int, room: int, step: float) -> None:
    starts = window_starts(window + room, window, step)
    assert starts[0] == 0 and starts[-1] == room
    assert all(0 < b - a <= window for a, b in pairwise(starts)) or window * step < 1


@given(window=st.integers(2, 200), room=st.integers(0, 500))
def test_windows_overlap_by_half(window: int, room: int) -> None:
    starts = window_starts(window + room, window, 0.5)
    assert all(b - a <= (window + 1) // 2 for a, b in pairwise(starts))
