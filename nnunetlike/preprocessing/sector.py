"""The part of a video that ever shows anything, the same in all frames. Axes: C, T, H, W."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nnunetlike.core.errors import DataError, ShapeError
from nnunetlike.core.typing import BoolArray, LabelMap
from nnunetlike.preprocessing.cropping import OUTSIDE, Cropped, present_labels


def sector(video: npt.NDArray[Any]) -> BoolArray:
    """Return where some frame and channel of a video (C, T, H, W) is not 0, holes filled: (H, W).

    A hole touches the outside along no edge. That the whole video decides makes it the same for
    every frame, whether that has a label or not.
    """
    from scipy import ndimage  # which only videos need, and takes long to import

    return np.asarray(ndimage.binary_fill_holes((video != 0).any(axis=(0, 1))), np.bool_)


def crop_to_sector(video: npt.NDArray[Any], label: LabelMap | None) -> Cropped:
    """Return the part of a video around its sector, all frames long.

    Label 0 outside the sector becomes -1; other labels, that of frames without one too, stay.

    Args:
        video: (C, T, H, W).
        label: (T, H, W), or None, which counts as 0.

    Raises:
        DataError: the video is zero everywhere.
        ShapeError: it has not four axes, or the label another grid.
    """
    if video.ndim != 4:
        raise ShapeError(f"a video has the axes C, T, H, W; this one has shape {video.shape}")
    if label is not None and label.shape != video.shape[1:]:
        raise ShapeError(f"the label has shape {label.shape} but the video {video.shape[1:]}")
    inside = sector(video)
    if not inside.any():
        raise DataError(
            "the video is zero everywhere, so there is nothing to crop to. Take the case out of "
            "dataset.json, or export it anew"
        )
    rows, columns = np.nonzero(inside)
    top, bottom, left, right = (
        int(v) for v in (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1)
    )
    frames, window = video.shape[1], (slice(top, bottom), slice(left, right))
    shown = np.zeros(video.shape[1:], np.int16) if label is None else label.astype(np.int16)
    shown = np.ascontiguousarray(shown[(slice(None), *window)])
    shown[(shown == 0) & ~inside[window]] = OUTSIDE
    return Cropped(
        np.array(video[(slice(None), slice(None), *window)], np.float32, order="C"),
        shown,
        ((0, frames), (top, bottom), (left, right)),
        present_labels(shown),
    )
