from __future__ import annotations

import numpy as np
import pytest

from nnunetlike.preprocessing.cells import fill_plain, reach
from nnunetlike.preprocessing.taps import linear_taps


@pytest.mark.parametrize("new", [3, 12, 31, 50])
def test_a_voxel_is_plain_exactly_where_its_eight_neighbours_agree(new: int) -> None:
    random = np.random.default_rng(new)
    rows = np.repeat(random.integers(0, 3, (1, 4)).repeat(4, axis=0), 3, axis=1).astype(np.int16)
    rows[random.random(rows.shape) < 0.05] = 7
    taps = linear_taps(12, new)
    row, mixed = np.full(new, -1, np.int16), np.empty(new, np.int64)
    count = fill_plain(*rows, reach(taps, 12), np.empty(12, np.uint8), row, mixed)
    around = np.concatenate([rows[:, taps.low], rows[:, taps.high]])
    plain = np.all(around == around[0], axis=0)
    assert mixed[:count].tolist() == np.flatnonzero(~plain).tolist()
    np.testing.assert_array_equal(row[plain], around[0][plain])
