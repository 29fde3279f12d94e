"""Steps of planning as pure functions: target spacing, pooling, memory, the plan of one stage.

Axes are those of the arrays handed in; the planners hand in transposed ones, coarsest axis first.

Where the public UNet++ fork of nnU-Net plans otherwise (a slightly finer low resolution, odd 2D
batches, no `noNorm`), version 1.7.1 is followed.

Source: nnU-Net v1 (1.7.1); Isensee et al., "nnU-Net: a self-configuring method for deep
learning-based biomedical image segmentation", Nature Methods 2021, doi 10.1038/s41592-020-01008-z.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunetlike.core.errors import PlanError
from nnunetlike.core.typing import Size, Spacing, Spacing3
from nnunetlike.plans.fingerprint import Fingerprint
from nnunetlike.plans.topology import Topology

MIN_FEATURE_EDGE = 4
"""Voxels per axis below which nothing is pooled to."""

ANISOTROPY = 3.0
"""Ratio of spacings above which an axis counts as coarse."""


@dataclass(frozen=True)
class Pooling:
    """A patch that can be pooled as its topology says."""

    topology: Topology
    patch_size: Size
    """Padded up to multiples of the divisor."""

    counts: Size
    """Poolings per axis."""

    @property
    def divisor(self) -> Size:
        """What each axis of the patch is a multiple of."""
        return tuple(2**count for count in self.counts)


def normalization_scheme(modality: str) -> str:
    """Return how a channel is normalised: `CT` for ct in any case, `noNorm`, else `nonCT`."""
    if modality in ("CT", "ct"):
        return "CT"
    return "noNorm" if modality == "noNorm" else "nonCT"


def masks_for_normalization(fingerprint: Fingerprint) -> dict[int, bool]:
    """Return by channel whether only the non-zero voxels are normalised.

    True where cropping took more than a quarter off the median case, but never where the name has
    `CT` in capitals; as in v1, `ct` is a CT by scheme and yet may get a mask. True for all channels
    of videos, most of which show a sector.
    """
    if fingerprint.videos is not None:
        return dict.fromkeys(fingerprint.modalities, True)
    mostly_empty = bool(np.median(list(fingerprint.size_reductions.values())) < 3 / 4)
    return {
        channel: mostly_empty and "CT" not in name
        for channel, name in fingerprint.modalities.items()
    }


def is_flat(fingerprint: Fingerprint) -> bool:
    """Return whether the images are 2D: each is one voxel thick, all along the same axis."""
    return bool((np.vstack(fingerprint.sizes) == 1).all(axis=0).any())


def median_spacing(fingerprint: Fingerprint) -> Spacing3:
    """Return the median spacing per axis, in mm."""
    return _three(np.percentile(np.vstack(fingerprint.spacings), 50, 0))


def target_spacing(fingerprint: Fingerprint) -> Spacing3:
    """Return the spacing to resample to, in mm: the median, finer along a coarse short axis.

    An axis more than three times as coarse as the others, with less than a third of their voxels,
    gets the 10th percentile of its spacings, never less than the others' spacing.
    """
    spacings = np.vstack(fingerprint.spacings)
    target = np.percentile(spacings, 50, 0)
    size = np.percentile(np.vstack(fingerprint.sizes), 50, 0)
    worst = int(np.argmax(target))
    others = [axis for axis in range(len(target)) if axis != worst]
    finest_allowed = max(target[others])
    is_coarse = target[worst] > ANISOTROPY * finest_allowed
    is_short = ANISOTROPY * size[worst] < min(size[others])
    if is_coarse and is_short:
        finer = np.percentile(spacings[:, worst], 10)
        if finer < finest_allowed:
            finer = max(finest_allowed, finer) + 1e-5
        target[worst] = finer
    return _three(target)


def coarsest_first(spacing: Spacing) -> tuple[int, int, int]:
    """Return the axes, that of the largest spacing first, the others ascending."""
    worst = int(np.argmax(spacing))
    first, second = (axis for axis in range(3) if axis != worst)
    return worst, first, second


def inverse_axes(forward: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the transposition that undoes `forward`."""
    a, b, c = (forward.index(axis) for axis in range(3))
    return a, b, c


def median_shape(fingerprint: Fingerprint, spacing: Spacing) -> Spacing:
    """Return the median shape after resampling to `spacing`, in voxels, not rounded."""
    shapes = [
        np.array(own) / np.array(spacing) * np.array(size)
        for own, size in zip(fingerprint.spacings, fingerprint.sizes, strict=True)
    ]
    return tuple(float(v) for v in np.median(np.vstack(shapes), 0))


def rounded_shape(shape: Spacing, spacing: Spacing, new_spacing: Spacing) -> Size:
    """Return a shape after resampling from `spacing` to `new_spacing`, rounded to voxels."""
    exact = np.array(spacing) / np.array(new_spacing) * np.array(shape)
    return tuple(int(v) for v in np.round(exact).astype(int))


def isotropic_patch(spacing: Spacing, shape: Size, edge: int = 512) -> Size:
    """Return the patch to start from: a cube in mm, `edge` voxels along the coarsest axis.

    Args:
        spacing: in mm.
        shape: median shape in voxels; the patch is clipped to it.
        edge: voxels along the coarsest axis before clipping.
    """
    cube = np.round(edge * max(spacing) / np.array(spacing)).astype(int)
    return tuple(min(int(a), b) for a, b in zip(cube, shape, strict=True))


def pool_by_spacing(
    spacing: Sequence[float], patch_size: Sequence[int], max_pools: int = 999
) -> Pooling:
    """Return where to pool and which kernels to use, so that spacings become equal (v2.1's rule).

    Each round pools the axes whose spacing is less than twice the finest and whose feature map
    stays at least `MIN_FEATURE_EDGE` voxels long. A kernel is 3 along the largest group of axes
    with spacings within a factor of two of one another, 1 elsewhere; the bottleneck has 3 all over.

    Args:
        spacing: in mm, two or three axes.
        patch_size: in voxels, same axes; padded up in the result.
        max_pools: most poolings per axis.
    """
    axes = range(len(spacing))
    current, size, counts = list(map(float, spacing)), list(patch_size), [0] * len(spacing)
    pools: list[list[int]] = []
    kernels: list[list[int]] = []
    while True:
        pooled = {
            a
            for a in axes
            if current[a] / min(current) < 2
            and size[a] >= 2 * MIN_FEATURE_EDGE
            and counts[a] < max_pools
        }
        if not pooled:
            break
        alike = _largest_group(current)
        pools.append([2 if a in pooled else 1 for a in axes])
        kernels.append([3 if a in alike else 1 for a in axes])
        for a in pooled:
            counts[a], current[a], size[a] = counts[a] + 1, current[a] * 2, math.ceil(size[a] / 2)
    return _padded(pools, [*kernels, [3] * len(spacing)], patch_size, counts)


def _largest_group(spacing: Sequence[float]) -> set[int]:
    """Return the first largest set of axes within a factor of two of one of them."""
    groups = [
        {b for b, other in enumerate(spacing) if other / own < 2 and own / other < 2}
        for own in spacing
    ]
    return max(groups, key=len)


def pool_late(spacing: Sequence[float], patch_size: Sequence[int], max_pools: int = 999) -> Pooling:
    """Return where to pool and which kernels to use by size alone (v1's older rule, poolLateV2).

    Every axis is pooled as often as its size allows; axes with fewer poolings start later. A kernel
    is 1 along axes that have reached half the largest spacing until all have, then 3 all over.

    Args:
        spacing: in mm, two or three axes.
        patch_size: in voxels, same axes; padded up in the result.
        max_pools: most poolings per axis.
    """
    counts = [min(int(math.log2(n / MIN_FEATURE_EDGE)), max_pools) if n >= 4 else 0
              for n in patch_size]  # fmt: skip
    total, largest = max(counts), max(spacing)
    current = list(map(float, spacing))
    pools: list[list[int]] = []
    kernels: list[list[int]] = []
    for level in range(total):
        reached = [value / largest > 0.5 for value in current]
        kernels.append([3] * len(current) if all(reached) else [1 if r else 3 for r in reached])
        pools.append([2 if total - count <= level else 1 for count in counts])
        current = [value * pool for value, pool in zip(current, pools[-1], strict=True)]
    return _padded(pools, [*kernels, [3] * len(current)], patch_size, counts)


def _padded(
    pools: Sequence[Sequence[int]],
    kernels: Sequence[Sequence[int]],
    patch_size: Sequence[int],
    counts: Sequence[int],
) -> Pooling:
    divisors = [2**count for count in counts]
    patch = tuple(-(-int(n) // d) * d for n, d in zip(patch_size, divisors, strict=True))
    return Pooling(Topology.of(pools, kernels), patch, tuple(counts))


def memory_estimate(
    pooling: Pooling,
    *,
    channels: int,
    classes: int,
    base_features: int = 32,
    max_features: int = 320,
    conv_per_stage: int = 2,
) -> int:
    """Return v1's estimate of a U-Net's memory: values of its feature maps for one patch.

    Args:
        pooling: patch and topology.
        channels: image channels.
        classes: classes with background.
        base_features: feature maps of the first level.
        max_features: most feature maps of any level.
        conv_per_stage: convolutions per level.
    """
    voxels, features = math.prod(pooling.patch_size), base_features
    per_level = 2 * conv_per_stage + 1
    estimate = (per_level * features + channels + classes) * voxels
    size = pooling.patch_size
    for pool in pooling.topology.pool_op_kernel_sizes:
        size = tuple(n // p for n, p in zip(size, pool, strict=True))
        features = min(2 * features, max_features)
        estimate += per_level * math.prod(size) * features
    if not pooling.topology.num_pools:
        return estimate
    return estimate - (per_level - conv_per_stage) * math.prod(size) * features


def shrink(pooling: Pooling, spacing: Sequence[float], shape: Sequence[int]) -> Pooling:
    """Return the next smaller patch: the axis that is largest for the image loses one divisor.

    Args:
        pooling: the patch so far.
        spacing: in mm, same axes.
        shape: median shape in voxels, same axes. On ties the last axis shrinks.
    """
    share = [n / m for n, m in zip(pooling.patch_size, shape, strict=True)]
    axis = max(range(len(share)), key=lambda a: (share[a], a))
    reduced = list(pooling.patch_size)
    reduced[axis] -= pooling.divisor[axis]
    divisor = pool_by_spacing(spacing, reduced).divisor
    reduced = list(pooling.patch_size)
    reduced[axis] -= divisor[axis]
    return pool_by_spacing(spacing, reduced)


def require_pooling(pooling: Pooling, shape: Size) -> Pooling:
    """Return `pooling` if there is any.

    Raises:
        PlanError: the images are so small that no network can pool even once.
    """
    if pooling.topology.num_pools:
        return pooling
    raise PlanError(
        f"the median case has {shape} voxels after resampling, too few for a network: its finest "
        f"axes need at least {2 * MIN_FEATURE_EDGE}. Pad the images, or use larger ones"
    )


def batch_limit(shape: Size, patch_size: Size, cases: int) -> int:
    """Return the batch size that covers 5 % of the data set's voxels (rounded half to even)."""
    voxels = math.prod(shape) * cases
    return int(np.round(0.05 * voxels / math.prod(patch_size)))


def coarser_spacing(spacing: Spacing, factor: float = 1.01) -> Spacing:
    """Return a spacing one step coarser: first the axes more than twice as fine as the coarsest."""
    fine = [max(spacing) / value > 2 for value in spacing]
    return tuple(
        value * factor if is_fine or not any(fine) else value
        for value, is_fine in zip(spacing, fine, strict=True)
    )


def take(values: Sequence[float], axes: Sequence[int]) -> Spacing:
    """Return the values of some axes in the order of `axes`."""
    return tuple(values[axis] for axis in axes)


def _three(values: Sequence[float]) -> Spacing3:
    a, b, c = (float(v) for v in values)
    return a, b, c
