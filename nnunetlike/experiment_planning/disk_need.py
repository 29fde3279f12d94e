"""What the preprocessed cases of plans will take on disk."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from nnunetlike.data.record import CaseRecord
from nnunetlike.data.store import COMPRESSION_LEVEL, CaseStore
from nnunetlike.plans.plans import Plans
from nnunetlike.preprocessing.cropping import Cropped
from nnunetlike.preprocessing.pipeline import load_cropped, stacked
from nnunetlike.preprocessing.preprocessor import Preprocessor, resampled_shape

SAMPLED_VOXELS = 2**19
"""Voxels of a case that are compressed to estimate the size of its file."""


@dataclass(frozen=True)
class DiskNeed:
    """Bytes of preprocessed cases."""

    packed: int
    """The npz files that preprocessing writes; an estimate."""

    unpacked: int
    """The npy files that training adds; exact but for their headers."""

    def __add__(self, other: DiskNeed) -> DiskNeed:
        return DiskNeed(self.packed + other.packed, self.unpacked + other.unpacked)


def disk_need(plans: Plans, cropped: CaseStore) -> DiskNeed:
    """Return what the cases of plans will take on disk, all stages.

    Args:
        plans: of a data set with at least one case.
        cropped: its cropped cases; some slices of up to three are preprocessed and compressed to
            see how much that saves.
    """
    return sum((_stage_need(plans, stage, cropped) for stage in plans.stages), DiskNeed(0, 0))


def _stage_need(plans: Plans, number: int, cropped: CaseStore) -> DiskNeed:
    preprocessor = Preprocessor(plans, number)
    voxels = sum(math.prod(shape) for shape in _shapes(plans, preprocessor))
    unpacked = voxels * (plans.num_channels + 1) * 4
    ids = list(plans.fingerprint.size_reductions)
    chosen = sorted({len(ids) // 3, len(ids) // 2, 2 * len(ids) // 3})
    shares = [_packed_share(preprocessor, *load_cropped(cropped, ids[i])) for i in chosen]
    return DiskNeed(packed=round(unpacked * float(np.mean(shares))), unpacked=unpacked)


def _shapes(plans: Plans, preprocessor: Preprocessor) -> Iterable[tuple[int, int, int]]:
    """Yield the shape of every case after preprocessing."""
    axes = plans.transpose_forward
    for size, spacing in zip(plans.fingerprint.sizes, plans.fingerprint.spacings, strict=True):
        a, b, c = (spacing[axis] for axis in axes)
        depth, height, width = (size[axis] for axis in axes)
        target = preprocessor.target_spacing((a, b, c))
        yield resampled_shape((depth, height, width), (a, b, c), target)


def _packed_share(preprocessor: Preprocessor, case: Cropped, record: CaseRecord) -> float:
    """Return compressed over plain bytes of the middle slices of a case, preprocessed."""
    depth, height, width = case.label.shape
    slices = max(1, min(depth, SAMPLED_VOXELS // (height * width)))
    first = (depth - slices) // 2
    part = Cropped(
        image=case.image[:, first : first + slices],
        label=case.label[first : first + slices],
        box=case.box,
    )
    prepared = preprocessor.apply(part, record, sample_classes=False)
    plain = stacked(prepared.image, prepared.label).tobytes()
    return len(zlib.compress(plain, COMPRESSION_LEVEL)) / len(plain)
