"""Plans: how a data set is resampled, cut, batched and which network fits it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nnunetlike.core.errors import PlanError, UsageError
from nnunetlike.core.typing import Size, Spacing
from nnunetlike.data.video import Supervision
from nnunetlike.plans.fingerprint import Fingerprint
from nnunetlike.plans.topology import Topology

FrameSampling = Literal["uniform_ed_es", "stride"]
NetworkSize = Literal["base", "small"]
Conventions = Literal["v1", "v2"]


@dataclass(frozen=True, kw_only=True)
class VideoPlan:
    """What the plan of a video has beside that of a single frame."""

    clip_length: int
    """Frames of a training clip, T."""

    memory_stride: int
    """Pixels of the frame per token of the network's memory, along H and W: 8 or 16."""

    network_size: NetworkSize
    frame_sampling: FrameSampling
    """Frames of a clip: evenly from end-diastole to end-systole, or every n-th from anywhere."""

    supervision: Supervision
    unit: Literal["mm", "px"] = "mm"
    """Of the spacing along H and W."""


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """How one resolution is resampled, cut into patches and batched. Axes are transposed."""

    spacing: Spacing
    """Distance between voxel centres after resampling, three axes, in mm (v1: current_spacing)."""

    original_spacing: Spacing
    """Spacing of the full resolution, three axes, in mm."""

    median_shape: Size
    """Shape of the median case after resampling, three axes, in voxels."""

    patch_size: Size
    """Shape the network sees, in voxels: two or three axes."""

    batch_size: int
    """Patches per optimizer step, over all processes."""

    dummy_2d_augmentation: bool
    """Augment in-plane only, because the patch is flat."""

    topology: Topology
    num_pool_per_axis: Size
    video: VideoPlan | None = None
    """Of videos, which are cut into clips of frames of the size of a patch; else nothing."""

    def __post_init__(self) -> None:
        divisor = self.topology.divisor
        if len(divisor) != len(self.patch_size) or any(
            p % d for p, d in zip(self.patch_size, divisor, strict=True)
        ):
            raise PlanError(
                f"patch {self.patch_size} cannot be pooled as planned: its axes must be multiples "
                f"of {divisor}. Change patch_size, or plan this dataset again"
            )

    @property
    def dimension(self) -> int:
        """2 or 3: axes of the patch."""
        return len(self.patch_size)

    @property
    def input_size(self) -> Size:
        """Axes of what the network gets in training: the patch, or (T, *patch) of a clip."""
        return (*(() if self.video is None else (self.video.clip_length,)), *self.patch_size)


@dataclass(frozen=True, kw_only=True)
class Plans:
    """Everything training and prediction need to know of a data set."""

    modalities: Mapping[int, str]
    normalization_schemes: Mapping[int, str]
    """`CT`, `CT2`, `nonCT` or `noNorm`, by channel."""

    use_mask_for_norm: Mapping[int, bool]
    classes: tuple[int, ...]
    """Foreground labels."""

    base_features: int
    conv_per_stage: int
    transpose_forward: tuple[int, int, int]
    transpose_backward: tuple[int, int, int]
    data_identifier: str
    """Prefix of the preprocessed folders, `nnUNetData_plans_v2.1`."""

    stages: Mapping[int, StagePlan]
    """By number; with two, 0 is the low resolution and 1 the full."""

    preprocessor_name: str
    fingerprint: Fingerprint
    case_files: tuple[str, ...] = ()
    """Cropped npz files (v1: list_of_npz_files); kept for v1, never read."""

    preprocessed_folder: str = ""
    """Kept for v1, never read."""

    conventions: Conventions = "v1"
    """Which nnU-Net's order of steps: v2 normalises before it resamples and averages logits, v1
    after it and probabilities. Models of v2 only; v1's files do not tell it."""

    regions: tuple[int, ...] | None = None
    """Of models of v2 whose channels are regions that may overlap: the label of each channel, where
    a later channel goes over an earlier one. None: a channel per class, background first."""

    orientation: str | None = None
    """Where the axes x, y, z of the training cases' files point (`LPS`, see `data/orientation.py`).
    Other cases are turned before anything else. None: all are taken as they are stored."""

    extra: Mapping[str, Any] = field(default_factory=dict)
    """Keys of a v1 pickle that have no field here, such as `segmentation_export_params`."""

    @property
    def num_channels(self) -> int:
        """Image channels."""
        return len(self.modalities)

    @property
    def num_classes(self) -> int:
        """Channels that the network gives: classes with background, or regions without."""
        return len(self.classes) + 1 if self.regions is None else len(self.regions)

    def stage_number(self, configuration: str) -> int:
        """Return the stage that a configuration trains on.

        Raises:
            UsageError: the plans have one stage, so there is neither low resolution nor cascade.
        """
        if configuration in ("3d_lowres", "3d_cascade_fullres") and len(self.stages) == 1:
            raise UsageError(
                f"{configuration} does not exist for this task: its images are small enough for "
                "one stage. Use 3d_fullres"
            )
        return 0 if configuration in ("2d", "3d_lowres") else max(self.stages)

    def stage(self, configuration: str) -> StagePlan:
        """Return the stage plan of a configuration ("2d", "3d_lowres", "3d_fullres", ...)."""
        return self.stages[self.stage_number(configuration)]

    def stage_folder(self, number: int) -> str:
        """Return the name of a stage's folder of preprocessed cases."""
        return f"{self.data_identifier}_stage{number}"
