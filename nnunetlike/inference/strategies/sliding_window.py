"""Overlapping windows, weighted by a Gaussian and averaged over mirrored views.

Axes: B windows of one pass, C image channels, K classes, D, H, W. Sums are float32. Windows go
along D slowest, so slices that no further window reaches are finished and handed on; sums are held
of as many slices as a window is deep, 4·K bytes per voxel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, combinations, product
from math import prod
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from nnunetlike.core.typing import FloatArray, Size
from nnunetlike.inference.strategies import STRATEGIES, Request, SlabStrategy
from nnunetlike.inference.windows import axis_weights, padded_shape, padding, window_starts

VOXELS_PER_PASS = {"cpu": 2**18, "cuda": 2**22}
"""Small windows go through the network together up to so many voxels."""

SLAB_BYTES = 2**23
"""Slabs are handed on in pieces of about this size, at least a slice each."""

Place = tuple[slice, npt.NDArray[np.float32]]
"""Where a window lies on an axis, and its weights there."""


def slabs(
    network: nn.Module, image: FloatArray, request: Request, *, whole: bool = False
) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the class probabilities of an image, (K, d, H, W) float32, first slices first.

    The image is padded with 0 to at least one window. A network with two axes sees the image slice
    by slice along D. A single window has the weight 1 everywhere.

    Args:
        network: gives logits (B, K, *patch); has the attributes `classes` and, for untiled
            prediction, `input_divisor`; lies on `request.device` in evaluation mode.
        image: (C, D, H, W) float32.
        request: window, step, mirroring, device.
        whole: yield the whole image at once.

    Yields:
        Probabilities, or logits if asked for, in main memory.

    Raises:
        UsageError: the step is not in (0, 1].

    Source: Isensee et al., "nnU-Net", Nature Methods 2021.
    """
    lead = image.ndim - 1 - len(request.patch_size)
    inside = image.shape[1 + lead :]
    divisor = None if request.tiled else cast(Size, network.input_divisor)
    shape = padded_shape(inside, request.patch_size, divisor)
    window = request.patch_size if request.tiled else shape
    pads = [(0, 0)] * (1 + lead) + padding(inside, shape)
    _, depth, height, width = (slice(a, a + n) for (a, _), n in zip(pads, image.shape, strict=True))
    if shape != inside:
        image = np.pad(image, pads)
    source = torch.from_numpy(np.ascontiguousarray(image, np.float32))
    begin = 0
    for finished in _finished(network, source, window, request, whole):
        stop = begin + finished.shape[1]
        kept = slice(max(depth.start - begin, 0), max(min(depth.stop, stop) - begin, 0))
        begin = stop
        if kept.stop > kept.start:
            found = finished[:, kept, height, width]
            yield found.to("cpu", copy=not whole).contiguous().numpy()


def _finished(
    network: nn.Module, source: Tensor, window: Size, request: Request, whole: bool
) -> Iterator[Tensor]:
    """Yield the weighted sums (K, d, H, W) over all windows; the weights of a voxel sum to 1."""
    at_once = max(1, VOXELS_PER_PASS.get(request.device.type, 2**18) // prod(window))
    rows = list(_rows(tuple(source.shape[1:]), window, request, at_once))
    depth = source.shape[1] if whole else max(along.stop - along.start for (along, _), _ in rows)
    shape = (cast(int, network.classes), depth, *source.shape[2:])
    home = request.device if _fits(shape, source, request) else torch.device("cpu")
    source = source.to(home)
    sums = _Sums(torch.zeros(shape, dtype=torch.float32, device=home))
    views = _subsets(request.mirror_axes)
    for number, ((along, factors), across) in enumerate(rows):
        with ExitStack() as modes:  # not while the caller is at work
            modes.enter_context(torch.inference_mode())
            if request.autocast is not None:
                modes.enter_context(torch.autocast(request.device.type, dtype=request.autocast))
            for places in across:
                block = (along, *(place for place, _ in places))
                patch = source[(slice(None), *block)].to(request.device)
                batch = patch[None] if len(window) == 3 else patch.transpose(0, 1)
                mean = _mean_over_views(network, batch, views, at_once, request.logits).to(home)
                mean = mean[0] if len(window) == 3 else mean.transpose(0, 1)
                sums.add(mean, block, _weight(*factors, *(weight for _, weight in places)))
        if not whole:
            last = number == len(rows) - 1
            yield from sums.taken_until(source.shape[1] if last else rows[number + 1][0][0].start)
    if whole:
        yield sums.values


class _Sums:
    """Sums of windows over slices that are not finished yet; slice z is at z modulo the depth.

    Args:
        values: zeros (K, depth, H, W).
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self._begin = 0

    def add(self, mean: Tensor, block: Sequence[slice], weight: Tensor) -> None:
        """Add a window (K, d, h, w) at its place, weighted."""
        along, *across = block
        weight = weight.to(self.values.device)
        for slots, offset in self._runs(along.start, along.stop):
            part = slice(offset, offset + slots.stop - slots.start)
            share = weight[part] if weight.ndim == 3 else weight
            self.values[(slice(None), slots, *across)].addcmul_(mean[:, part], share)

    def taken_until(self, stop: int) -> Iterator[Tensor]:
        """Yield the slices before `stop` that were not yet, in pieces, and set them back to 0."""
        pieces = max(1, SLAB_BYTES // (4 * self.values[:, 0].numel()))
        for slots, _ in self._runs(self._begin, stop):
            for begin in range(slots.start, slots.stop, pieces):
                piece = self.values[:, begin : min(begin + pieces, slots.stop)]
                yield piece
                piece.zero_()
        self._begin = stop

    def _runs(self, begin: int, stop: int) -> Iterator[tuple[slice, int]]:
        """Yield where consecutive slices lie, and the number of the first within the run."""
        depth, at = self.values.shape[1], begin
        while at < stop:
            slot = at % depth
            length = min(stop - at, depth - slot)
            yield slice(slot, slot + length), at - begin
            at += length


def _fits(shape: Size, source: Tensor, request: Request) -> bool:
    """Tell whether image and sums are to lie where the network is."""
    if request.device.type != "cuda" or request.accumulate_on_device is not None:
        return bool(request.accumulate_on_device)
    free, _ = torch.cuda.mem_get_info(request.device)
    return 4 * (prod(shape) + source.numel()) < free / 2


def _rows(
    shape: Size, window: Size, request: Request, slices_at_once: int
) -> Iterator[tuple[tuple[slice, list[npt.NDArray[np.float32]]], list[tuple[Place, ...]]]]:
    """Yield windows that begin at the same slice: where along D with what weights, and the rest."""
    lead = len(shape) - len(window)
    starts = [
        window_starts(n, w, request.step_size) for n, w in zip(shape[lead:], window, strict=True)
    ]
    gaussian = request.gaussian and prod(map(len, starts)) > 1
    weights = [
        axis_weights(n, w, begins, gaussian=gaussian)
        for n, w, begins in zip(shape[lead:], window, starts, strict=True)
    ]
    places: list[list[Place]] = [
        [(slice(begin, begin + w), weight) for begin, weight in zip(begins, axis, strict=True)]
        for begins, axis, w in zip(starts, weights, window, strict=True)
    ]
    across = list(product(*places[1 - lead :]))
    if lead:
        yield from (((group, []), across) for group in _groups(shape[0], slices_at_once))
    else:
        yield from (((along, [weight]), across) for along, weight in places[0])


def _groups(count: int, at_once: int) -> list[slice]:
    return [slice(first, min(first + at_once, count)) for first in range(0, count, at_once)]


def _weight(*factors: npt.NDArray[np.float32]) -> Tensor:
    """Return the product of one factor per axis as a tensor of the window's shape."""
    weight = torch.ones(())
    for factor in factors:
        weight = weight[..., None] * torch.from_numpy(factor)
    return weight


def _subsets(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Return all subsets of the mirrored axes as dimensions of (B, C, *patch)."""
    dims = [axis + 2 for axis in axes]
    return list(chain.from_iterable(combinations(dims, n) for n in range(len(dims) + 1)))


def _mean_over_views(
    network: nn.Module,
    batch: Tensor,
    views: Sequence[tuple[int, ...]],
    at_once: int,
    logits: bool,
) -> Tensor:
    """Return probabilities, or logits, (B, K, *patch), averaged over the mirrored views."""
    step = max(1, at_once // len(batch))
    total: Tensor | None = None
    fresh = False
    for group in _groups(len(views), step):
        chosen = views[group]
        mirrored = torch.cat([batch.flip(dims) if dims else batch for dims in chosen])
        found = network(mirrored).float()
        found = found if logits else torch.softmax(found, dim=1)
        for part, dims in zip(found.split(len(batch)), chosen, strict=True):
            back = part.flip(dims) if dims else part
            if total is None:
                total = back
            else:  # what a network gives is not written into
                total = total.add_(back) if fresh else total + back
                fresh = True
    assert total is not None  # the empty subset is always there
    return total.div_(len(views)) if fresh else total


sliding_window = SlabStrategy(slabs)
STRATEGIES.add("sliding_window", sliding_window)
