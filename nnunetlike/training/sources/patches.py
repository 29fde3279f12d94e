"""Random patches of preprocessed cases, some of them around foreground, augmented or not.

Axes: C channels, then D, H, W; in 2D a patch is one slice of D and loses that axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunetlike.core import seeding
from nnunetlike.core.errors import DataError
from nnunetlike.core.typing import IntArray, LabelMap, Size
from nnunetlike.data.bricks import BrickedArray
from nnunetlike.data.previous_stage import PreviousStage, one_hot
from nnunetlike.data.store import CaseStore
from nnunetlike.plans.plans import StagePlan
from nnunetlike.training.augmentation import policies, spatial
from nnunetlike.training.augmentation.cascade import CascadePolicy, spoil
from nnunetlike.training.augmentation.policies import AugmentationPolicy, Changes
from nnunetlike.training.augmentation.spatial import Span, mirror
from nnunetlike.training.device_augmentation.orders import PatchOrder
from nnunetlike.training.sources import ArrayBatch, HostBatch, ReadBatch

RECORDS_KEPT = 1000
"""Data sets of at most so many cases keep their class locations in memory."""

Locations = Mapping[int, IntArray]
Image = npt.NDArray[np.float32]
Array = npt.NDArray[Any]
Label = npt.NDArray[np.int16]


@dataclass(frozen=True, kw_only=True)
class PatchGrid:
    """Where patches may lie in a case: v1's rule of bounds, three axes.

    `read` voxels are read and `final` of them remain; a 2D grid has 1 along axis 0 in both.
    """

    read: Size
    final: Size

    def bounds(self, shape: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return the lowest and the highest start of a patch in a case of `shape`, inclusive."""
        lowest, highest = [], []
        for size, read, final in zip(shape, self.read, self.final, strict=True):
            need = max(read - final, read - size)
            lowest.append(-need // 2)
            highest.append(size + need // 2 + need % 2 - read)
        return lowest, highest

    def anywhere(self, shape: Sequence[int], rng: np.random.Generator) -> list[int]:
        """Return a start drawn uniformly within the bounds."""
        low, high = self.bounds(shape)
        return [int(rng.integers(a, b, endpoint=True)) for a, b in zip(low, high, strict=True)]

    def around(self, shape: Sequence[int], voxel: Sequence[int]) -> list[int]:
        """Return the start of the patch whose middle is `voxel`, not below the lowest start."""
        low, _ = self.bounds(shape)
        return [
            max(a, int(v) - size // 2) for a, v, size in zip(low, voxel, self.read, strict=True)
        ]


def forced_foreground(batch_size: int, share: float) -> tuple[bool, ...]:
    """Return for each sample of a batch whether it must show foreground: the last `share`.

    Source: nnU-Net v1 (get_do_oversample); Python's rounding, half to even.
    """
    return tuple(j >= round(batch_size * (1 - share)) for j in range(batch_size))


def draw_foreground_voxel(
    locations: Locations, rng: np.random.Generator, *, by_slice: bool
) -> tuple[int, ...] | None:
    """Return a voxel (3 axes) of a class drawn uniformly from those present, or None without any.

    Args:
        locations: sampled voxels (n, 3) by class, all above 0.
        rng: advanced.
        by_slice: draw the slice of axis 0 first, uniformly from those that show the class.
    """
    present = [label for label, voxels in locations.items() if len(voxels)]
    if not present:
        return None
    voxels = locations[present[int(rng.integers(len(present)))]]
    if by_slice:
        slices = np.unique(voxels[:, 0])
        voxels = voxels[voxels[:, 0] == slices[rng.integers(len(slices))]]
    return tuple(int(v) for v in voxels[rng.integers(len(voxels))])


@dataclass(frozen=True)
class PatchSource:
    """Batches of patches; batch and sample are functions of the seed and their numbers.

    Args:
        store: preprocessed cases.
        case_ids: the cases to draw from, uniformly with replacement.
        stage: gives the patch size.
        classes: labels that forced samples may be drawn around; 0 is left out.
        batch_size: samples per batch.
        seed: of all draws.
        augmentation: None gives plain patches of the final size, for validation.
        oversample: share of each batch that must show foreground.
        use_mask_for_norm: channels that are set to 0 outside the non-zero region after
            augmentation.
        unpacked: of cases stored as npz read `ID.npy`, of which only the patch is touched, where it
            exists.

    Raises:
        DataError: there are no cases.
    """

    store: CaseStore
    case_ids: Sequence[str]
    stage: StagePlan
    classes: Sequence[int]
    batch_size: int = field(kw_only=True)
    seed: int = field(kw_only=True)
    augmentation: AugmentationPolicy | None = field(kw_only=True)
    oversample: float = field(default=0.33, kw_only=True)
    use_mask_for_norm: Mapping[int, bool] = field(default_factory=dict, kw_only=True)
    unpacked: bool = field(default=True, kw_only=True)
    previous: PreviousStage | None = field(default=None, kw_only=True)
    """Segmentations that follow the image as channels, one per foreground class (cascade)."""

    spoiling: CascadePolicy = field(default=CascadePolicy(), kw_only=True)
    """How these are augmented, where the patches are."""

    on_device: bool = field(default=False, kw_only=True)
    """Only read what is to be augmented, and say how, for `training.device_augmentation`."""

    _known: dict[str, Locations] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    _scratch: spatial.Scratch = field(
        default_factory=spatial.Scratch, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if not self.case_ids:
            raise DataError(
                f"{self.store.folder}: no cases to draw patches from. Look at the split, or run "
                "the preprocessing again"
            )

    def __getstate__(self) -> dict[str, object]:
        """Leave the memory of class locations behind: every process fills its own."""
        return {**self.__dict__, "_known": {}}

    @property
    def grid(self) -> PatchGrid:
        """Size of the patches that are read and that remain, three axes."""
        patch, policy = self.stage.patch_size, self.augmentation
        read = policy.generator_patch_size(patch) if policy else patch
        lead = (1,) * (3 - len(patch))
        return PatchGrid(read=lead + tuple(read), final=lead + tuple(patch))

    def batch(self, index: int) -> HostBatch:
        """Return batch number `index`.

        Raises:
            DataError: a case cannot be read or was not preprocessed for training.
        """
        drawn = [
            (seeding.stream(self.seed, index, j), forced)
            for j, forced in enumerate(forced_foreground(self.batch_size, self.oversample))
        ]
        if self.on_device and self.augmentation is not None:
            return self._read_only(drawn, self.augmentation)
        samples = [self._sample(rng, forced) for rng, forced in drawn]
        return ArrayBatch(
            image=np.stack([image for image, _, _ in samples]),
            label=np.stack([label for _, label, _ in samples]),
            case_ids=[case_id for _, _, case_id in samples],
        )

    def cases(self, index: int) -> list[str]:
        """Return the identifiers of the cases of batch `index` without making it."""
        return [
            self._draw_case(seeding.stream(self.seed, index, j)) for j in range(self.batch_size)
        ]

    def _draw_case(self, rng: np.random.Generator) -> str:
        return self.case_ids[int(rng.integers(len(self.case_ids)))]

    def _sample(self, rng: np.random.Generator, forced: bool) -> tuple[Image, Label, str]:
        """Return one patch: image, label and the identifier of its case."""
        case_id, data, start = self._place(rng, forced)
        changes = Changes()
        masked: Mapping[int, bool] = {}
        if self.augmentation is None:
            image, label = self._squeezed(*_read(data, start, _whole(self.grid.final)))
        else:
            changes = policies.draw(self.augmentation, len(data) - 1, rng)
            masked = self.use_mask_for_norm
            image, label = self._placed(data, start, changes)
            image = policies.change_intensities(
                image, changes, rng, in_plane=self.augmentation.in_plane, in_place=True
            )
        image, label = policies.finish(image, label, changes, masked)
        if self.previous is not None:
            known = self._known_before(case_id, data.shape[1:], start, changes, rng)
            image = np.concatenate([image, known])
        return image, label, case_id

    def _read_only(
        self, drawn: Sequence[tuple[np.random.Generator, bool]], policy: AugmentationPolicy
    ) -> ReadBatch:
        """Return blocks of cases and what is to be made of them, from the same draws as patches."""
        batch = ReadBatch(image=[], label=[], orders=[], case_ids=[])
        n = self.stage.dimension
        for rng, forced in drawn:
            case_id, data, start = self._place(rng, forced)
            changes = policies.draw(policy, len(data) - 1, rng)
            spans = self._spans(changes)
            image, label = self._squeezed(*_read(data, start, spans))
            order = PatchOrder(
                changes=changes,
                patch_size=tuple(self.stage.patch_size),
                source=self.grid.read[-n:],
                origin=tuple(low for low, _ in spans)[-n:],
                in_plane=policy.in_plane,
                masked=tuple(c for c, used in self.use_mask_for_norm.items() if used),
                noise_seed=int(rng.integers(2**63)),
            )
            batch["image"].append(np.ascontiguousarray(image))
            batch["label"].append(np.ascontiguousarray(label, np.int16))
            batch["orders"].append(order)
            batch["case_ids"].append(case_id)
        return batch

    def _place(
        self, rng: np.random.Generator, forced: bool
    ) -> tuple[str, Array | BrickedArray, list[int]]:
        """Return a case, its data (C + 1, D, H, W) and the first voxel of the patch to read."""
        case_id = self._draw_case(rng)
        data = self.store.open(case_id, unpacked=self.unpacked)
        if not isinstance(data, BrickedArray) and data.ndim == 3:  # a single slice
            data = data[:, None]
        return case_id, data, self._start(case_id, data.shape[1:], forced, rng)

    def _known_before(
        self,
        case_id: str,
        shape: Sequence[int],
        start: Sequence[int],
        changes: Changes,
        rng: np.random.Generator,
    ) -> Image:
        """Return what the previous stage says of a patch, placed as its label: (K - 1, *patch)."""
        assert self.previous is not None
        found = self.previous.load(case_id, shape)
        segmentation = found.view(np.int8)[None]  # as data without a channel; -1 is beyond the case
        if self.augmentation is None:
            _, label = self._squeezed(*_read(segmentation, start, _whole(self.grid.final)))
        else:
            _, label = self._placed(segmentation, start, changes)
        known = one_hot(mirror(label, changes.mirrored), [c for c in self.classes if c > 0])
        return known if self.augmentation is None else spoil(known, self.spoiling, rng)

    def _start(
        self, case_id: str, shape: Sequence[int], forced: bool, rng: np.random.Generator
    ) -> list[int]:
        """Return the first voxel of the patch to read."""
        flat = self.stage.dimension == 2
        voxel = (
            draw_foreground_voxel(self._locations(case_id), rng, by_slice=flat) if forced else None
        )
        if voxel is None:
            return self.grid.anywhere(shape, rng)
        return self.grid.around(shape, voxel)

    def _placed(
        self, data: Array | BrickedArray, start: Sequence[int], changes: Changes
    ) -> tuple[Image, LabelMap]:
        """Return the patch in its final size: resampled, or the middle of what could be read."""
        spans = self._spans(changes)
        image, label = self._squeezed(*_read(data, start, spans))
        if changes.affine is None:
            return image, label
        return spatial.resample(
            image,
            label,
            changes.affine,
            self.stage.patch_size,
            shape=self.grid.read[-self.stage.dimension :],
            origin=[low for low, _ in spans][-self.stage.dimension :],
            scratch=self._scratch,
        )

    def _spans(self, changes: Changes) -> tuple[Span, ...]:
        """Return the box of the region to read that a patch depends on, three axes."""
        grid, affine = self.grid, changes.affine
        if affine is None:
            return spatial.centre_spans(grid.read, grid.final)
        axes = len(affine.matrix)
        return (
            *_whole(grid.read[: 3 - axes]),
            *spatial.source_spans(affine, grid.read[-axes:], grid.final[-axes:]),
        )

    def _squeezed(self, image: Image, label: LabelMap) -> tuple[Image, LabelMap]:
        """Return the patch without the axis that a 2D network does not have."""
        return (image[:, 0], label[0]) if self.stage.dimension == 2 else (image, label)

    def _locations(self, case_id: str) -> Locations:
        """Return the sampled foreground voxels of a case, from memory if it was seen before."""
        if case_id in self._known:
            return self._known[case_id]
        found = self.store.record(case_id).class_locations
        if found is None:
            raise DataError(
                f"{case_id}: its properties have no class_locations ({self.store.folder}). "
                "Preprocess the task again"
            )
        locations = {
            label: _compact(found[label]) for label in self.classes if label > 0 and label in found
        }
        if len(self.case_ids) <= RECORDS_KEPT:
            self._known[case_id] = locations
        return locations


def _read(
    data: Array | BrickedArray, start: Sequence[int], spans: Sequence[Span]
) -> tuple[Image, LabelMap]:
    """Return image and label of a box, given relative to `start`; beyond the case 0 and -1.

    The case is sliced once, to what of it lies in the box.
    """
    box = [(s + low, s + high) for s, (low, high) in zip(start, spans, strict=True)]
    firsts = [min(max(low, 0), n) for (low, _), n in zip(box, data.shape[1:], strict=True)]
    within = [slice(first, max(first, high)) for first, (_, high) in zip(firsts, box, strict=True)]
    inside: Array = data[(slice(None), *within)]
    box = [(low - first, high - first) for first, (low, high) in zip(firsts, box, strict=True)]
    image = spatial.cut(inside[:-1], box, 0).astype(np.float32, copy=False)
    return image, spatial.cut(inside[-1], box, -1).astype(np.int16)


def _whole(size: Size) -> tuple[Span, ...]:
    return tuple((0, n) for n in size)


def _compact(voxels: IntArray) -> IntArray:
    """Return the same coordinates in the smallest type that holds them."""
    small = len(voxels) == 0 or voxels.max() <= np.iinfo(np.int16).max
    return voxels.astype(np.int16 if small else np.int32)
