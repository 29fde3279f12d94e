"""The 2D planner of nnU-Net v2.1: whole slices, one stage."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from nnunetlike.core.errors import PlanError
from nnunetlike.core.typing import Size, Spacing
from nnunetlike.experiment_planning.planners import PLANNERS, common, fitted
from nnunetlike.experiment_planning.planners.common import Pooling, memory_estimate
from nnunetlike.experiment_planning.planners.memory_rules import REFERENCE_GB
from nnunetlike.plans.fingerprint import Fingerprint
from nnunetlike.plans.plans import Plans, StagePlan


@dataclass(frozen=True, kw_only=True)
class Planner2D:
    """Plans slices across the coarsest axis.

    Unlike in 3D the target spacing is the plain median, so both may differ through the plane.
    """

    plans_identifier: str = "nnUNetPlansv2.1"
    data_identifier: str = "nnUNetData_plans_v2.1_2D"
    reference: float = 19_739_648 * 50 / 2
    """v1's estimate that fills 8 GB with a batch of two."""

    base_features: int = 32
    max_features: int = 512

    def within(self, gigabytes: float) -> Planner2D:
        """Return the planner for a device of that size; its files have names of their own."""
        return replace(
            self,
            plans_identifier=fitted(self.plans_identifier, gigabytes),
            data_identifier=fitted(self.data_identifier, gigabytes),
            reference=Planner2D.reference * gigabytes / REFERENCE_GB,
        )

    def plan(self, fingerprint: Fingerprint) -> Plans:
        """Return plans with one stage.

        Raises:
            PlanError: the data set has no case, or its images are too small to pool.
        """
        if not fingerprint.sizes:
            raise PlanError("there is no case to plan for; add training cases to dataset.json")
        target = common.median_spacing(fingerprint)
        forward = common.coarsest_first(target)
        spacing = common.take(target, forward)
        shape = common.take(common.median_shape(fingerprint, target), forward)
        return Plans(
            modalities=fingerprint.modalities,
            normalization_schemes={
                channel: common.normalization_scheme(name)
                for channel, name in fingerprint.modalities.items()
            },
            use_mask_for_norm=common.masks_for_normalization(fingerprint),
            classes=fingerprint.classes,
            base_features=self.base_features,
            conv_per_stage=2,
            transpose_forward=forward,
            transpose_backward=common.inverse_axes(forward),
            data_identifier=self.data_identifier,
            stages={0: self._stage(fingerprint, spacing, shape)},
            preprocessor_name="PreprocessorFor2D",
            fingerprint=fingerprint,
            orientation=fingerprint.orientation,
        )

    def _stage(self, fingerprint: Fingerprint, spacing: Spacing, exact: Spacing) -> StagePlan:
        shape = common.rounded_shape(exact, spacing, spacing)
        pooling, estimate = self._patch(fingerprint, spacing[1:], shape[1:])
        batch_size = math.floor(self.reference / estimate) * 2
        limit = common.batch_limit(shape, pooling.patch_size, len(fingerprint.sizes))
        return StagePlan(
            spacing=spacing,
            original_spacing=spacing,
            median_shape=shape,
            patch_size=pooling.patch_size,
            batch_size=max(1, min(batch_size, limit)),
            dummy_2d_augmentation=False,
            topology=pooling.topology,
            num_pool_per_axis=pooling.counts,
        )

    def _patch(
        self, fingerprint: Fingerprint, spacing: Spacing, shape: Size
    ) -> tuple[Pooling, int]:
        """Return the largest patch that fits and its estimate.

        As in v1 the first estimate is that of 30 features, those of smaller patches of 32.
        """
        pooling = common.require_pooling(common.pool_by_spacing(spacing, shape), shape)
        estimate = self._estimate(pooling, fingerprint, 30)
        while estimate > self.reference:
            pooling = common.shrink(pooling, spacing, shape)
            estimate = self._estimate(pooling, fingerprint, self.base_features)
        return pooling, estimate

    def _estimate(self, pooling: Pooling, fingerprint: Fingerprint, base_features: int) -> int:
        return memory_estimate(
            pooling,
            channels=len(fingerprint.modalities),
            classes=len(fingerprint.classes) + 1,
            base_features=base_features,
            max_features=self.max_features,
        )


PLANNERS.add("ExperimentPlanner2D_v21", Planner2D())
