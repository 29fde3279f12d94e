"""Label maps of probabilities that come slab by slab, none of which is kept.

A new voxel is settled as soon as the old voxels around it have been seen, so of the slabs only the
last slice is held. Axes: K classes, D, H, W; slabs follow one another along one of D, H and W.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnunetlike.core.typing import FloatArray, LabelMap
from nnunetlike.preprocessing.label_export import (
    Manner,
    empty_winners,
    fill_winners,
    is_streamed,
    labels_of,
    resampled_argmax,
    taps_of,
)
from nnunetlike.preprocessing.resampling import check_request
from nnunetlike.preprocessing.taps import LinearTaps


class LabelStream:
    """What `resampled_argmax` gives for the slabs put together, voxel for voxel.

    Splines of order 3 need all slices of a class at once: the slabs are kept then.

    Args:
        old: (D, H, W) of all slabs together.
        shape: new (D, H, W).
        classes: number of channels.
        along: axis, 0, 1 or 2, along which the slabs follow one another.
        order: as in `resampled_argmax`, as are the others.
        axis: the separate axis, or None.
        order_z: of the interpolation along the separate axis.
        regions: the label of each channel, or None.

    Raises:
        UsageError: an order or axis is not known.
        ShapeError: `regions` has not one label per channel.
    """

    def __init__(
        self,
        old: Sequence[int],
        shape: Sequence[int],
        classes: int,
        *,
        along: int = 0,
        order: int = 1,
        axis: int | None = None,
        order_z: int = 0,
        regions: Sequence[int] | None = None,
    ) -> None:
        self._manner: Manner = (order, axis, order_z)
        self._regions = regions
        self._along = along
        new = check_request(shape, *self._manner)
        self._winners = empty_winners(classes, new, regions)
        self._taps = taps_of(old, new, self._manner)
        self._seen = self._settled = 0
        self._last: FloatArray | None = None
        self._kept: list[FloatArray] | None = None if is_streamed(old, new, self._manner) else []

    def see(self, slab: FloatArray) -> None:
        """Take the next slab (K, D, H, W) and settle what lies before its last slice."""
        if self._kept is not None:
            self._kept.append(slab)
            return
        axis = 1 + self._along
        block = slab if self._last is None else np.concatenate([self._last, slab], axis=axis)
        self._seen += slab.shape[axis]
        first = self._seen - block.shape[axis]
        taps = self._taps[self._along]
        begin, stop = self._settled, int(np.searchsorted(taps.high, self._seen, side="left"))
        if begin < stop:
            moved = LinearTaps(
                taps.low[begin:stop] - first,
                taps.high[begin:stop] - first,
                taps.low_weight[begin:stop],
                taps.high_weight[begin:stop],
            )
            every = [moved if n == self._along else t for n, t in enumerate(self._taps)]
            part = np.moveaxis(
                np.moveaxis(self._winners, self._along, 0)[begin:stop], 0, self._along
            )
            apart = 0 if self._manner[1] is None else self._manner[1]
            fill_winners(block, part, every, apart, self._regions is not None)
            self._settled = stop
        self._last = block.take([-1], axis=axis)

    def label(self) -> LabelMap:
        """Return the label map (D, H, W), uint8, or uint16 if a label exceeds 255."""
        if self._kept is None:
            return labels_of(self._winners, self._regions)
        order, axis, order_z = self._manner
        slabs = self._kept
        whole = slabs[0] if len(slabs) == 1 else np.concatenate(slabs, axis=1 + self._along)
        return resampled_argmax(
            whole, self._winners.shape, order=order,
            axis=axis, order_z=order_z, regions=self._regions,
        )  # fmt: skip
