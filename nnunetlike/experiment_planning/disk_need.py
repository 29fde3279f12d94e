"""What the preprocessed cases of plans will take on disk."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from isal import isal_zlib

from nnunetlike.data.bricks import brick_bytes, has_blosc2
from nnunetlike.data.record import CaseRecord
from nnunetlike.data.store import COMPRESSION_LEVEL, CaseStore, Form
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
    """As npz; an estimate."""

    bricks: int
    """In blosc2's bricks; an estimate."""

    unpacked: int
    """As npy, or unpacked from npz; exact but for their headers."""

    largest: int
    """Of these, those of the largest stage, which a training reads over and over."""

    def __add__(self, other: DiskNeed) -> DiskNeed:
        return DiskNeed(
            packed=self.packed + other.packed,
            bricks=self.bricks + other.bricks,
            unpacked=self.unpacked + other.unpacked,
            largest=max(self.largest, other.largest),
        )

    def of(self, form: Form) -> int:
        """Return what preprocessing writes in a form."""
        return {
            "npz": self.packed,
            "npy": self.unpacked,
            "blosc2": self.bricks,
            "fp16": self.unpacked // 2,
        }[form]


NOTHING = DiskNeed(packed=0, bricks=0, unpacked=0, largest=0)


def disk_need(plans: Plans, cropped: CaseStore) -> DiskNeed:
    """Return what the cases of plans will take on disk, all stages.

    Args:
        plans: of a data set with at least one case.
        cropped: its cropped cases; some slices of up to three are preprocessed and compressed to
            see how much that saves.
    """
    return sum((_stage_need(plans, stage, cropped) for stage in plans.stages), NOTHING)


def _stage_need(plans: Plans, number: int, cropped: CaseStore) -> DiskNeed:
    preprocessor = Preprocessor(plans, number)
    voxels = sum(math.prod(shape) for shape in _shapes(plans, preprocessor))
    unpacked = voxels * (plans.num_channels + 1) * 4
    ids = list(plans.fingerprint.size_reductions)
    chosen = sorted({len(ids) // 3, len(ids) // 2, 2 * len(ids) // 3})
    shares = [_packed_shares(preprocessor, *load_cropped(cropped, ids[i])) for i in chosen]
    packed, bricks = np.round(unpacked * np.mean(shares, axis=0))
    return DiskNeed(packed=int(packed), bricks=int(bricks), unpacked=unpacked, largest=unpacked)


def _shapes(plans: Plans, preprocessor: Preprocessor) -> Iterable[tuple[int, int, int]]:
    """Yield the shape of every case after preprocessing."""
    axes = plans.transpose_forward
    for size, spacing in zip(plans.fingerprint.sizes, plans.fingerprint.spacings, strict=True):
        a, b, c = (spacing[axis] for axis in axes)
        depth, height, width = (size[axis] for axis in axes)
        target = preprocessor.target_spacing((a, b, c))
        yield resampled_shape((depth, height, width), (a, b, c), target)


def _packed_shares(
    preprocessor: Preprocessor, case: Cropped, record: CaseRecord
) -> tuple[float, float]:
    """Return compressed over plain bytes of the middle slices of a case, preprocessed.

    First as npz, then in bricks; these are a little smaller, and count as much where blosc2 is not
    installed.
    """
    depth, height, width = case.label.shape
    slices = max(1, min(depth, SAMPLED_VOXELS // (height * width)))
    first = (depth - slices) // 2
    part = Cropped(
        image=case.image[:, first : first + slices],
        label=case.label[first : first + slices],
        box=case.box,
    )
    prepared = preprocessor.apply(part, record, sample_classes=False)
    data = stacked(prepared.image, prepared.label)
    packed = len(isal_zlib.compress(data.tobytes(), COMPRESSION_LEVEL)) / data.nbytes
    if not has_blosc2():
        return packed, packed
    return packed, len(brick_bytes(data, preprocessor.stage_plan.patch_size)) / data.nbytes
