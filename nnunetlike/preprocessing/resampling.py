"""Images on another grid: which axis is handled apart, and splines of order 0, 1 and 3.

Axes: C channels, D, H, W.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from nnunetlike.core.errors import ShapeError, UsageError
from nnunetlike.core.typing import FloatArray, Size
from nnunetlike.preprocessing.splines import resize_depth, resize_planes, ruler
from nnunetlike.preprocessing.taps import Indices, nearest

ORDERS = (0, 1, 3)
ANISOTROPY = 3
"""Largest ratio of spacings at which all axes are still resampled together."""

PIECE = 2**18
"""Voxels whose range is sought together: they stay in the cache."""

Scalar = TypeVar("Scalar", bound=np.generic)
_Step: TypeAlias = Callable[[FloatArray, FloatArray, int, FloatArray], None]


def separate_axis(
    original_spacing: Sequence[float], target_spacing: Sequence[float], force: bool | None = None
) -> int | None:
    """Return the axis that is resampled apart from the others, or None.

    An axis more than three times as coarse as the finest carries no information between its
    slices; they are resampled each for itself. The original spacing decides, then the target. Two
    or three equally coarse axes: None.

    Args:
        original_spacing: mm per axis, before.
        target_spacing: mm per axis, after.
        force: True takes the coarsest original axis whatever its ratio, False none.
    """
    if force is not None:
        return _coarsest(original_spacing) if force else None
    for spacing in (original_spacing, target_spacing):
        if max(spacing) / min(spacing) > ANISOTROPY:
            return _coarsest(spacing)
    return None


def _coarsest(spacing: Sequence[float]) -> int | None:
    axes = [axis for axis, value in enumerate(spacing) if max(spacing) / value == 1]
    return axes[0] if len(axes) == 1 else None


def check_request(
    shape: Sequence[int], order: int, axis: int | None, order_z: int
) -> tuple[int, int, int]:
    """Return the new shape as a tuple, if the request can be met.

    Raises:
        UsageError: the orders or the axis are not known here.
        ShapeError: the shape is not three positive numbers.
    """
    for name, value in (("order", order), ("order_z", order_z)):
        if value not in ORDERS:
            raise UsageError(f"{name} {value} is not known; resampling has orders 0, 1 and 3")
    if axis not in (None, 0, 1, 2):
        raise UsageError(f"axis {axis} does not exist; the separate axis is 0, 1, 2 or None")
    if len(shape) != 3 or min(shape) < 1:
        raise ShapeError(f"cannot resample to {tuple(shape)}: three axes of at least one voxel")
    depth, height, width = (int(n) for n in shape)
    return depth, height, width


def resample_image(
    image: npt.NDArray[Scalar],
    shape: Sequence[int],
    *,
    order: int = 3,
    axis: int | None = None,
    order_z: int = 0,
    double: bool = False,
    out: npt.NDArray[Scalar] | None = None,
) -> npt.NDArray[Scalar]:
    """Return `image` on a grid of another shape over the same extent.

    Edge voxels are repeated outwards, nothing is smoothed before, and the result is clipped to the
    range of the channel (of each slice, if an axis is separate), for cubic splines overshoot.
    Agrees with scikit-image's `resize` in double precision to 1e-6 of the range.

    Args:
        image: (C, D, H, W).
        shape: new (D, H, W).
        order: of the spline, 0, 1 or 3; in the slices only, if an axis is separate.
        axis: the separate axis, or None.
        order_z: of the spline along the separate axis, 0, 1 or 3, not clipped.
        double: compute in double precision, as is done but for 16 and 32 bit floats.
        out: where to write the result, of its shape and dtype, if anything is written.

    Returns:
        (C, *shape) in the dtype of `image`; `image` itself if the shape is unchanged.

    Raises:
        UsageError: an order or axis is not known.
        ShapeError: the image or the shape has the wrong number of axes.
    """
    if image.ndim != 4:
        raise ShapeError(f"an image has the axes C, D, H, W; this one has shape {image.shape}")
    new_shape = check_request(shape, order, axis, order_z)
    if image.shape[1:] == new_shape:
        return image
    result = np.empty((len(image), *new_shape), image.dtype) if out is None else out
    single = not double and image.dtype in (np.float16, np.float32)
    precision = np.float32 if single else np.float64
    for channel, place in zip(image, result, strict=True):
        if axis is None:
            _resize(channel, place, order, precision)
        else:
            turned = np.moveaxis(channel, axis, 0)
            _resize_apart(turned, np.moveaxis(place, axis, 0), order, order_z, precision)
    return result


def _readable(channel: npt.NDArray[Any], precision: npt.DTypeLike) -> FloatArray:
    """Return a channel as the loops read it: contiguous, of 32 or 64 bit floats."""
    dtype = channel.dtype if channel.dtype in (np.float32, np.float64) else precision
    return np.ascontiguousarray(channel, dtype)


def _frame(values: FloatArray) -> tuple[float, float, float]:
    """Return the middle, lowest and highest of `values`, missing ones (NaN) left out."""
    flat = values.reshape(-1)
    pieces = [flat[start : start + PIECE] for start in range(0, len(flat), PIECE)]
    ends = np.array([(np.fmin.reduce(piece), np.fmax.reduce(piece)) for piece in pieces])
    low, high = float(np.fmin.reduce(ends[:, 0])), float(np.fmax.reduce(ends[:, 1]))
    middle = low / 2 + high / 2
    return (middle if np.isfinite(middle) else 0.0), low, high


def _resize(
    channel: npt.NDArray[Any], out: npt.NDArray[Any], order: int, precision: npt.DTypeLike
) -> None:
    """Write `channel` (D, H, W), resized along all axes together, into `out`."""
    if order == 0:
        out[:] = channel[np.ix_(*map(nearest, channel.shape, out.shape))]
        return
    source = _readable(channel, precision)
    middle, low, high = _frame(source)
    steps: list[_Step] = []
    if len(source) != len(out):
        steps.append(_resize_depth)
    if source.shape[1:] != out.shape[1:]:
        steps.append(_resize_planes)
    if len(out) * source[0].size > len(source) * out[0].size:  # the smaller result first
        steps.reverse()
    for step in steps:
        frame: FloatArray = np.array([0, 0, -np.inf, np.inf], precision)
        if step is steps[0]:
            frame[0] = middle
        if step is steps[-1]:
            frame[1:] = middle, low, high
        shape = (
            (len(out), *source.shape[1:])
            if step is _resize_depth
            else (len(source), *out.shape[1:])
        )
        target = _last_array(out) if step is steps[-1] else _array_for(out, shape, precision, order)
        step(source, target, order, frame)
        source = target
    if source is not out:
        out[:] = source


def _array_for(
    out: npt.NDArray[Any], shape: Size, precision: npt.DTypeLike, order: int
) -> npt.NDArray[Any]:
    """Return the first slices of `out` if they can hold what its first axis is made of.

    That is, a spline reads a line of that axis before it writes it. Else return a new array.
    """
    fits = out.dtype == precision and out.flags.c_contiguous and out.shape[1:] == shape[1:]
    return (
        out[: shape[0]]
        if fits and order == 3 and len(out) > shape[0]
        else np.empty(shape, precision)
    )


def _last_array(out: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return `out` if the loops can write into it, else a new array for what it will hold."""
    floating = out.dtype in (np.float32, np.float64)
    direct = floating and out.flags.c_contiguous
    return out if direct else np.empty(out.shape, out.dtype if floating else np.float64)


def _resize_depth(source: FloatArray, target: FloatArray, order: int, frame: FloatArray) -> None:
    rows, target_rows = (array.reshape(len(array), -1) for array in (source, target))
    resize_depth(rows, target_rows, ruler(len(source), len(target), order, frame.dtype), frame)


def _resize_planes(source: FloatArray, target: FloatArray, order: int, frame: FloatArray) -> None:
    frames = np.ascontiguousarray(np.broadcast_to(frame.reshape(-1, 4), (len(source), 4)))
    _show_planes(source, target, np.arange(len(source)), order, frames)


def _show_planes(
    source: FloatArray, target: FloatArray, planes: Indices, order: int, frames: FloatArray
) -> None:
    down, across = (
        ruler(old, new, order, frames.dtype)
        for old, new in zip(source.shape[1:], target.shape[1:], strict=True)
    )
    resize_planes(source, target, planes, down, across, frames)


def _resize_apart(
    channel: npt.NDArray[Any],
    out: npt.NDArray[Any],
    order: int,
    order_z: int,
    precision: npt.DTypeLike,
) -> None:
    """Write `channel`, resized slice by slice and then along the first axis, into `out`."""
    every = np.arange(len(channel))
    along = nearest(len(channel), len(out)) if order_z == 0 else every
    last = len(along) == len(out)
    shape = (len(along), *out.shape[1:])
    slices = _last_array(out) if last else _array_for(out, shape, precision, order_z)
    if channel.shape[1:] == out.shape[1:]:
        slices[:] = channel[along]
    elif order == 0:
        rows, columns = map(nearest, channel.shape[1:], out.shape[1:])
        slices[:] = channel[np.ix_(along, rows, columns)]
    else:
        source = _readable(channel, precision)
        frames: FloatArray = np.zeros((len(source), 4), precision)
        for plane in np.unique(along):
            middle, low, high = _frame(source[plane])
            frames[plane] = middle, middle, low, high
        _show_planes(source, slices, along, order, frames)
    if not last:
        target = _last_array(out)
        _resize_depth(slices, target, order_z, np.array([0, 0, -np.inf, np.inf], precision))
        slices = target
    if slices is not out:
        out[:] = slices
