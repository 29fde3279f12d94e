"""Connected components of label maps: keep the largest, remove the rest.

Voxels are neighbours when they share a face.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cc3d
import numpy as np

from nnunetlike.core.typing import BoolArray, LabelMap

Structure = int | tuple[int, ...]
"""One label value, or several whose union is treated as one structure."""


@dataclass(frozen=True)
class KeptLargest:
    """What is left of a label map, and how much was removed, by structure, in mm³."""

    label: LabelMap
    largest_removed: Mapping[Structure, float | None]
    """Volume of the largest component removed; None where all stayed."""

    kept_size: Mapping[Structure, float]
    """Volume of the largest component; 0 where the structure is absent."""


def keep_largest(
    label: LabelMap,
    structures: Sequence[Structure | Sequence[int]] | None,
    voxel_volume: float,
    minimum_valid_size: Mapping[Structure, float] | None = None,
) -> KeptLargest:
    """Return the label map with only the largest components of some structures.

    Structures are treated in the order given, each on what the ones before it left. All components
    as large as the largest stay; voxels of the others become background whatever their label.

    Args:
        label: label map, (D, H, W); it is not changed.
        structures: label values or sequences of them (a joint foreground); None takes every
            label above 0 that occurs.
        voxel_volume: volume of a voxel, in mm³.
        minimum_valid_size: by structure, the volume in mm³ from which on a component stays
            although it is not the largest; without an entry every smaller one goes.
    """
    if structures is None:
        structures = [int(value) for value in np.unique(label) if value > 0]
    result = label.copy()
    removed: dict[Structure, float | None] = {}
    kept: dict[Structure, float] = {}
    for entry in structures:
        structure = int(entry) if isinstance(entry, (int, np.integer)) else tuple(entry)
        limit = (minimum_valid_size or {}).get(structure, np.inf)
        mask = np.isin(result, structure)
        gone, removed[structure], kept[structure] = _smaller(mask, voxel_volume, limit)
        result[gone] = 0
    return KeptLargest(result, removed, kept)


def _smaller(
    mask: BoolArray, voxel_volume: float, limit: float
) -> tuple[BoolArray, float | None, float]:
    """Return the components to remove, the volume of the largest of them, and of the largest."""
    components = cc3d.connected_components(np.ascontiguousarray(mask, np.uint8), connectivity=6)
    volumes = np.bincount(components.reshape(-1)).astype(np.float64) * voxel_volume
    volumes[0] = 0.0
    largest = float(volumes.max())
    unwanted = (volumes < largest) & (volumes < limit)
    unwanted[0] = False
    if not unwanted.any():
        return np.zeros_like(mask), None, largest
    return unwanted[components], float(volumes[unwanted].max()), largest
