"""The 3D planners of nnU-Net v2.1, and one that budgets memory for UNet++."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from nnunetlike.core.errors import PlanError
from nnunetlike.core.typing import Spacing
from nnunetlike.experiment_planning.planners import PLANNERS, Planner, common, fitted
from nnunetlike.experiment_planning.planners.common import Pooling
from nnunetlike.experiment_planning.planners.memory_rules import (
    Demand,
    FormulaMemory,
    MemoryRule,
    NetworkMemory,
)
from nnunetlike.plans.fingerprint import Fingerprint
from nnunetlike.plans.plans import Plans, StagePlan

LOWRES_RATIO = 4
"""A low-resolution stage is planned when the median case has at least this many patches."""


@dataclass(frozen=True, kw_only=True)
class Planner3D:
    """Plans a full resolution, and a low one when the images are much larger than the patch."""

    plans_identifier: str = "nnUNetPlansv2.1"
    data_identifier: str = "nnUNetData_plans_v2.1"
    memory: MemoryRule = field(default_factory=FormulaMemory)
    base_features: int = 32
    conv_per_stage: int = 2

    def within(self, gigabytes: float) -> Planner3D:
        """Return the planner for a device of that size; its files have names of their own."""
        return replace(
            self,
            plans_identifier=fitted(self.plans_identifier, gigabytes),
            data_identifier=fitted(self.data_identifier, gigabytes),
            memory=self.memory.within(gigabytes),
        )

    def plan(self, fingerprint: Fingerprint) -> Plans:
        """Return plans with one stage, or with two, the low resolution first.

        Raises:
            PlanError: the data set has no case, or no patch fits the memory.
        """
        if not fingerprint.sizes:
            raise PlanError("there is no case to plan for; add training cases to dataset.json")
        target = common.target_spacing(fingerprint)
        forward = common.coarsest_first(target)
        return Plans(
            modalities=fingerprint.modalities,
            normalization_schemes={
                channel: common.normalization_scheme(name)
                for channel, name in fingerprint.modalities.items()
            },
            use_mask_for_norm=common.masks_for_normalization(fingerprint),
            classes=fingerprint.classes,
            base_features=self.base_features,
            conv_per_stage=self.conv_per_stage,
            transpose_forward=forward,
            transpose_backward=common.inverse_axes(forward),
            data_identifier=self.data_identifier,
            stages=dict(enumerate(self._stages(fingerprint, target, forward))),
            preprocessor_name="GenericPreprocessor",
            fingerprint=fingerprint,
            orientation=fingerprint.orientation,
        )

    def _stages(
        self, fingerprint: Fingerprint, target: Spacing, forward: tuple[int, int, int]
    ) -> list[StagePlan]:
        shape = common.take(common.median_shape(fingerprint, target), forward)
        frame = _Frame(
            spacing=common.take(target, forward),
            shape=shape,
            cases=len(fingerprint.sizes),
            demand=Demand(
                channels=len(fingerprint.modalities),
                classes=len(fingerprint.classes) + 1,
                base_features=self.base_features,
                conv_per_stage=self.conv_per_stage,
            ),
        )
        full = self._stage(frame, frame.spacing)
        low = self._low_resolution(frame, full)
        return [full] if low is None else [low, full]

    def _low_resolution(self, frame: _Frame, full: StagePlan) -> StagePlan | None:
        """Return a stage whose patch covers a quarter of the median case, if that is worth it."""
        spacing, stage = frame.spacing, full
        voxels = math.prod(frame.shape)
        if voxels / math.prod(full.patch_size) < LOWRES_RATIO:
            return None
        while voxels > LOWRES_RATIO * math.prod(stage.patch_size):
            spacing = common.coarser_spacing(spacing)
            ratios = zip(frame.spacing, spacing, frame.shape, strict=True)
            voxels = math.prod(own / new * n for own, new, n in ratios)
            stage = self._stage(frame, spacing)
        is_small = 2 * math.prod(stage.median_shape) < math.prod(full.median_shape)
        return stage if is_small else None

    def _stage(self, frame: _Frame, spacing: Spacing) -> StagePlan:
        shape = common.rounded_shape(frame.shape, frame.spacing, spacing)
        pooling = common.pool_by_spacing(spacing, common.isotropic_patch(spacing, shape))
        common.require_pooling(pooling, shape)
        while not self.memory.fits(pooling, frame.demand):
            pooling = _smaller(pooling, spacing, shape)
        limit = max(common.batch_limit(shape, pooling.patch_size, frame.cases), 2)
        batch_size = min(self.memory.batch_size(pooling, frame.demand), limit)
        return StagePlan(
            spacing=spacing,
            original_spacing=frame.spacing,
            median_shape=shape,
            patch_size=pooling.patch_size,
            batch_size=max(1, batch_size),
            dummy_2d_augmentation=max(pooling.patch_size) / pooling.patch_size[0]
            > common.ANISOTROPY,
            topology=pooling.topology,
            num_pool_per_axis=pooling.counts,
        )


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """The full resolution (transposed axes) and the data set."""

    spacing: Spacing
    shape: Spacing
    """Median shape at full resolution, not rounded."""

    cases: int
    demand: Demand


def _smaller(pooling: Pooling, spacing: Spacing, shape: tuple[int, ...]) -> Pooling:
    smaller = common.shrink(pooling, spacing, shape)
    if min(smaller.patch_size) < 1 or smaller.patch_size == pooling.patch_size:
        raise PlanError(
            f"no patch fits the memory: {pooling.patch_size} is too large and cannot shrink. Use a "
            "planner with a larger budget (ExperimentPlanner3D_v21_32GB)"
        )
    return smaller


V21 = Planner3D()

for name, suffix, gigabytes in (
    ("ExperimentPlanner3D_v21_11GB", "big", 11 / 8),
    ("ExperimentPlanner3D_v21_16GB", "16GB", 16 / 8.5),
    ("ExperimentPlanner3D_v21_32GB", "verybig", 32 / 8),
):
    variant: Planner = replace(
        V21,
        plans_identifier=f"{V21.plans_identifier}_{suffix}",
        data_identifier=f"{V21.data_identifier}_{suffix}",
        memory=FormulaMemory(520_000_000 * gigabytes),
    )
    PLANNERS.add(name, variant)

PLANNERS.add("ExperimentPlanner3D_v21", V21)
PLANNERS.add(
    "ExperimentPlanner3D_UNetPlusPlus",
    replace(
        V21,
        plans_identifier="nnUNetPlansUNetPlusPlus",
        data_identifier="nnUNetData_plans_UNetPlusPlus",
        memory=NetworkMemory("unet_plus_plus"),
    ),
)
