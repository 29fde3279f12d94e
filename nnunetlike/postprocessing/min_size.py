"""The volume below which a component of a label is better removed, found on a cross-validation.

The largest component of a label always stays, as in nnU-Net v1, whose postprocessing.json has room
for these volumes and whose prediction heeds them; so an only component stays however small it is.
A limit that no component reaches means: keep the largest alone. Axes of label maps: D, H, W.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cc3d
import numpy as np

from nnunetlike.core.parallel import process_map
from nnunetlike.core.typing import BoolArray, FloatArray, IntArray
from nnunetlike.data.imageio import format_of
from nnunetlike.evaluation.evaluator import pair_memory
from nnunetlike.evaluation.summary import mean_of_defined
from nnunetlike.postprocessing.connected_components import Structure, keep_largest

NO_COMPONENT = 1e30
"""A volume that no component reaches, in mm³; v1's reader knows no infinity."""


@dataclass(frozen=True)
class Removable:
    """What of one label in one case a limit could remove: all components but the largest."""

    hits: int
    """Predicted voxels that are right."""

    predicted: int
    reference: int
    sizes: FloatArray
    """Volumes of the components in mm³, ascending, (n,)."""

    voxels: IntArray
    """Voxels of the first 0, 1, ..., n components together, (n + 1,)."""

    right: IntArray
    """Those of them that are right, (n + 1,)."""

    def dice(self, limits: FloatArray) -> FloatArray:
        """Return the Dice without the components smaller than each limit; NaN for none at all."""
        n = np.searchsorted(self.sizes, limits, side="left")
        left = self.predicted - self.voxels[n] + self.reference
        found = 2 * (self.hits - self.right[n])
        dice: FloatArray = np.full(len(limits), np.nan)
        np.divide(found, left, out=dice, where=left > 0)
        return dice


def removable(prediction: BoolArray, reference: BoolArray, voxel_volume: float) -> Removable:
    """Return what a limit could remove of a predicted mask.

    Args:
        prediction: mask, (D, H, W).
        reference: mask, (D, H, W).
        voxel_volume: in mm³.
    """
    components = cc3d.connected_components(prediction.astype(np.uint8), connectivity=6).reshape(-1)
    voxels = np.bincount(components)[1:]
    right = np.bincount(components[reference.reshape(-1)], minlength=len(voxels) + 1)[1:]
    smaller = np.flatnonzero(voxels < voxels.max(initial=0))
    order = smaller[np.argsort(voxels[smaller], kind="stable")]
    return Removable(
        hits=int(right.sum()),
        predicted=int(voxels.sum()),
        reference=int(reference.sum()),
        sizes=voxels[order] * voxel_volume,
        voxels=np.concatenate([[0], np.cumsum(voxels[order])]),
        right=np.concatenate([[0], np.cumsum(right[order])]),
    )


def best_limit(cases: Sequence[Removable]) -> tuple[float, float] | None:
    """Return the limit that gives the best mean Dice, and that Dice; the smallest among equals.

    Limits lie halfway between the volumes of components that follow one another.

    Returns:
        None if there are not two volumes to lie between, or no case defines a Dice.
    """
    sizes = np.unique(np.concatenate([case.sizes for case in cases]))
    limits = (sizes[1:] + sizes[:-1]) / 2
    if len(limits) == 0:
        return None
    total, count = np.zeros(len(limits)), np.zeros(len(limits))
    for case in cases:
        dice = case.dice(limits)
        total += np.nan_to_num(dice)
        count += ~np.isnan(dice)
    if not count.any():
        return None
    limit = float(limits[np.argmax(np.where(count > 0, total / np.maximum(count, 1), -1.0))])
    return limit, mean_of_defined([float(case.dice(np.array([limit]))[0]) for case in cases])


def best_limits(
    pairs: Sequence[tuple[Path, Path]],
    before: Sequence[Structure],
    labels: Sequence[int],
    to_beat: Mapping[int, float],
    *,
    processes: int,
) -> dict[int, tuple[float, float]]:
    """Return the limit and its mean Dice for the labels that it makes better.

    Args:
        pairs: predicted and reference file of every case.
        before: structures that are reduced to their largest component first.
        labels: to find limits for.
        to_beat: mean Dice of each label otherwise.
        processes: most worker processes; 0 or 1 computes in this process.
    """
    by_case = process_map(
        partial(_removable_parts, before=tuple(before), labels=tuple(labels)),
        pairs,
        processes=processes,
        name=_name,
        title="determining sizes",
        cost=pair_memory,
    )
    found = {label: best_limit([case[i] for case in by_case]) for i, label in enumerate(labels)}
    return {
        label: best
        for label, best in found.items()
        if best is not None and best[1] > to_beat[label]
    }


def _removable_parts(
    pair: tuple[Path, Path], *, before: Sequence[Structure], labels: Sequence[int]
) -> list[Removable]:
    prediction, geometry = format_of(pair[0]).read_label(pair[0])
    reference, _ = format_of(pair[1]).read_label(pair[1])
    volume = math.prod(geometry.spacing)
    reduced = keep_largest(prediction, before, volume).label
    return [removable(reduced == label, reference == label, volume) for label in labels]


def _name(pair: tuple[Path, Path]) -> str:
    return pair[0].name
