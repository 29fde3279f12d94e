"""Label maps of slabs: the same as of the whole, whatever the slabs, axes and orders."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from nnunetlike.core.errors import ShapeError
from nnunetlike.preprocessing.label_export import resampled_argmax
from nnunetlike.preprocessing.label_stream import LabelStream

OLD, FINER, COARSER = (7, 9, 11), (12, 14, 23), (4, 5, 6)


def _probabilities(classes: int, shape: tuple[int, ...] = OLD) -> np.ndarray:
    found = np.random.default_rng(0).random((classes, *shape)).astype(np.float32)
    return np.round(found, 1)  # with ties


def _streamed(values: np.ndarray, shape: tuple[int, ...], cuts: list[int], **how) -> np.ndarray:
    along = how.get("along", 0)
    stream = LabelStream(values.shape[1:], shape, len(values), **how)
    for slab in np.split(values, cuts, axis=1 + along):
        stream.see(slab)
    return stream.label()


@pytest.mark.parametrize("along", [0, 1, 2])
@pytest.mark.parametrize("shape", [FINER, COARSER, OLD, (12, 5, 11)])
@pytest.mark.parametrize("cuts", [[], [1], [3, 4, 6], [1, 2, 3, 4, 5, 6]])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"order": 0},
        {"axis": 0},
        {"axis": 1, "order_z": 1},
        {"axis": 2, "order": 0, "order_z": 1},
        {"order": 3},
        {"axis": 0, "order_z": 3},
    ],
)
def test_slabs_along_any_axis_give_what_the_whole_gives(
    along: int, shape: tuple[int, ...], cuts: list[int], how: dict
) -> None:
    values = _probabilities(3)
    expected = resampled_argmax(values, shape, **how)
    assert np.array_equal(_streamed(values, shape, cuts, along=along, **how), expected)


@pytest.mark.parametrize("classes", [3, 20])
def test_regions_in_slabs_are_those_of_the_whole(classes: int) -> None:
    values = _probabilities(classes)
    regions = tuple(range(300, 300 - classes, -1))
    expected = resampled_argmax(values, FINER, regions=regions)
    found = _streamed(values, FINER, [2, 5], regions=regions)
    assert found.dtype == expected.dtype and np.array_equal(found, expected)


def test_regions_need_a_label_each() -> None:
    with pytest.raises(ShapeError, match="2 region labels for 3 channels"):
        LabelStream(OLD, FINER, 3, regions=(1, 2))


def test_of_what_was_seen_one_slice_is_held() -> None:
    values = np.random.default_rng(0).random((20, 32, 24, 24)).astype(np.float32)
    _streamed(values, (32, 24, 24), [])  # compiles
    tracemalloc.start()
    stream = LabelStream(values.shape[1:], (40, 30, 30), len(values))
    for z in range(32):
        stream.see(values[:, z : z + 1])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < values.nbytes / 3
