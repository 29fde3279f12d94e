from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from nnunetlike.postprocessing.connected_components import keep_largest


def row(*values: int) -> Any:
    return np.array([[values]], np.uint8)


def test_smaller_components_go_and_their_volumes_are_told() -> None:
    found = keep_largest(row(1, 1, 1, 0, 1, 1, 0, 1), [1], 2.0)
    assert found.label.tolist() == row(1, 1, 1, 0, 0, 0, 0, 0).tolist()
    assert found.largest_removed == {1: 4.0}
    assert found.kept_size == {1: 6.0}


def test_equally_large_components_all_stay() -> None:
    label = row(1, 1, 0, 1, 1, 0, 1)
    assert keep_largest(label, [1], 1.0).label.tolist() == row(1, 1, 0, 1, 1, 0, 0).tolist()


def test_a_joint_foreground_is_one_structure() -> None:
    label = row(1, 2, 2, 0, 2, 1)
    found = keep_largest(label, [(1, 2)], 1.0)
    assert found.label.tolist() == row(1, 2, 2, 0, 0, 0).tolist()
    assert found.largest_removed == {(1, 2): 2.0}


def test_structures_are_treated_in_order() -> None:
    label = row(1, 2, 2, 0, 2, 2, 2, 0, 2, 1, 1, 1)
    found = keep_largest(label, [[1, 2], 2], 1.0).label
    assert found.tolist() == row(0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 1, 1).tolist()


def test_corners_do_not_connect() -> None:
    label = np.zeros((2, 2, 2), np.uint8)
    label[0, 0, 0] = label[0, 0, 1] = label[1, 1, 1] = 1
    assert keep_largest(label, [1], 1.0).label.sum() == 2


def test_a_component_of_valid_size_stays_though_it_is_smaller() -> None:
    label = row(1, 1, 1, 0, 1, 1, 0, 1)
    found = keep_largest(label, [1], 1.0, {1: 2.0})
    assert found.label.tolist() == row(1, 1, 1, 0, 1, 1, 0, 0).tolist()


def test_an_absent_label_removes_nothing() -> None:
    found = keep_largest(row(0, 2, 0), [1], 1.0)
    assert found.label.tolist() == row(0, 2, 0).tolist()
    assert found.largest_removed == {1: None} and found.kept_size == {1: 0.0}


def test_the_input_is_not_changed() -> None:
    label = row(1, 1, 0, 1)
    keep_largest(label, None, 1.0)
    assert label.tolist() == row(1, 1, 0, 1).tolist()


def test_components_are_those_of_scipy() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        label = (rng.random((6, 7, 8)) < 0.4).astype(np.uint8)
        parts, count = ndimage.label(label)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        sizes[0] = 0
        wanted = np.isin(parts, np.flatnonzero(sizes == sizes.max())) & (label > 0)
        assert np.array_equal(keep_largest(label, [1], 1.0).label > 0, wanted)
