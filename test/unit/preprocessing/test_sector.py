"""The part of a video that ever shows anything."""

from __future__ import annotations

import numpy as np
import pytest

from nnunetlike.core.errors import DataError, ShapeError
from nnunetlike.preprocessing.cropping import uncrop
from nnunetlike.preprocessing.sector import crop_to_sector, sector


def ring() -> np.ndarray:
    """Three frames of 8 x 9; a ring in the last, one pixel of a second channel in the first."""
    video = np.zeros((2, 3, 8, 9), np.float32)
    video[0, 2, 2:7, 2:7] = 1
    video[0, 2, 4, 4] = 0
    video[1, 0, 2, 7] = 5
    return video


def test_the_sector_is_what_any_frame_and_channel_shows_with_holes_filled() -> None:
    inside = sector(ring())
    assert inside[4, 4] and inside[2, 7] and inside.sum() == 26


def test_all_frames_are_kept_and_cropped_alike() -> None:
    cropped = crop_to_sector(ring(), None)
    assert cropped.box == ((0, 3), (2, 7), (2, 8)) and cropped.image.shape == (2, 3, 5, 6)
    assert (cropped.label == cropped.label[0]).all() and cropped.label[0, 2, 2] == 0
    assert cropped.label[0, 1, 5] == -1


def test_outside_is_what_is_labelled_background_there_and_nothing_else() -> None:
    label = np.full((3, 8, 9), 2, np.int16)
    label[0] = 0
    label[0, 3, 7] = 1
    cropped = crop_to_sector(ring(), label)
    assert cropped.label[0, 1, 5] == 1 and cropped.label[0, 2, 5] == -1
    assert (cropped.label[1:] == 2).all() and cropped.classes == (-1, 0, 1, 2)


def test_cropping_goes_back() -> None:
    label = np.arange(3 * 8 * 9).reshape(3, 8, 9).astype(np.int16)
    cropped = crop_to_sector(ring(), label)
    back = uncrop(cropped.label, cropped.box, (3, 8, 9))
    assert (back[:, 2:7, 2:8] == label[:, 2:7, 2:8]).all()


def test_what_is_empty_or_of_another_shape_is_refused() -> None:
    with pytest.raises(DataError, match="zero everywhere"):
        crop_to_sector(np.zeros((1, 3, 4, 4), np.float32), None)
    with pytest.raises(ShapeError, match="label has shape"):
        crop_to_sector(ring(), np.zeros((2, 8, 9), np.int16))
    with pytest.raises(ShapeError, match="C, T, H, W"):
        crop_to_sector(ring()[0], None)
