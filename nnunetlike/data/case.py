"""One case: its files, and its arrays once read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nnunetlike.core.typing import FloatArray, LabelMap
from nnunetlike.data.geometry import Geometry
from nnunetlike.data.labels import LabelSet
from nnunetlike.data.video import VideoFacts


@dataclass(frozen=True, kw_only=True)
class CaseFiles:
    """Paths of one case: its images, and the label if there is one.

    There is one image per channel, in order, or one that holds all channels.
    """

    case_id: str
    images: tuple[Path, ...]
    label: Path | None = None
    channels: int | None = None
    """How many channels the images must have together; None asks for nothing."""

    video: VideoFacts | None = None
    """Of a video, whose axis D is time; None says that it is none."""

    labels: LabelSet | None = None
    """What the label map of a video may hold; None asks for nothing."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Arrays of one case: image (C, D, H, W) float32, label (D, H, W), on one grid."""

    case_id: str
    image: FloatArray
    label: LabelMap | None
    geometry: Geometry
