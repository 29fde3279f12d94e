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

LOWEST = int(np.iinfo(np.int16).min)
PIECE = 64
"""Voxels that are looked at together."""

AT_ONCE = 2**14
"""Voxels of a label that stay in the cache."""

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
    whole: FloatArray = np.ascontiguousarray(image, np.float32)
    limits = np.stack([np.array(image.shape[1:]), np.zeros(3, np.int64)], axis=1).astype(np.int64)
    _find_limits(whole, limits)
    if limits[0, 1] == 0:
        raise DataError(
            "the image is zero everywhere, so there is nothing to crop to. Take the case out of "
            "dataset.json, or export it anew"
        )
    box = _box(limits)
    part, body = _cut(whole, box)
    flood_surroundings(body)
    seen = np.zeros(2**16, np.bool_)
    if label is None:
        inside: LabelMap = np.zeros(body.shape, np.int16)
    else:
        inside = label[_slices(box)].astype(np.int16)
    _mark_outside(inside.reshape(-1), body.reshape(-1), LOWEST, seen)
    classes = tuple((np.flatnonzero(seen) + LOWEST).tolist())
    if classes[0] < OUTSIDE:
        inside[inside < OUTSIDE] = 0
    return Cropped(part, inside, box, classes)


def _cut(image: FloatArray, box: Box) -> tuple[FloatArray, MaskArray]:
    """Return the part in the box, `image` itself if that is all, and where it is not zero."""
    sizes = tuple(stop - start for start, stop in box)
    body = np.zeros(sizes, np.uint8)
    if sizes == image.shape[1:]:
        for channel in image:
            _mark_body(channel.reshape(-1), body.reshape(-1))
        return image, body
    part = np.empty((len(image), *sizes), np.float32)
    (z, _), (y, _), (x, _) = box
    for channel, target in zip(image, part, strict=True):
        _copy_and_mark(channel, target, (z, y, x), body)
    return part, body


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
    """Mark the values that occur, piece by piece: most pieces hold one value."""
    for start in range(0, len(label), PIECE):
        _see_piece(label[start : start + PIECE], low, seen)


@compiled
def _see_piece(label: LabelMap, low: int, seen: BoolArray) -> None:
    first, differs = label[0], False
    for i in range(len(label)):
        differs |= label[i] != first
    seen[first - low] = True
    if differs:
        for value in label:
            seen[value - low] = True


@compiled
def _mark_outside(label: LabelMap, body: MaskArray, low: int, seen: BoolArray) -> None:
    """Make zeros outside the body OUTSIDE, and mark the values that then occur."""
    for start in range(0, len(label), AT_ONCE):
        piece, mask = label[start : start + AT_ONCE], body[start : start + AT_ONCE]
        for i in range(len(piece)):
            outside = (piece[i] == 0) & (mask[i] == SURROUNDINGS)
            piece[i] = OUTSIDE if outside else piece[i]
        _see(piece, low, seen)


@compiled
def _find_limits(image: FloatArray, limits: IntArray) -> None:
    """Stretch `limits` (3, 2) around the non-zero voxels of an image (C, D, H, W).

    What lies within the limits so far is not looked at.
    """
    channels, depth, height, width = image.shape
    z_limits, y_limits, x_limits = limits
    for c in range(channels):
        for z in range(depth):
            for y in range(height):
                row = image[c, z, y]
                known = z_limits[0] <= z < z_limits[1] and y_limits[0] <= y < y_limits[1]
                first = _first_filled(row[: x_limits[0]] if known else row)
                if not known:
                    if first == width:
                        continue
                    z_limits[0], z_limits[1] = min(z_limits[0], z), max(z_limits[1], z + 1)
                    y_limits[0], y_limits[1] = min(y_limits[0], y), max(y_limits[1], y + 1)
                x_limits[0] = min(x_limits[0], first)
                beyond = row[x_limits[1] :]
                x_limits[1] += _end_of_filled(beyond)


@compiled
def _is_filled(piece: FloatArray) -> bool:
    filled = False
    for i in range(len(piece)):
        filled |= piece[i] != 0
    return filled


@compiled
def _first_filled(row: FloatArray) -> int:
    """Return the place of the first entry that is not zero, or the length."""
    start = 0
    while start < len(row) and not _is_filled(row[start : start + PIECE]):
        start += PIECE
    while start < len(row) and row[start] == 0:
        start += 1
    return min(start, len(row))


@compiled
def _end_of_filled(row: FloatArray) -> int:
    """Return one past the last entry that is not zero, or 0."""
    stop = len(row)
    while stop > 0 and not _is_filled(row[max(stop - PIECE, 0) : stop]):
        stop -= PIECE
    while stop > 0 and row[stop - 1] == 0:
        stop -= 1
    return max(stop, 0)


@compiled
def _mark_body(channel: FloatArray, body: MaskArray) -> None:
    for i in range(len(channel)):
        body[i] |= channel[i] != 0


@compiled
def _copy_and_mark(
    channel: FloatArray, part: FloatArray, starts: tuple[int, int, int], body: MaskArray
) -> None:
    """Copy what of a channel begins at `starts` into `part`, and add what is not 0 to `body`."""
    depth, height, width = part.shape
    z0, y0, x0 = starts
    for z in range(depth):
        for y in range(height):
            part[z, y] = channel[z0 + z, y0 + y, x0 : x0 + width]
        _mark_body(part[z].reshape(-1), body[z].reshape(-1))


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
        y = _next_meeting(mask, z, 1)
        while y < height - 1:
            row = mask[z, y]
            a, b, c, d = mask[z - 1, y], mask[z, y - 1], mask[z, y + 1], mask[z + 1, y]
            for x in range(width):
                if row[x] == EMPTY and (a[x] | b[x] | c[x] | d[x]) & SURROUNDINGS:
                    stack = _flood_from(mask, stack, z, y, x)
            y = _next_meeting(mask, z, y + 1)


@compiled
def _next_meeting(mask: MaskArray, z: int, y: int) -> int:
    """Return the next row from `y` on that has zeros beside surroundings in one around it.

    The last row of a plane is never asked about: it is returned if there is no other.
    """
    last = mask.shape[1] - 1
    while y < last:
        row, meets = mask[z, y], False
        a, b, c, d = mask[z - 1, y], mask[z, y - 1], mask[z, y + 1], mask[z + 1, y]
        for x in range(len(row)):
            meets |= (row[x] == EMPTY) & (((a[x] | b[x] | c[x] | d[x]) & SURROUNDINGS) != 0)
        if meets:
            break
        y += 1
    return y


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
