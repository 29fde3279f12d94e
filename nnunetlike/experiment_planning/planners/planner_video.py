"""The planner of videos: frames at one isotropic spacing, clips of them, and the memory's grid.

Axes: T time, H, W. Time is no axis of space: it has no spacing and is never resampled or pooled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from nnunetlike.core.errors import PlanError
from nnunetlike.data.geometry import SLICE_THICKNESS
from nnunetlike.data.video import VideoFacts
from nnunetlike.experiment_planning.planners import VIDEO_PLANNERS, common, fitted
from nnunetlike.experiment_planning.planners.memory_rules import REFERENCE_GB
from nnunetlike.experiment_planning.planners.video_memory import COSTS, clip_bytes
from nnunetlike.plans.fingerprint import Fingerprint
from nnunetlike.plans.plans import FrameSampling, Plans, StagePlan, VideoPlan
from nnunetlike.plans.topology import Topology

POOLS = 4
DIVISOR: int = 2**POOLS
"""What the sides of a frame are multiples of."""

MOST_PIXELS = 256**2
"""Pixels of the frame at most; larger ones are resampled coarser."""

FINE_BELOW = 128
"""Shorter sides than this have a memory of one token per 8 x 8 pixels, others per 16 x 16."""

BASE_FROM = 96
"""Shorter sides than this get the small network."""

SHORTEST_CLIP, LONGEST_CLIP = 4, 16
"""Frames of a clip."""

SMALLEST_BATCH, LARGEST_BATCH = 2, 16


@dataclass(frozen=True, kw_only=True)
class PlannerVideo2D:
    """Plans clips of videos for a network with a memory."""

    plans_identifier: str = "nnUNetPlansv2.1"
    data_identifier: str = "nnUNetData_plans_v2.1_video2D"
    gigabytes: float = REFERENCE_GB

    def within(self, gigabytes: float) -> PlannerVideo2D:
        """Return the planner for a device of that size; its files have names of their own."""
        return replace(
            self,
            plans_identifier=fitted(self.plans_identifier, gigabytes),
            data_identifier=fitted(self.data_identifier, gigabytes),
            gigabytes=gigabytes,
        )

    def plan(self, fingerprint: Fingerprint) -> Plans:
        """Return plans with one stage.

        Raises:
            PlanError: there is no video, or frames are too small to pool, or nothing fits.
        """
        if not fingerprint.videos:
            raise PlanError(
                "there is no video to plan for. Declare 'video' in dataset.json, or use another "
                "planner"
            )
        return Plans(
            modalities=fingerprint.modalities,
            normalization_schemes=dict.fromkeys(fingerprint.modalities, "nonCT"),
            use_mask_for_norm=common.masks_for_normalization(fingerprint),
            classes=fingerprint.classes,
            base_features=32,
            conv_per_stage=2,
            transpose_forward=(0, 1, 2),
            transpose_backward=(0, 1, 2),
            data_identifier=self.data_identifier,
            stages={0: self._stage(fingerprint, fingerprint.videos)},
            preprocessor_name="PreprocessorFor2D",
            fingerprint=fingerprint,
        )

    def _stage(self, fingerprint: Fingerprint, videos: tuple[VideoFacts, ...]) -> StagePlan:
        fine = isotropic_spacing(fingerprint)
        height, width = _median_frame(fingerprint, fine)
        coarsening, patch = fitting_frame(height, width)
        spacing = (SLICE_THICKNESS, fine * coarsening, fine * coarsening)
        lengths = [size[0] for size in fingerprint.sizes]
        wanted = min(wished_length(videos, lengths), max(lengths))
        video = VideoPlan(
            clip_length=wanted,
            memory_stride=8 if min(patch) < FINE_BELOW else 16,
            network_size="base" if min(patch) >= BASE_FROM else "small",
            frame_sampling=_sampling(videos),
            supervision=fingerprint.supervision,
            unit="mm" if all(video.spacing_known for video in videos) else "px",
        )
        classes = len(fingerprint.classes) + 1
        clip_length, batch_size = self._clips(wanted, patch, video, classes)
        return StagePlan(
            spacing=spacing,
            original_spacing=(SLICE_THICKNESS, fine, fine),
            median_shape=(
                round(float(np.median(lengths))),
                round(height / coarsening),
                round(width / coarsening),
            ),
            patch_size=patch,
            batch_size=batch_size,
            dummy_2d_augmentation=False,
            topology=Topology.of([[2, 2]] * POOLS, [[3, 3]] * (POOLS + 1)),
            num_pool_per_axis=(POOLS, POOLS),
            video=replace(video, clip_length=clip_length),
        )

    def _clips(
        self, wanted: int, patch: tuple[int, int], video: VideoPlan, classes: int
    ) -> tuple[int, int]:
        """Return the length of clips and how many make a batch.

        Memory is reckoned in single precision, so that mixed precision leaves room for what the
        reckoning does not know, such as workspaces of convolutions.

        Raises:
            PlanError: two of the shortest clips do not fit.
        """
        size, stride = video.network_size, video.memory_stride
        frame = clip_bytes(size, stride, math.prod(patch), classes)
        room = self.gigabytes * 1e9 - COSTS[size, stride].fixed
        frames = math.floor(room / frame)
        length = min(wanted, frames // SMALLEST_BATCH)
        shortest = min(wanted, SHORTEST_CLIP)
        if length < shortest:
            needed = COSTS[size, stride].fixed + SMALLEST_BATCH * shortest * frame
            raise PlanError(
                f"two clips of {shortest} frames of {patch[0]} x {patch[1]} pixels do not fit into "
                f"{self.gigabytes:g} GB; they need {needed / 1e9:.2g} GB. Plan for a larger GPU"
            )
        return length, min(LARGEST_BATCH, frames // length)


def isotropic_spacing(fingerprint: Fingerprint) -> float:
    """Return the median over cases of the geometric mean of both spacings of a frame."""
    return float(np.median([math.sqrt(s[1] * s[2]) for s in fingerprint.spacings]))


def _median_frame(fingerprint: Fingerprint, spacing: float) -> tuple[int, int]:
    """Return the median height and width of frames at a spacing, in pixels."""
    exact = common.median_shape(fingerprint, (1.0, spacing, spacing))
    return round(exact[1]), round(exact[2])


def fitting_frame(height: int, width: int) -> tuple[float, tuple[int, int]]:
    """Return the least coarsening at which a frame is small enough, and the patch that holds it.

    The patch is the frame with each side rounded up to a multiple of 16.

    Raises:
        PlanError: a side is shorter than half of that.
    """
    if min(height, width) < DIVISOR // 2:
        raise PlanError(
            f"the median frame has {height} x {width} pixels after resampling, too few for a "
            f"network: sides need at least {DIVISOR // 2}. Use larger frames"
        )
    steps = range(DIVISOR, MOST_PIXELS // DIVISOR + 1, DIVISOR)
    sides = product((height, width), steps)
    for coarsening in sorted({1.0, *(side / n for side, n in sides if side > n)}):
        high, wide = (_rounded_up(round(side / coarsening)) for side in (height, width))
        if high * wide <= MOST_PIXELS:
            return coarsening, (high, wide)
    raise PlanError(f"frames of {height} x {width} pixels are too long and narrow for a network")


def _rounded_up(side: int) -> int:
    return max(1, math.ceil(side / DIVISOR)) * DIVISOR


def wished_length(videos: tuple[VideoFacts, ...], lengths: list[int]) -> int:
    """Return the length of clips if memory were no matter.

    That is the median number of frames from end-diastole to end-systole, both counted, of videos in
    which these are known, else the median number of frames; within 4 and 16.

    Args:
        videos: facts of all cases.
        lengths: frames of each case.
    """
    systoles = [abs(v.es - v.ed) + 1 for v in videos if v.ed is not None and v.es is not None]
    median: int = round(float(np.median(systoles or lengths)))
    return min(max(median, SHORTEST_CLIP), LONGEST_CLIP)


def _sampling(videos: tuple[VideoFacts, ...]) -> FrameSampling:
    known = all(video.ed is not None and video.es is not None for video in videos)
    return "uniform_ed_es" if known else "stride"


VIDEO_PLANNERS.add("ExperimentPlanner_Video2D", PlannerVideo2D())
