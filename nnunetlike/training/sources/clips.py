"""Clips of preprocessed videos: frames, all of one size, and the labels of those that have any.

Axes: C channels, T frames, then H, W. A video has N frames. Frames without a label, and those whose
label is not to train, hold the ignore label everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nnunetlike.core import seeding
from nnunetlike.core.errors import DataError
from nnunetlike.core.typing import FloatArray
from nnunetlike.data.store import CaseStore
from nnunetlike.data.video import VideoFacts, uniform_frame_indices
from nnunetlike.plans.plans import StagePlan, VideoPlan
from nnunetlike.training.augmentation import policies, spatial
from nnunetlike.training.augmentation.clips import (
    PLACEMENT_AND_GREY_VALUES,
    FrameNoise,
    disturb_frames,
)
from nnunetlike.training.augmentation.policies import AugmentationPolicy, Changes
from nnunetlike.training.sources import ArrayBatch

Frames = tuple[int, ...]
Image = npt.NDArray[np.float32]
Label = npt.NDArray[np.int16]


@dataclass(frozen=True, kw_only=True)
class Selected:
    """Frames of a clip; where a video is shorter than the clip, its last frame fills it up."""

    frames: Frames
    shown: int
    """How many of them are no filling, whose labels do not count."""


def frames_of_cycle(facts: VideoFacts, length: int, frames: int) -> Selected | None:
    """Return `length` frames from end-diastole evenly on to end-systole.

    Where end-systole comes first the clip runs over the video's end to its beginning. Where that
    way is too short, as in half a cycle that begins with end-systole, it runs from end-systole to
    end-diastole instead.

    Args:
        facts: of the video.
        length: T.
        frames: N.

    Returns:
        None where a video has no such pair of frames, or too few between them.
    """
    ed, es = facts.ed, facts.es
    if ed is None or es is None or ed == es:
        return None
    for first, last in ((ed, es), (es, ed)):
        if (last - first) % frames + 1 >= length:
            return Selected(frames=uniform_frame_indices(first, last, length, frames), shown=length)
    return None


def frames_around(
    facts: VideoFacts, length: int, frames: int, rng: np.random.Generator | None
) -> Selected:
    """Return every n-th frame of a part of the video with a labelled frame in it.

    Args:
        facts: of the video.
        length: T.
        frames: N.
        rng: draws n, the labelled frame and its place in the clip, and is advanced; None takes the
            part that begins with the first labelled frame, or as late as it can.
    """
    if frames <= length:
        filling = (frames - 1,) * (length - frames)
        return Selected(frames=(*range(frames), *filling), shown=frames)
    labelled = facts.labelled_frames or (0,)
    if rng is None:
        start = min(labelled[0], frames - length)
        return Selected(frames=tuple(range(start, start + length)), shown=length)
    anchor = labelled[int(rng.integers(len(labelled)))]
    step = int(rng.integers(1, (frames - 1) // max(length - 1, 1), endpoint=True))
    first, last = _places(anchor, step, length, frames)
    if first > last:
        step = 1
        first, last = _places(anchor, step, length, frames)
    start = anchor - step * int(rng.integers(first, last, endpoint=True))
    return Selected(frames=tuple(range(start, start + step * length, step)), shown=length)


def _places(anchor: int, step: int, length: int, frames: int) -> tuple[int, int]:
    """Return the first and the last place in a clip at which a frame can stand."""
    latest_start = frames - 1 - step * (length - 1)
    return max(0, -((latest_start - anchor) // step)), min(length - 1, anchor // step)


@dataclass(frozen=True)
class ClipSource:
    """Batches of clips; batch and clip are functions of the seed and their numbers.

    In training all clips of a batch have one random length, half the planned one at least, and half
    of the clips of a video whose cycle is known run from end-diastole to end-systole, the others
    are every n-th frame of any part. In validation clips have the planned length, the cycle is
    taken where it is known, and nothing is augmented.

    Args:
        store: preprocessed videos.
        case_ids: the videos to draw from, uniformly with replacement.
        stage: gives the size of clips.
        classes: foreground labels; the label above them is the ignore label.
        batch_size: clips per batch.
        seed: of all draws.
        augmented: training; else validation.
        use_mask_for_norm: channels that are 0 outside the sector, also after augmentation.
        unpacked: of videos stored as npz read `ID.npy`, of which only the frames are touched,
            where it exists.

    Raises:
        DataError: there are no videos.
    """

    store: CaseStore
    case_ids: Sequence[str]
    stage: StagePlan
    classes: Sequence[int]
    batch_size: int = field(kw_only=True)
    seed: int = field(kw_only=True)
    augmented: bool = field(kw_only=True)
    use_mask_for_norm: Mapping[int, bool] = field(default_factory=dict, kw_only=True)
    unpacked: bool = field(default=True, kw_only=True)
    policy: AugmentationPolicy = field(default=PLACEMENT_AND_GREY_VALUES, kw_only=True)
    noise: FrameNoise = field(default=FrameNoise(), kw_only=True)
    _facts: dict[str, VideoFacts] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if not self.case_ids:
            raise DataError(
                f"{self.store.folder}: no videos to draw clips from. Look at the split, or run the "
                "preprocessing again"
            )

    @property
    def video(self) -> VideoPlan:
        """The plan of the videos."""
        assert self.stage.video is not None  # by the configuration
        return self.stage.video

    @property
    def ignore(self) -> int:
        """Label of what has none."""
        return max(self.classes) + 1

    def batch(self, index: int) -> ArrayBatch:
        """Return batch number `index`.

        Raises:
            DataError: a case cannot be read or is no preprocessed video.
        """
        length = self._length(index)
        samples = [
            self._sample(seeding.stream(self.seed, index, j), length)
            for j in range(self.batch_size)
        ]
        return ArrayBatch(
            image=np.stack([image for image, _, _ in samples]),
            label=np.stack([label for _, label, _ in samples]),
            case_ids=[case_id for _, _, case_id in samples],
        )

    def cases(self, index: int) -> list[str]:
        """Return the identifiers of the videos of batch `index` without making it."""
        return [
            self._draw_case(seeding.stream(self.seed, index, j)) for j in range(self.batch_size)
        ]

    def _length(self, index: int) -> int:
        planned = self.video.clip_length
        if not self.augmented:
            return planned
        shortest = max(1, -(-planned // 2)) if planned > 2 else planned
        return int(seeding.stream(self.seed, index).integers(shortest, planned, endpoint=True))

    def _draw_case(self, rng: np.random.Generator) -> str:
        return self.case_ids[int(rng.integers(len(self.case_ids)))]

    def _sample(self, rng: np.random.Generator, length: int) -> tuple[Image, Label, str]:
        """Return one clip: image, label and the identifier of its video."""
        case_id = self._draw_case(rng)
        facts = self._facts_of(case_id)
        data = self.store.open(case_id, unpacked=self.unpacked)
        chosen = self._select(facts, length, data.shape[1], rng)
        first = min(chosen.frames)
        shown = data[:, first : max(chosen.frames) + 1]
        clip = np.array(shown[:, [frame - first for frame in chosen.frames]], np.float32)
        unlabelled = [
            place
            for place, frame in enumerate(chosen.frames)
            if place >= chosen.shown or frame not in facts.labelled_frames
        ]
        outside = (clip[-1] < 0).any(axis=0)  # of the sector: in unlabelled frames as in the others
        clip[-1, unlabelled] = np.where(outside, -1, 0)
        changes = policies.draw(self.policy, len(clip) - 1, rng) if self.augmented else Changes()
        image, label = self._placed(clip, changes, rng)
        if self.augmented:
            image = policies.change_intensities(image, changes, rng, in_plane=True)
            image = disturb_frames(image, self.noise, rng)
        image, label = policies.finish(image, label, changes, self.use_mask_for_norm)
        label[unlabelled] = self.ignore
        return image, label, case_id

    def _select(
        self, facts: VideoFacts, length: int, frames: int, rng: np.random.Generator
    ) -> Selected:
        wants_cycle = self.video.frame_sampling == "uniform_ed_es" and (
            not self.augmented or rng.uniform() < 0.5
        )
        cycle = frames_of_cycle(facts, length, frames) if wants_cycle else None
        return cycle or frames_around(facts, length, frames, rng if self.augmented else None)

    def _placed(
        self, clip: FloatArray, changes: Changes, rng: np.random.Generator
    ) -> tuple[Image, Label]:
        """Return the frames in the planned size: a window of them, turned and scaled if drawn so.

        Beyond the video the image is 0 and the label -1, as outside the sector.
        """
        shape = clip.shape[1:]
        final = (shape[0], *self.stage.patch_size)
        read = (
            shape[0], *self.policy.generator_patch_size(final)[1:]
        ) if changes.affine else final  # fmt: skip
        start = [0, *(
            int(rng.integers(0, free, endpoint=True)) if free > 0 and self.augmented else free // 2
            for free in (n - m for n, m in zip(shape[1:], read[1:], strict=True))
        )]  # fmt: skip
        box = [(low, low + n) for low, n in zip(start, read, strict=True)]
        image = spatial.cut(clip[:-1], box, 0).astype(np.float32, copy=False)
        label = spatial.cut(clip[-1], box, -1).astype(np.int16)
        if changes.affine is None:
            return image, label
        placed, labels = spatial.resample(image, label, changes.affine, final)
        return placed, np.asarray(labels, np.int16)

    def _facts_of(self, case_id: str) -> VideoFacts:
        """Return the facts of a video, from memory if it was seen before."""
        if case_id not in self._facts:
            facts = self.store.record(case_id).video
            if facts is None:
                raise DataError(
                    f"{case_id}: {self.store.folder} holds it as an image, not as a video. "
                    "Preprocess the task again"
                )
            self._facts[case_id] = facts.supervised(self.video.supervision)
        return self._facts[case_id]
