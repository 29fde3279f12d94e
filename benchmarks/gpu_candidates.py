"""Augmentation on a device, and resampling and export, to see whether they would be worth it.

The package does the latter two on the CPU, beside the network: docs/decisions/0017. What a device
would take from arrays in main memory to results there, or from sums that it holds already, is
compared here with what one thread of the CPU takes.

Axes: C channels or K classes, D, H, W.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.gpu import Settings
from benchmarks.roofline import median_time
from benchmarks.stages import synthetic
from nnunetlike.core.typing import FloatArray
from nnunetlike.preprocessing.banded import Banded, resize_matrix
from nnunetlike.preprocessing.label_export import resampled_argmax
from nnunetlike.preprocessing.resampling import resample_image
from nnunetlike.preprocessing.taps import linear_taps

SLAB = 16
"""Slices of the result that are interpolated together."""

ROUNDS = 3
FINER = (1.5, 1.83, 1.83)
"""New over old voxels of the export, along each axis."""

CLASSES = 25


def resampled_on(device: torch.device, channel: FloatArray, shape: Sequence[int]) -> FloatArray:
    """Return a channel (D, H, W) on a grid of another shape by cubic splines, clipped to its range.

    The values, float32, go to the device and come back.
    """
    values = torch.from_numpy(np.ascontiguousarray(channel, np.float32)).to(device)
    low, high = values.aminmax()
    middle = (low + high) / 2
    values = values - middle
    order = sorted(range(3), key=lambda axis: shape[axis] / channel.shape[axis])
    for axis in order:  # the smaller result first
        matrix = resize_matrix(channel.shape[axis], shape[axis])
        values = Banded.of(matrix, device).along(values, axis)
    found: FloatArray = (values + middle).clamp_(low, high).cpu().numpy()
    return found


def linear_matrix(old: int, new: int) -> npt.NDArray[np.float64]:
    """Return how an axis of `old` samples becomes one of `new` by linear interpolation."""
    taps, matrix = linear_taps(old, new), np.zeros((new, old))
    np.add.at(matrix, (np.arange(new), taps.low), taps.low_weight)
    np.add.at(matrix, (np.arange(new), taps.high), taps.high_weight)
    return matrix


def argmax_on(sums: Tensor, shape: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Return the winning class of each voxel of a finer grid, the lowest among equals.

    Only a slab of one class is interpolated at a time, so memory does not grow with the classes.

    Args:
        sums: (K, D, H, W) on the device, K up to 256.
        shape: new (D, H, W); linear interpolation.
    """
    device, old = sums.device, sums.shape[1:]
    depth = linear_matrix(old[0], shape[0])
    plane = [Banded.of(linear_matrix(old[a], shape[a]), device) for a in (1, 2)]
    winners = np.empty(tuple(shape), np.uint8)
    for begin in range(0, shape[0], SLAB):
        rows = depth[begin : begin + SLAB]
        seen = np.flatnonzero(rows.any(axis=0))
        part = slice(seen[0], seen[-1] + 1)
        across = Banded.of(rows[:, part], device)
        best: Tensor | None = None
        winner = torch.zeros(len(rows), *shape[1:], dtype=torch.uint8, device=device)
        for k, channel in enumerate(sums[:, part]):
            values = across.along(channel, 0)
            for axis, banded in enumerate(plane, start=1):
                values = banded.along(values, axis)
            if best is None:
                best = values
            else:
                winner.masked_fill_(values > best, k)
                torch.maximum(values, best, out=best)
        winners[begin : begin + len(rows)] = winner.cpu().numpy()
    return winners


def augmentation(settings: Settings, give: Callable[..., None]) -> None:
    """Time what `--augment_on device` does to a patch, and how long its launches take the host."""
    from nnunetlike.training.augmentation.policies import AugmentationPolicy, Changes
    from nnunetlike.training.augmentation.spatial import Affine, source_spans
    from nnunetlike.training.device_augmentation.batches import augmented
    from nnunetlike.training.device_augmentation.orders import PatchOrder

    device, patch = torch.device(settings.device), settings.patch
    read = AugmentationPolicy(angles=((-0.5, 0.5),) * 3, mirror_axes=()).generator_patch_size(patch)
    turned, scaled = Affine((0.3, -0.2, 0.4), 1.1), Affine((0.0, 0.0, 0.0), 1.1)
    kinds = {
        "rotated and scaled": Changes(affine=turned),
        "scaled": Changes(affine=scaled),
        "noise, blur, low resolution, gamma": Changes(
            noise_sd=0.1, blur_sigmas=(0.8,), zooms=(0.6,), gammas=(0.8,)
        ),
    }
    for name, changes in kinds.items():
        spans = source_spans(changes.affine or scaled, read, patch)
        order = PatchOrder(
            changes=changes, patch_size=patch, source=read, origin=tuple(a for a, _ in spans)
        )
        shape = [b - a for a, b in spans] if changes.affine else list(patch)
        image, label = torch.randn(1, *shape), torch.zeros(shape, dtype=torch.int16)
        if device.type == "cuda":
            image, label = image.pin_memory(), label.pin_memory()
        batch: Any = {"image": [image], "label": [label], "orders": [order], "case_ids": []}
        launched: list[float] = []

        def call(batch: Any = batch, launched: list[float] = launched) -> None:
            begin = time.perf_counter()
            augmented(batch, device)
            launched.append(time.perf_counter() - begin)

        seconds = median_time(call, settings.device)
        give(what=f"a patch of {_extent(patch)} augmented: {name}", seconds=seconds,
             note=f"launched in {1e3 * min(launched):.1f} ms")  # fmt: skip


def candidates(settings: Settings, home: Path, give: Callable[..., None]) -> None:
    """Time augmentation, then both ways to resample an image and to settle labels."""
    torch.set_num_threads(1)
    augmentation(settings, give)
    device, rng = torch.device(settings.device), np.random.default_rng(0)
    old = settings.image
    new = tuple(int(n * f) for n, f in zip(old, (5 / 3, 0.8, 0.8), strict=True))
    image = synthetic.image(rng, old)
    ours, theirs = lambda: resample_image(image, new), lambda: resampled_on(device, image[0], new)
    error = float(np.abs(ours()[0] - theirs()).max() / np.ptp(image))
    title = f"image {_extent(old)} to {_extent(new)}, order 3"
    give(what=f"{title}, one thread of the CPU", seconds=_best(ours))
    give(what=f"{title}, device and back", seconds=_best(theirs), note=f"{error:.0e} of range off")
    small = tuple(int(n / f) for n, f in zip(old, FINER, strict=True))
    fields = synthetic.fields(rng, small, CLASSES).astype(np.float32)
    sums = torch.from_numpy(fields).to(device)
    settle: Callable[[], Any] = lambda: resampled_argmax(fields, old)  # noqa: E731 - timed twice
    on_device: Callable[[], Any] = lambda: argmax_on(sums, old)  # noqa: E731 - timed twice
    differ = float(np.mean(settle() != on_device()))
    title = f"labels of {CLASSES} classes, {_extent(small)} to {_extent(old)}"
    give(what=f"{title}, one thread of the CPU", seconds=_best(settle))
    give(what=f"{title}, sums on the device", seconds=_best(on_device),
         note=f"{differ:.0e} of labels differ")  # fmt: skip


def _extent(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _best(call: Callable[[], Any]) -> float:
    """Return the seconds of the fastest of some calls; each ends with its result on the host."""
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)
