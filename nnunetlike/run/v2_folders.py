"""Where nnU-Net v2 keeps trained models: `nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION`."""

from __future__ import annotations

from pathlib import Path

from nnunetlike.core import environment, paths
from nnunetlike.core.errors import UsageError

TRAINER, PLANS = "nnUNetTrainer", "nnUNetPlans"
"""What v2 trains with unless told otherwise."""


def v2_model_folder(task: str, configuration: str, trainer: str, plans: str) -> Path | None:
    """Return the folder of a model of nnU-Net v2, or None where v2 has trained nothing of the task.

    Args:
        task: name or number.
        configuration: `3d_fullres`, ...
        trainer: name; v1's default stands for v2's.
        plans: name; likewise.

    Raises:
        UsageError: v2 has trained several data sets of that number.
    """
    setting = environment.RESULTS.find()
    if setting is None:
        return None
    found = [folder for folder in _data_sets(setting.root, task) if any(folder.glob("*__*__*"))]
    if not found:
        return None
    if len(found) > 1:
        names = ", ".join(folder.name for folder in found)
        raise UsageError(f"several data sets have the number {task}: {names}. Give the full name")
    named = {paths.DEFAULT_TRAINER: TRAINER}.get(trainer, trainer)
    planned = {paths.DEFAULT_PLANS: PLANS}.get(plans, plans)
    return found[0] / f"{named}__{planned}__{configuration}"


def _data_sets(root: Path, task: str) -> list[Path]:
    if not task.isdigit():
        folder = root / task
        return [folder] if folder.is_dir() else []
    return sorted(p for p in root.glob("Dataset*_*") if paths.task_number(p.name) == int(task))
