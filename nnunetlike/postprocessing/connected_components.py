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
    for group in _groups(structures):
        limits = [(minimum_valid_size or {}).get(structure, np.inf) for structure in group]
        gone, sizes = _smaller(_numbered(result, group), voxel_volume, limits)
        result[gone] = 0
        for structure, (largest, largest_removed) in zip(group, sizes, strict=True):
            kept[structure], removed[structure] = largest, largest_removed
    return KeptLargest(result, removed, kept)


def _groups(structures: Sequence[Structure | Sequence[int]]) -> list[list[Structure]]:
    """Return the structures in order, those that one pass can treat together.

    Different labels have no voxel in common, so removing parts of one leaves the others alone.
    """
    groups: list[list[Structure]] = []
    for entry in structures:
        if not isinstance(entry, (int, np.integer)):
            groups.append([tuple(entry)])
        elif groups and isinstance(groups[-1][-1], int) and int(entry) not in groups[-1]:
            groups[-1].append(int(entry))
        else:
            groups.append([int(entry)])
    return groups


def _numbered(label: LabelMap, group: Sequence[Structure]) -> LabelMap:
    """Return a map that holds 1 in the first structure of the group, 2 in the next, 0 elsewhere."""
    members = [s if isinstance(s, tuple) else (s,) for s in group]
    highest = max(int(label.max(initial=0)), *(max(values) for values in members))
    table = np.zeros(highest + 1, np.uint16)
    for number, values in enumerate(members, start=1):
        table[list(values)] = number
    return table[np.maximum(label, 0)]


def _smaller(
    numbered: LabelMap, voxel_volume: float, limits: Sequence[float]
) -> tuple[BoolArray, list[tuple[float, float | None]]]:
    """Return the voxels to remove; and for each structure its largest component and removed one."""
    components = cc3d.connected_components(numbered, connectivity=6)
    volumes = np.bincount(components.reshape(-1)).astype(np.float64) * voxel_volume
    owner = np.zeros(len(volumes), numbered.dtype)
    owner[components] = numbered
    unwanted = np.zeros(len(volumes), dtype=bool)
    sizes: list[tuple[float, float | None]] = []
    for number, limit in enumerate(limits, start=1):
        own = owner == number
        largest = float(volumes[own].max(initial=0.0))
        gone = own & (volumes < largest) & (volumes < limit)
        unwanted |= gone
        sizes.append((largest, float(volumes[gone].max()) if gone.any() else None))
    return unwanted[components], sizes
