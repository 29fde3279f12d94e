"""How a folder of images is predicted. Worker processes import this, so it does without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from nnunetlike.core.errors import UsageError

if TYPE_CHECKING:
    import torch

Mode = Literal["normal", "fast", "fastest"]
OverlayKind = Literal["gif", "mp4"]


@dataclass(frozen=True, kw_only=True)
class PredictionSettings:
    """How a folder is predicted."""

    device: torch.device
    step_size: float = 0.5
    mirror: bool = True
    """Average over mirrored views."""

    mode: Mode = "normal"
    """normal resamples probabilities; fast and fastest the label map, by order 1 and order 0."""

    save_npz: bool = False
    overwrite: bool = False
    """Predict cases again whose prediction exists."""

    part: int = 0
    parts: int = 1
    """Predict every `parts`-th case, beginning with number `part`."""

    preprocessing_processes: int = 6
    export_processes: int = 2
    """Worker processes, never more than cores; 0 works in this process."""

    autocast: torch.dtype | None = None
    compiled: bool = False
    """Let torch.compile make the network's code, which takes some seconds at the first window."""

    accumulate_on_device: bool | None = None
    bidirectional: bool = False
    """Videos: go through the frames backwards too, and average."""

    overlay: OverlayKind | None = None
    """Videos: also write one to watch."""

    label_names: Mapping[int, str] | None = None
    """Videos: tell which label is the left ventricle, that `clinical.csv` is about."""

    def __post_init__(self) -> None:
        if not 0 <= self.part < self.parts:
            raise UsageError(
                f"part_id {self.part} must be at least 0 and below num_parts {self.parts}"
            )
        if self.save_npz and self.mode != "normal":
            raise UsageError(
                f"mode {self.mode} has no probabilities on the source grid to save; use --mode "
                "normal with --save_npz"
            )
