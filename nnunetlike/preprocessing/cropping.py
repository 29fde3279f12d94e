"""The box around everything that is not zero, and the mask of what is outside the body in it.

Axes: C channels, D, H, W.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunetlike.core.compiled import compiled
from nnunetlike.core.errors import DataError, ShapeError
from nnunetlike.core.typing import BoolArray, FloatArray, IntArray, LabelMap, Shape3
from nnunetlike.data.record import Box

OUTSIDE = -1
"""Label of a voxel that belongs to the surroundings of the body."""

EMPTY, BODY, SURROUNDINGS = 0, 1, 2
MaskArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Cropped:
    """A case reduced to the box around its non-zero voxels."""

    image: FloatArray
    """(C, d, h, w), float32; the memory is that of the file's image if nothing was cut off."""

    label: LabelMap
    """(d, h, w), int16; -1 is outside the non-zero mask, zero within where no label was given."""

    box: Box
    """Half-open limits along D, H and W of the file."""

    classes: tuple[int, ...] = ()
    """Values of the label in ascending order, as v1 records them: -1 is among them, and values
    below -1 too, although those became 0 in `label`."""


def crop_to_nonzero(image: npt.NDArray[Any], label: LabelMap | None) -> Cropped:
    """Return the part of a case around the voxels that are not zero in some channel.

    The mask of these voxels has its holes filled (a hole touches the outside by no face); label 0
    outside it becomes -1.

    Args:
        image: (C, D, H, W).
        label: (D, H, W), or None.

    Raises:
        DataError: the image is zero everywhere.
        ShapeError: the image has not four axes, or the label another grid.
    """
    if image.ndim != 4:
        raise ShapeError(f"an image has the axes C, D, H, W; this one has shape {image.shape}")
    if label is not None and label.shape != image.shape[1:]:
        raise ShapeError(f"the label has shape {label.shape} but the image {image.shape[1:]}")
    mask = np.zeros(image.shape[1:], np.uint8)
    limits = np.stack([np.array(mask.shape), np.zeros(3, np.int64)], axis=1).astype(np.int64)
    for channel in np.ascontiguousarray(image, np.float32):
        _mark_body(channel, mask, limits)
    if limits[0, 1] == 0:
        raise DataError(
            "the image is zero everywhere, so there is nothing to crop to. Take the case out of "
            "dataset.json, or export it anew"
        )
    box = _box(limits)
    window = _slices(box)
    body = np.ascontiguousarray(mask[window])
    flood_surroundings(body)
    inside = np.zeros(body.shape, np.int16) if label is None else label[window].astype(np.int16)
    _mark_outside(inside.reshape(-1), body.reshape(-1))
    classes = present_labels(inside)
    if classes[0] < OUTSIDE:
        inside[inside < OUTSIDE] = 0
    part = np.ascontiguousarray(image[(slice(None), *window)], np.float32)
    return Cropped(part, inside, box, classes)


def uncrop(label: npt.NDArray[Any], box: Box, shape: Shape3) -> npt.NDArray[Any]:
    """Return a volume of zeros of `shape` with `label` in `box`.

    Raises:
        ShapeError: the label does not fill the box, or the box leaves the volume.
    """
    sizes = tuple(stop - start for start, stop in box)
    if label.shape != sizes or any(
        start < 0 or stop > n for (start, stop), n in zip(box, shape, strict=True)
    ):
        raise ShapeError(f"label {label.shape} does not fit box {box} of a volume {shape}")
    whole = np.zeros(shape, label.dtype)
    whole[_slices(box)] = label
    return whole


def present_labels(label: LabelMap) -> tuple[int, ...]:
    """Return the values that occur in `label`, ascending."""
    if label.dtype.itemsize <= 2:
        low, high = np.iinfo(label.dtype).min, np.iinfo(label.dtype).max
    else:
        low, high = int(label.min()), int(label.max())
    seen = np.zeros(high - low + 1, np.bool_)
    _see(np.ascontiguousarray(label).reshape(-1), low, seen)
    return tuple((np.flatnonzero(seen) + low).tolist())


def flood_surroundings(mask: MaskArray) -> None:
    """Mark the zeros of `mask` that reach its faces as SURROUNDINGS, in place.

    Zeros are connected through faces (six neighbours); those left are holes in the body.
    """
    if mask.all():
        return
    _flood(mask, np.empty((1024, 3), np.int32))


def _box(limits: IntArray) -> Box:
    (z0, z1), (y0, y1), (x0, x1) = limits.tolist()
    return (z0, z1), (y0, y1), (x0, x1)


def _slices(box: Box) -> tuple[slice, slice, slice]:
    depth, height, width = (slice(start, stop) for start, stop in box)
    return depth, height, width


@compiled
def _see(label: LabelMap, low: int, seen: BoolArray) -> None:
    before = label[0]
    seen[before - low] = True
    for value in label:
        if value != before:
            seen[value - low] = True
            before = value


@compiled
def _mark_outside(label: LabelMap, mask: MaskArray) -> None:
    for i in range(len(label)):
        outside = label[i] == 0 and mask[i] == SURROUNDINGS
        label[i] = OUTSIDE if outside else label[i]


@compiled
def _mark_body(channel: FloatArray, mask: MaskArray, limits: IntArray) -> None:
    """Add the non-zero voxels of a channel to the mask and stretch `limits` (3, 2) around them."""
    depth, height, width = channel.shape
    for z in range(depth):
        for y in range(height):
            row, row_mask = channel[z, y], mask[z, y]
            count = 0
            for x in range(width):
                filled = row[x] != 0
                row_mask[x] |= filled
                count += filled
            if count == 0:
                continue
            limits[0, 0], limits[0, 1] = min(limits[0, 0], z), max(limits[0, 1], z + 1)
            limits[1, 0], limits[1, 1] = min(limits[1, 0], y), max(limits[1, 1], y + 1)
            x = 0
            while x < limits[2, 0] and row[x] == 0:
                x += 1
            limits[2, 0] = min(limits[2, 0], x)
            x = width
            while x > limits[2, 1] and row[x - 1] == 0:
                x -= 1
            limits[2, 1] = max(limits[2, 1], x)


@compiled
def _flood(mask: MaskArray, stack: IntArray) -> None:
    """Mark what faces reach along rows, then flood what lies beside it; `stack` is scratch (n, 3).

    After the first step little is left of what surrounds a body, and that is found row by row.
    """
    depth, height, width = mask.shape
    for z in range(depth):
        for y in range(height):
            _fill_ends(mask[z, y])
            if z in (0, depth - 1) or y in (0, height - 1):
                for x in range(width):
                    mask[z, y, x] = BODY if mask[z, y, x] == BODY else SURROUNDINGS
    for z in range(1, depth - 1):
        for y in range(1, height - 1):
            row = mask[z, y]
            a, b, c, d = mask[z - 1, y], mask[z, y - 1], mask[z, y + 1], mask[z + 1, y]
            meet = 0
            for x in range(width):
                meet += (row[x] == EMPTY) & ((a[x] | b[x] | c[x] | d[x]) >= SURROUNDINGS)
            for x in range(width if meet else 0):
                if row[x] == EMPTY and (a[x] | b[x] | c[x] | d[x]) >= SURROUNDINGS:
                    stack = _flood_from(mask, stack, z, y, x)


@compiled
def _fill_ends(row: MaskArray) -> None:
    """Mark the zeros before the first body voxel of a row and behind the last."""
    x = 0
    while x < len(row) and row[x] == EMPTY:
        row[x] = SURROUNDINGS
        x += 1
    x = len(row) - 1
    while x >= 0 and row[x] == EMPTY:
        row[x] = SURROUNDINGS
        x -= 1


@compiled
def _flood_from(mask: MaskArray, stack: IntArray, z: int, y: int, x: int) -> IntArray:
    """Flood all zeros connected to one; return the stack, which may have grown."""
    depth, height, width = mask.shape
    stack[0, 0], stack[0, 1], stack[0, 2] = z, y, x
    count = 1
    while count > 0:
        count -= 1
        z, y, x = stack[count, 0], stack[count, 1], stack[count, 2]
        row = mask[z, y]
        if row[x] != EMPTY:
            continue
        start, stop = _fill_run(row, x)
        if count + 4 * (stop - start + 1) >= len(stack):
            longer = np.empty((2 * len(stack) + 4 * width, 3), stack.dtype)
            longer[: len(stack)] = stack
            stack = longer
        if z > 0:
            count = _push_runs(mask, stack, count, z - 1, y, start, stop)
        if z < depth - 1:
            count = _push_runs(mask, stack, count, z + 1, y, start, stop)
        if y > 0:
            count = _push_runs(mask, stack, count, z, y - 1, start, stop)
        if y < height - 1:
            count = _push_runs(mask, stack, count, z, y + 1, start, stop)
    return stack


@compiled
def _fill_run(row: MaskArray, x: int) -> tuple[int, int]:
    """Mark the run of zeros around `x` and return its limits."""
    start = x
    while start > 0 and row[start - 1] == EMPTY:
        start -= 1
    stop = x + 1
    while stop < len(row) and row[stop] == EMPTY:
        stop += 1
    row[start:stop] = SURROUNDINGS
    return start, stop


@compiled
def _push_runs(
    mask: MaskArray, stack: IntArray, count: int, z: int, y: int, start: int, stop: int
) -> int:
    """Push the first voxel of each run of zeros in part of a row; return the new count."""
    row = mask[z, y]
    inside = False
    for x in range(start, stop):
        empty = row[x] == EMPTY
        if empty and not inside:
            stack[count, 0], stack[count, 1], stack[count, 2] = z, y, x
            count += 1
        inside = empty
    return count
