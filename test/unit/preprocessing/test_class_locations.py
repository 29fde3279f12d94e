from __future__ import annotations

import numpy as np

from nnunetlike.preprocessing.class_locations import sample_class_locations


def slow_locations(label: np.ndarray, classes: list[int]) -> dict[int, np.ndarray]:
    random = np.random.RandomState(1234)
    found = {}
    for value in classes:
        voxels = np.argwhere(label == value)
        size = max(min(len(voxels), 10000), int(np.ceil(0.01 * len(voxels))))
        chosen = random.choice(len(voxels), size, replace=False) if len(voxels) else []
        found[value] = voxels[chosen]
    return found


def test_voxels_are_those_of_the_slow_formula_in_its_order() -> None:
    label = np.random.default_rng(5).integers(-1, 5, (30, 40, 50)).astype(np.int16)
    classes = [3, 1, 9, 2, -1]
    found, expected = sample_class_locations(label, classes), slow_locations(label, classes)
    assert list(found) == classes
    for value in classes:
        assert found[value].dtype == np.int64
        np.testing.assert_array_equal(found[value], expected[value])


def test_at_most_ten_thousand_voxels_are_drawn_of_a_class_below_a_million() -> None:
    found = sample_class_locations(np.ones((30, 30, 30), np.uint8), [1])
    assert found[1].shape == (10000, 3)
    assert len(np.unique(found[1], axis=0)) == 10000


def test_an_absent_class_has_no_voxels() -> None:
    found = sample_class_locations(np.zeros((2, 2, 2), np.int16), [1, 2])
    assert found[1].shape == found[2].shape == (0, 3)
