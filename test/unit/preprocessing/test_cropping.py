from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from nnunetlike.core.errors import DataError, ShapeError
from nnunetlike.preprocessing.cropping import (
    SURROUNDINGS,
    crop_to_nonzero,
    flood_surroundings,
    uncrop,
)


def ball() -> np.ndarray:
    image = np.zeros((1, 7, 7, 7), np.float32)
    image[0, 1:6, 1:6, 1:6] = 3
    image[0, 1, 1, 1] = 0  # a notch
    image[0, 3, 3, 3] = 0  # a hole
    return image


def test_holes_belong_to_the_body_and_notches_do_not() -> None:
    cropped = crop_to_nonzero(ball(), None)
    assert cropped.box == ((1, 6), (1, 6), (1, 6))
    assert np.argwhere(cropped.label == -1).tolist() == [[0, 0, 0]]
    assert cropped.classes == (-1, 0)


def test_labels_outside_the_body_stay() -> None:
    label = np.zeros((7, 7, 7), np.int16)
    label[1, 1, 1] = 2
    assert crop_to_nonzero(ball(), label).label[0, 0, 0] == 2


def test_labels_below_minus_one_are_recorded_and_become_background() -> None:
    label = np.zeros((7, 7, 7), np.int16)
    label[3, 3, 3] = -5
    cropped = crop_to_nonzero(ball(), label)
    assert cropped.classes == (-5, -1, 0)
    assert cropped.label.min() == -1 and cropped.label[2, 2, 2] == 0


def test_any_channel_makes_a_voxel_part_of_the_body() -> None:
    image = np.zeros((2, 1, 4, 4), np.float32)
    image[0, 0, 1, 1] = 1
    image[1, 0, 2, 3] = -1
    assert crop_to_nonzero(image, None).box == ((0, 1), (1, 3), (1, 4))


def test_the_arguments_are_untouched() -> None:
    image, label = ball(), np.zeros((7, 7, 7), np.int16)
    cropped = crop_to_nonzero(image, label)
    cropped.image[:] = 9
    assert not label.any() and image.max() == 3


def test_an_empty_image_or_another_grid_is_refused() -> None:
    with pytest.raises(DataError, match="zero everywhere"):
        crop_to_nonzero(np.zeros((1, 2, 2, 2), np.float32), None)
    with pytest.raises(ShapeError, match="label has shape"):
        crop_to_nonzero(ball(), np.zeros((7, 7, 6), np.int16))
    with pytest.raises(ShapeError, match="C, D, H, W"):
        crop_to_nonzero(ball()[0], None)


def test_a_label_that_does_not_fit_its_box_is_refused() -> None:
    label = np.ones((2, 2, 2), np.uint8)
    with pytest.raises(ShapeError, match="does not fit"):
        uncrop(label, ((0, 2), (0, 2), (0, 3)), (4, 4, 4))
    with pytest.raises(ShapeError, match="does not fit"):
        uncrop(label, ((0, 2), (0, 2), (3, 5)), (4, 4, 4))


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6, 0.8])
def test_the_flood_leaves_the_holes_that_scipy_fills(share: float) -> None:
    random = np.random.RandomState(0)
    for shape in [(9, 10, 21), (1, 7, 7), (2, 2, 30), (5, 1, 3), (6, 6, 1)] * 4:
        mask = (random.rand(*shape) < share).astype(np.uint8)
        filled = ndimage.binary_fill_holes(mask)
        flood_surroundings(mask)
        assert np.array_equal(mask != SURROUNDINGS, filled)


def test_a_spiral_is_flooded_to_its_end() -> None:
    mask = np.ones((3, 9, 9), np.uint8)
    mask[1, 1, :8], mask[1, 1:8, 7], mask[1, 7, 1:8] = 0, 0, 0
    mask[1, 3:8, 1], mask[1, 3, 1:6], mask[1, 3:6, 5], mask[1, 5, 3:6] = 0, 0, 0, 0
    body = int(mask.sum())
    flood_surroundings(mask)
    assert int((mask == 1).sum()) == body
    assert not (mask == 0).any()


@pytest.mark.parametrize("channels", [1, 2])
def test_the_box_is_that_of_all_voxels_that_are_not_zero(channels: int) -> None:
    random = np.random.default_rng(channels)
    for _ in range(20):
        image = np.zeros((channels, 9, 40, 300), np.float32)
        for _ in range(3):
            image[(*(random.integers(0, n) for n in image.shape),)] = np.nan
        cropped = crop_to_nonzero(image, None)
        places = np.argwhere(image[:, :, :, :] != 0)[:, 1:]
        assert cropped.box == tuple(
            zip(places.min(axis=0).tolist(), (places.max(axis=0) + 1).tolist(), strict=True)
        )
        window = (slice(None), *(slice(*side) for side in cropped.box))
        np.testing.assert_array_equal(cropped.image, image[window])


def test_all_labels_of_the_box_are_recorded_and_no_others() -> None:
    random = np.random.default_rng(0)
    image = np.zeros((1, 6, 40, 90), np.float32)
    image[:, 1:-1, 3:-2, 5:-9] = 1
    label = random.choice([0, 0, 0, 3, 300, -7], image.shape[1:]).astype(np.int16)
    label[0] = 9
    cropped = crop_to_nonzero(image, label)
    assert cropped.classes == (-7, 0, 3, 300)
    label[label < -1] = 0
    window = tuple(slice(*side) for side in cropped.box)
    np.testing.assert_array_equal(cropped.label, label[window])
