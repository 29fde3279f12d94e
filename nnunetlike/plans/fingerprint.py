"""What planning knows of a data set: sizes, spacings, intensities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nnunetlike.core.typing import Size, Spacing
from nnunetlike.data.video import Supervision, VideoFacts


@dataclass(frozen=True, kw_only=True)
class IntensityStatistics:
    """Foreground intensities of one channel, over one case or all; NaN without foreground."""

    median: float
    mean: float
    sd: float
    mn: float
    mx: float
    percentile_99_5: float
    percentile_00_5: float


@dataclass(frozen=True, kw_only=True)
class ChannelIntensities:
    """Foreground intensities of one channel: over all cases, and case by case."""

    overall: IntensityStatistics
    by_case: Mapping[str, IntensityStatistics]


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Facts of a data set; sequences are in the text order of the case identifiers."""

    sizes: tuple[Size, ...]
    """Voxels (D, H, W) of each case after cropping."""

    spacings: tuple[Spacing, ...]
    """Spacing (D, H, W) of each case in mm, as in its file."""

    classes: tuple[int, ...]
    """Foreground labels in the order of dataset.json."""

    modalities: Mapping[int, str]
    intensities: Mapping[int, ChannelIntensities] | None
    """By channel; None unless a modality is CT."""

    size_reductions: Mapping[str, float]
    """Share of the voxels that cropping left, by case."""

    videos: tuple[VideoFacts, ...] | None = None
    """Facts of each case where the cases are videos."""

    supervision: Supervision = "sparse"
    """Which labelled frames of videos train."""

    orientations: tuple[str | None, ...] = ()
    """Where the axes of each case's file point (`LPS`); None where it does not say. Not written
    into v1's dictionary, which has no place for it."""

    @property
    def orientation(self) -> str | None:
        """The orientation that all cases share; None if they share none, or nothing is known."""
        return self.orientations[0] if len(set(self.orientations)) == 1 else None

    @property
    def video_of(self) -> dict[str, VideoFacts]:
        """Facts of each video by case; empty where the cases are none."""
        return dict(zip(self.size_reductions, self.videos or (), strict=self.videos is not None))
