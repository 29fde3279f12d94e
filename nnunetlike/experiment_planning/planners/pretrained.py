"""Plans taken over from another data set, so that its network can be trained further on this."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from nnunetlike.core.errors import PlanError, UsageError
from nnunetlike.experiment_planning.planners.common import (
    masks_for_normalization,
    normalization_scheme,
)
from nnunetlike.plans.fingerprint import Fingerprint
from nnunetlike.plans.plans import Plans
from nnunetlike.plans.v1 import load_plans

PRETRAINED_PLANNER = "ExperimentPlanner3D_v21_Pretrained"
"""What users type; it is not in the registry because it needs a file and a name."""


@dataclass(frozen=True)
class PretrainedPlanner:
    """Gives the plans of a file with the classes of this data set.

    With as many channels as here, all else, the intensities for normalising CT included, is that of
    the other data set.

    Args:
        path: 3D plans of v1 or ours.
        name: what the user calls them; part of the identifiers.
    """

    path: Path
    name: str

    @property
    def plans_identifier(self) -> str:
        """`nnUNetPlans_pretrained_NAME`."""
        return f"nnUNetPlans_pretrained_{self.name}"

    def within(self, gigabytes: float) -> PretrainedPlanner:
        """Refuse: patch and batch are those of the file.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            f"--gpu_mem {gigabytes:g}: plans that are taken over keep their patch and batch. Leave "
            "it out; nnUNet_train --batch_size trains with fewer patches"
        )

    def plan(self, fingerprint: Fingerprint) -> Plans:
        """Return the plans of the file for the classes of `fingerprint`.

        Where the number of channels is another, channels, their normalisation and the facts of the
        cases are this data set's own; spacing, patch and network stay the file's, so its weights
        fit but for the first convolution.

        Raises:
            PlanError: the file's plans are 2D.
        """
        plans = load_plans(self.path)
        if any(stage.dimension != 3 for stage in plans.stages.values()):
            raise PlanError(f"{self.path} holds 2D plans; give the file ending in _plans_3D.pkl")
        if plans.num_channels != len(fingerprint.modalities):
            plans = replace(
                plans,
                modalities=fingerprint.modalities,
                normalization_schemes={
                    channel: normalization_scheme(name)
                    for channel, name in fingerprint.modalities.items()
                },
                use_mask_for_norm=masks_for_normalization(fingerprint),
                fingerprint=fingerprint,
            )
        return replace(
            plans,
            classes=fingerprint.classes,
            data_identifier=f"nnUNetData_pretrained_{self.name}",
        )
