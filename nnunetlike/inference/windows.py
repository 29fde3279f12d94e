"""Where windows lie on an image, and how much each of their voxels counts.

The importance of a voxel is a product of one factor per axis, and windows lie on a grid, so the sum
of all windows' importances is a product too. Dividing each axis by its own sum beforehand makes the
weights of all windows add up to one at every voxel; nothing has to be counted or divided later.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
import numpy.typing as npt

from nnunetlike.core.errors import UsageError
from nnunetlike.core.typing import Size

AxisWeights = list[npt.NDArray[np.float32]]


def window_starts(size: int, window: int, step: float) -> list[int]:
    """Return where windows begin along one axis; the first is at 0, the last touches the end.

    Args:
        size: voxels of the image along the axis, at least `window`.
        window: voxels of the window.
        step: largest distance between windows as a share of the window, in (0, 1].

    Raises:
        UsageError: the step is not in (0, 1], so windows would not cover the image.

    Source: Isensee et al., "nnU-Net", Nature Methods 2021; its first version rounds half to even.
    """
    if not 0 < step <= 1:
        raise UsageError(f"step_size {step} must be above 0 and at most 1; 0.5 is usual")
    count = ceil((size - window) / (window * step)) + 1
    if count == 1:
        return [0]
    distance = (size - window) / (count - 1)
    return [int(np.round(distance * number)) for number in range(count)]


def axis_importance(window: int) -> npt.NDArray[np.float64]:
    """Return a Gaussian over the voxels of one axis: 1 at `window // 2`, deviation `window / 8`."""
    distance = np.arange(window) - window // 2
    return np.exp(-0.5 * (distance / (window / 8)) ** 2)


def importance_map(window: Size) -> npt.NDArray[np.float32]:
    """Return how much each voxel of a window counts, float32 of shape `window`, largest value 1.

    The corners of a window of three axes have about 4e-11, so no value underflows to 0.

    Source: Isensee et al., "nnU-Net", Nature Methods 2021 (a filtered unit impulse; the Gaussian
    is cut at four deviations, which is beyond the window).
    """
    importance = np.ones((), np.float64)
    for length in window:
        importance = importance[..., None] * axis_importance(length)
    return importance.astype(np.float32)


def axis_weights(
    size: int, window: int, starts: Sequence[int], *, gaussian: bool = True
) -> AxisWeights:
    """Return each window's weights along one axis; at every voxel of the axis they add up to 1.

    Args:
        size: voxels of the image along the axis.
        window: voxels of the window.
        starts: where the windows begin; together they cover the axis.
        gaussian: weigh by `axis_importance`, else all voxels of a window alike.
    """
    importance = axis_importance(window) if gaussian else np.ones(window)
    total = np.zeros(size)
    for start in starts:
        total[start : start + window] += importance
    return [(importance / total[start : start + window]).astype(np.float32) for start in starts]


def padded_shape(shape: Size, least: Size, divisor: Size | None = None) -> Size:
    """Return `shape` enlarged to at least `least` and then to multiples of `divisor`."""
    grown = tuple(max(a, b) for a, b in zip(shape, least, strict=True))
    if divisor is None:
        return grown
    return tuple(ceil(a / d) * d for a, d in zip(grown, divisor, strict=True))


def padding(shape: Size, target: Size) -> list[tuple[int, int]]:
    """Return voxels to add before and after each axis; an odd one goes after."""
    rooms = [b - a for a, b in zip(shape, target, strict=True)]
    return [(room // 2, room - room // 2) for room in rooms]
