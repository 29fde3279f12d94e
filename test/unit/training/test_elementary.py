from __future__ import annotations

import numpy as np
import pytest

from nnunetlike.training.augmentation.pointwise import bend


def bent(values: np.ndarray, exponent: float) -> np.ndarray:
    found = np.empty_like(values)
    one, zero = np.float32(1), np.float32(0)
    bend(values, one, zero, one, np.float32(exponent), found)
    return found


@pytest.mark.parametrize("exponent", [0.5, 0.7, 0.999, 1.0, 1.3, 1.5, 3.7])
def test_powers_are_right_in_single_precision(exponent: float) -> None:
    values = np.geomspace(1.2e-38, 1, 300_001).astype(np.float32)
    wanted = values.astype(np.float64) ** float(np.float32(exponent))
    normal = wanted > 2e-38
    found = bent(values, exponent)
    assert np.abs(found[normal] / wanted[normal] - 1).max() < 3e-7
    assert found[~normal].max(initial=0) < 3e-38


def test_powers_rise_from_0_to_1() -> None:
    found = bent(np.array([0, 1e-39, 1], np.float32), 0.7)
    assert found.tolist() == [0, 0, pytest.approx(1, abs=1.2e-7)]
