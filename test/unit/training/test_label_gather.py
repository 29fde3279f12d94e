import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunetlike.core.compiled import compiled
from nnunetlike.preprocessing.cells import largest_half
from nnunetlike.training.augmentation.block_agreement import corners_agree
from nnunetlike.training.augmentation.label_gather import majority
from nnunetlike.training.augmentation.spatial import Affine, resample


@compiled
def agreements(label: np.ndarray) -> np.ndarray:
    depth, height, width = label.shape
    found = np.empty((depth - 1, height - 1, width - 1), np.bool_)
    for z, y, x in np.ndindex(found.shape):
        first = (z * height + y) * width + x
        found[z, y, x] = corners_agree(label.reshape(-1), first, height * width, width)
    return found


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.int32, np.int64])
def test_eight_labels_agree_when_they_are_all_the_same(kind: type) -> None:
    label = (np.random.RandomState(0).randint(0, 9, (6, 7, 8)) // 8 * 100).astype(kind)
    wanted = np.empty((5, 6, 7), bool)
    for place in np.ndindex(wanted.shape):
        cell = label[tuple(slice(n, n + 2) for n in place)]
        wanted[place] = cell.min() == cell.max()
    assert wanted.any() and not wanted.all()
    assert np.array_equal(agreements(label), wanted)


@given(
    corners=st.tuples(*[st.integers(0, 2)] * 8),
    weights=st.tuples(*[st.sampled_from([0.0, 0.0625, 0.125, 0.25, 0.5])] * 8),
)
def test_the_first_two_labels_decide_as_all_of_them_do(
    corners: tuple[int, ...], weights: tuple[float, ...]
) -> None:
    if sum(weights) <= 1:
        assert majority.py_func(corners, weights) == largest_half.py_func(corners, weights)


def test_labels_too_large_for_two_bytes_are_resampled_alike() -> None:
    random = np.random.RandomState(0)
    image, label = np.zeros((1, 8, 8, 8), np.float32), random.randint(0, 3, (8, 8, 8))
    affine = Affine((0.3, -0.2, 0.1), 0.9)
    _, small = resample(image, label.astype(np.int16), affine, (6, 6, 6))
    _, large = resample(image, label.astype(np.int16) * 10000, affine, (6, 6, 6))
    assert np.array_equal(small * 10000, large)
