"""What the preprocessed cases of plans will take on disk."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from isal import isal_zlib

from nnunetlike.core.typing import FloatArray
from nnunetlike.data.bricks import brick_bytes, has_blosc2
from nnunetlike.data.record import CaseRecord
from nnunetlike.data.store import COMPRESSION_LEVEL, CaseStore, Form
from nnunetlike.plans.plans import Plans
from nnunetlike.preprocessing.cropping import Cropped
from nnunetlike.preprocessing.pipeline import unstacked
from nnunetlike.preprocessing.preprocessor import Preprocessor, resampled_shape

SAMPLED_VOXELS = 2**19
"""Voxels of a case that are compressed to estimate the size of its file."""


@dataclass(frozen=True, kw_only=True)
class DiskNeed:
    """Bytes of preprocessed cases."""

    packed: Callable[[], int]
    """As npz; an estimate, for which cases are looked at."""

    bricks: Callable[[], int]
    """In blosc2's bricks; likewise."""

    unpacked: int
    """As npy, or unpacked from npz; exact but for their headers."""

    largest: int
    """Of these, those of the largest stage, which a training reads over and over."""

    def of(self, form: Form) -> int:
        """Return what preprocessing writes in a form."""
        if form in ("npy", "fp16"):
            return self.unpacked if form == "npy" else self.unpacked // 2
        return self.packed() if form == "npz" else self.bricks()


def disk_need(planned: Sequence[Plans], cropped: CaseStore) -> DiskNeed:
    """Return what the cases of plans will take on disk, all stages.

    Args:
        planned: plans of one data set with at least one case.
        cropped: its cropped cases; some slices of up to three are preprocessed and compressed, if
            it is asked for, to see how much that saves.
    """
    stages = [Preprocessor(plans, stage) for plans in planned for stage in plans.stages]
    sizes = [_unpacked_bytes(preprocessor) for preprocessor in stages]
    samples = cache(lambda: _samples(planned[0], cropped) if planned else [])

    def estimate(packed_bytes: Callable[[FloatArray, Preprocessor], int]) -> int:
        """Return what all cases take if each is packed as its middle slices are."""
        return sum(
            round(size * _share(preprocessor, samples(), packed_bytes))
            for preprocessor, size in zip(stages, sizes, strict=True)
        )

    return DiskNeed(
        packed=cache(lambda: estimate(_as_npz)),
        bricks=cache(lambda: estimate(_as_bricks if has_blosc2() else _as_npz)),
        unpacked=sum(sizes),
        largest=max(sizes, default=0),
    )


def _unpacked_bytes(preprocessor: Preprocessor) -> int:
    plans = preprocessor.plans
    return sum(map(math.prod, _shapes(plans, preprocessor))) * (plans.num_channels + 1) * 4


def _shapes(plans: Plans, preprocessor: Preprocessor) -> Iterable[tuple[int, int, int]]:
    """Yield the shape of every case after preprocessing."""
    axes = plans.transpose_forward
    for size, spacing in zip(plans.fingerprint.sizes, plans.fingerprint.spacings, strict=True):
        a, b, c = (spacing[axis] for axis in axes)
        depth, height, width = (size[axis] for axis in axes)
        target = preprocessor.target_spacing((a, b, c))
        yield resampled_shape((depth, height, width), (a, b, c), target)


def _samples(plans: Plans, cropped: CaseStore) -> list[tuple[Cropped, CaseRecord]]:
    """Return the middle slices of up to three cases."""
    ids = list(plans.fingerprint.size_reductions)
    chosen = sorted({len(ids) // 3, len(ids) // 2, 2 * len(ids) // 3})
    return [_middle(cropped, ids[i]) for i in chosen]


def _middle(cropped: CaseStore, case_id: str) -> tuple[Cropped, CaseRecord]:
    record = cropped.record(case_id)
    depth, height, width = record.size_after_cropping
    slices = max(1, min(depth, SAMPLED_VOXELS // (height * width)))
    first = (depth - slices) // 2
    return unstacked(cropped.load_slices(case_id, first, first + slices), record)


def _share(
    preprocessor: Preprocessor,
    samples: Sequence[tuple[Cropped, CaseRecord]],
    packed_bytes: Callable[[FloatArray, Preprocessor], int],
) -> float:
    """Return compressed over plain bytes of samples, preprocessed, on average."""
    shares = []
    for case, record in samples:
        data = preprocessor.apply(case, record, sample_classes=False).stacked()
        shares.append(packed_bytes(data, preprocessor) / data.nbytes)
    return float(np.mean(shares))


def _as_npz(data: FloatArray, preprocessor: Preprocessor) -> int:
    del preprocessor
    return len(isal_zlib.compress(data.tobytes(), COMPRESSION_LEVEL))


def _as_bricks(data: FloatArray, preprocessor: Preprocessor) -> int:
    return len(brick_bytes(data, preprocessor.stage_plan.patch_size))
