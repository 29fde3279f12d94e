"""Foreground intensities: a sample of one case, and the numbers planning keeps of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nnunetlike.core.compiled import compiled
from nnunetlike.core.typing import FloatArray, LabelMap
from nnunetlike.plans.fingerprint import IntensityStatistics

STRIDE = 10
"""One foreground voxel of so many is looked at."""

PIECE = 64
"""Voxels that are looked at together."""


def foreground_sample(channel: FloatArray, label: LabelMap) -> npt.NDArray[np.float32]:
    """Return every tenth voxel of `channel` with a label above 0, in C order.

    Args:
        channel: (D, H, W).
        label: (D, H, W); without foreground the result is empty.
    """
    values = np.ascontiguousarray(channel, np.float32).reshape(-1)
    out = np.empty(len(values) // STRIDE + 1, np.float32)
    return out[: _collect(values, np.ascontiguousarray(label).reshape(-1), out)].copy()


@compiled
def _collect(values: FloatArray, label: LabelMap, out: FloatArray) -> int:
    """Write the sample and return its size, piece by piece: most are all foreground, or none."""
    place = np.empty(PIECE, np.int64)
    taken, skip = 0, 0
    for start in range(0, len(label), PIECE):
        piece = label[start : start + PIECE]
        first, differs = piece[0] > 0, False
        for i in range(len(piece)):
            differs |= (piece[i] > 0) != first
        count = len(piece) if first else 0
        if differs:
            count = 0
            for i in range(len(piece)):
                place[count] = i
                count += piece[i] > 0
        while skip < count:
            out[taken] = values[start + (place[skip] if differs else skip)]
            taken += 1
            skip += STRIDE
        skip -= count
    return taken


def intensity_statistics(values: FloatArray) -> IntensityStatistics:
    """Return the statistics of `values` (1-D); all NaN if there are none.

    Mean and (population) deviation are computed in single precision as nnU-Net v1 does, the
    percentiles by linear interpolation in double precision.
    """
    if len(values) == 0:
        nan = float("nan")
        return IntensityStatistics(
            median=nan, mean=nan, sd=nan, mn=nan, mx=nan, percentile_99_5=nan, percentile_00_5=nan
        )
    single = np.asarray(values, np.float32)
    ascending = np.sort(single)
    middle = ascending[[(len(single) - 1) // 2, len(single) // 2]]
    missing = np.isnan(ascending[-1])
    return IntensityStatistics(
        median=float("nan") if missing else float(np.mean(middle)),
        mean=float(np.mean(single)),
        sd=float(np.std(single)),
        mn=float("nan") if missing else float(ascending[0]),
        mx=float(ascending[-1]),
        percentile_99_5=_percentile(ascending, 99.5),
        percentile_00_5=_percentile(ascending, 0.5),
    )


def _percentile(ascending: FloatArray, percent: float) -> float:
    """Return `np.percentile` of sorted values in double precision; NaN if one is."""
    if np.isnan(ascending[-1]):
        return float("nan")
    place = (len(ascending) - 1) * (percent / 100)
    below = int(place)
    low, high = (float(ascending[min(i, len(ascending) - 1)]) for i in (below, below + 1))
    share, step = place - below, high - low
    return low + step * share if share < 0.5 else high - step * (1 - share)
