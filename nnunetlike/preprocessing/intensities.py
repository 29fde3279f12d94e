"""Foreground intensities: a sample of one case, and the numbers planning keeps of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nnunetlike.core.compiled import compiled
from nnunetlike.core.typing import FloatArray, LabelMap
from nnunetlike.plans.fingerprint import IntensityStatistics

STRIDE = 10
"""One foreground voxel of so many is looked at."""


def foreground_sample(channel: FloatArray, label: LabelMap) -> npt.NDArray[np.float32]:
    """Return every tenth voxel of `channel` with a label above 0, in C order.

    Args:
        channel: (D, H, W).
        label: (D, H, W); without foreground the result is empty.
    """
    values = np.ascontiguousarray(channel, np.float32).reshape(-1)
    flat = np.ascontiguousarray(label).reshape(-1)
    foreground = int(np.count_nonzero(flat > 0))
    out = np.empty(-(-foreground // STRIDE), np.float32)
    _collect(values, flat, out)
    return out


@compiled
def _collect(values: FloatArray, label: LabelMap, out: FloatArray) -> None:
    rank = 0
    for i in range(len(label)):
        if label[i] > 0:
            if rank % STRIDE == 0:
                out[rank // STRIDE] = values[i]
            rank += 1


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
    low, high = np.percentile(single.astype(np.float64), (0.5, 99.5))
    return IntensityStatistics(
        median=float(np.median(single)),
        mean=float(np.mean(single)),
        sd=float(np.std(single)),
        mn=float(np.min(single)),
        mx=float(np.max(single)),
        percentile_99_5=float(high),
        percentile_00_5=float(low),
    )
