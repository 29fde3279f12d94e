"""Overlapping windows, weighted by a Gaussian and averaged over mirrored views.

Axes: B windows of one pass, C image channels, K classes, D, H, W. Sums are float32; they take
4·K bytes per voxel of the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain, combinations, product
from math import prod
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from nnunetlike.core.typing import FloatArray, Size
from nnunetlike.inference.strategies import STRATEGIES, Request
from nnunetlike.inference.windows import axis_weights, padded_shape, padding, window_starts

Block = tuple[slice, slice, slice]
VOXELS_PER_PASS = {"cpu": 2**18, "cuda": 2**22}
"""Small windows go through the network together up to so many voxels."""


def sliding_window(
    network: nn.Module, image: FloatArray, request: Request
) -> npt.NDArray[np.float32]:
    """Return the class probabilities of an image.

    The image is padded with 0 to at least one window. A network with two axes sees the image slice
    by slice along D. A single window has the weight 1 everywhere.

    Args:
        network: gives logits (B, K, *patch); has the attributes `classes` and, for untiled
            prediction, `input_divisor`; lies on `request.device` in evaluation mode.
        image: (C, D, H, W) float32.
        request: window, step, mirroring, device.

    Returns:
        Probabilities, or logits if asked for, (K, D, H, W) float32 in main memory.

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
    cut = tuple(slice(a, a + n) for (a, _), n in zip(pads, image.shape, strict=True))
    if shape != inside:
        image = np.pad(image, pads)
    with torch.inference_mode(), _precision(request):
        source = torch.from_numpy(np.ascontiguousarray(image, np.float32))
        total = _accumulate(network, source, window, request)
        return np.ascontiguousarray(total[(slice(None), *cut[1:])].cpu().numpy())


def _precision(request: Request) -> AbstractContextManager[Any]:
    if request.autocast is None:
        return nullcontext()
    return torch.autocast(request.device.type, dtype=request.autocast)


def _accumulate(network: nn.Module, source: Tensor, window: Size, request: Request) -> Tensor:
    """Return the weighted sum (K, D, H, W) over all windows; the weights of a voxel sum to 1."""
    shape = (cast(int, network.classes), *source.shape[1:])
    home = request.device if _fits(shape, source, request) else torch.device("cpu")
    source = source.to(home)
    total = torch.zeros(shape, dtype=torch.float32, device=home)
    at_once = max(1, VOXELS_PER_PASS.get(request.device.type, 2**18) // prod(window))
    views = _subsets(request.mirror_axes)
    for block, factors in _blocks(tuple(source.shape[1:]), window, request, at_once):
        patch = source[(slice(None), *block)].to(request.device)
        batch = patch[None] if len(window) == 3 else patch.transpose(0, 1)
        mean = _mean_over_views(network, batch, views, at_once, request.logits).to(home)
        mean = mean[0] if len(window) == 3 else mean.transpose(0, 1)
        total[(slice(None), *block)].addcmul_(mean, _weight(factors, home))
    return total


def _fits(shape: Size, source: Tensor, request: Request) -> bool:
    """Tell whether image and sums are to lie where the network is."""
    if request.device.type != "cuda" or request.accumulate_on_device is not None:
        return bool(request.accumulate_on_device)
    free, _ = torch.cuda.mem_get_info(request.device)
    return 4 * (prod(shape) + source.numel()) < free / 2


def _blocks(
    shape: Size, window: Size, request: Request, slices_at_once: int
) -> Iterator[tuple[Block, Sequence[npt.NDArray[np.float32]]]]:
    """Yield each window's place in (D, H, W) and its weights along the axes of the window."""
    lead = len(shape) - len(window)
    starts = [
        window_starts(n, w, request.step_size) for n, w in zip(shape[lead:], window, strict=True)
    ]
    gaussian = request.gaussian and prod(map(len, starts)) > 1
    weights = [
        axis_weights(n, w, begins, gaussian=gaussian)
        for n, w, begins in zip(shape[lead:], window, starts, strict=True)
    ]
    places = [
        [(slice(begin, begin + w), weight) for begin, weight in zip(begins, axis, strict=True)]
        for begins, axis, w in zip(starts, weights, window, strict=True)
    ]
    groups = [()] if lead == 0 else [(s,) for s in _groups(shape[0], slices_at_once)]
    for group in groups:
        for chosen in product(*places):
            block = cast(Block, (*group, *(place for place, _ in chosen)))
            yield block, [weight for _, weight in chosen]


def _groups(count: int, at_once: int) -> list[slice]:
    return [slice(first, min(first + at_once, count)) for first in range(0, count, at_once)]


def _weight(factors: Sequence[npt.NDArray[np.float32]], device: torch.device) -> Tensor:
    """Return the product of one factor per axis as a tensor of the window's shape."""
    weight = torch.ones((), device=device)
    for factor in factors:
        weight = weight[..., None] * torch.from_numpy(factor).to(device)
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
    for group in _groups(len(views), step):
        chosen = views[group]
        mirrored = torch.cat([batch.flip(dims) if dims else batch for dims in chosen])
        found = network(mirrored).float()
        found = found if logits else torch.softmax(found, dim=1)
        for part, dims in zip(found.split(len(batch)), chosen, strict=True):
            back = part.flip(dims) if dims else part
            total = back.clone() if total is None else total.add_(back)
    assert total is not None  # the empty subset is always there
    return total.div_(len(views))


STRATEGIES.add("sliding_window", sliding_window)
