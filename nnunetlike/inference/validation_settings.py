"""How the validation after training predicts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from nnunetlike.core.serialization import save_json
from nnunetlike.inference.strategies import Request
from nnunetlike.plans.plans import StagePlan


@dataclass(frozen=True, kw_only=True)
class ValidationSettings:
    """How a fold is validated."""

    device: torch.device
    """Where the network lies."""

    step_size: float = 0.5
    """Distance of windows as a share of the patch."""

    mirror: bool = True
    """Average over mirrored views; never done with videos."""

    gaussian: bool = True
    """Weigh the middle of windows more."""

    save_npz: bool = False
    """Also keep probabilities."""

    overwrite: bool = True
    """Predict cases again whose prediction is of an earlier, completed validation."""

    processes: int | None = None
    """Workers for export and evaluation; None takes v1's default, 0 works here."""

    autocast: torch.dtype | None = None
    """Type to compute in; None computes in float32."""

    strategy: str = "sliding_window"
    """Name of the way to predict."""

    def request(self, plan: StagePlan) -> Request:
        """Return how an image of a stage is predicted."""
        return Request(
            patch_size=plan.patch_size,
            device=self.device,
            step_size=self.step_size,
            gaussian=self.gaussian,
            mirror_axes=tuple(range(plan.dimension)) if self._mirrors(plan) else (),
            autocast=self.autocast,
        )

    def save(self, plan: StagePlan, output: Path) -> None:
        """Write `validation_args.json` as nnU-Net v1 does."""
        content = {
            "do_mirroring": self._mirrors(plan),
            "use_sliding_window": True,
            "step_size": self.step_size,
            "save_softmax": self.save_npz,
            "use_gaussian": self.gaussian,
            "overwrite": self.overwrite,
            "validation_folder_name": output.name,
            "debug": False,
            "all_in_gpu": False,
            "segmentation_export_kwargs": None,
        }
        save_json(content, output / "validation_args.json", sort_keys=True)

    def _mirrors(self, plan: StagePlan) -> bool:
        return self.mirror and plan.video is None
