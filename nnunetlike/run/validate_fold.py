"""Validation of one fold: predict its validation cases, measure, find a postprocessing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from nnunetlike.core.parallel import default_processes
from nnunetlike.inference.predict import require_room_for_probabilities
from nnunetlike.inference.validate import validate
from nnunetlike.inference.validation_settings import ValidationSettings
from nnunetlike.postprocessing.determine import determine_postprocessing
from nnunetlike.run.fold import Fold, copy_references
from nnunetlike.training.runtime import Runtime, prediction_dtype

logger = logging.getLogger(__name__)


def validate_fold(fold: Fold, network: nn.Module, runtime: Runtime) -> dict[str, Any]:
    """Write a fold's validation and postprocessing, and return the validation's summary.

    Raises:
        DataError: cases or labels are missing.
        ResourceError: the disk has no room for the probabilities that were asked for.
    """
    run = fold.run
    output = fold.folder / run.val_folder
    if run.save_npz:
        cases = len(fold.split.val)
        require_room_for_probabilities(fold.plans, cases, output, "validate without --npz")
    summary = validate(
        network.to(runtime.device),
        fold.plans,
        fold.stage_number,
        fold.store,
        fold.split.val,
        fold.references,
        output,
        ValidationSettings(
            device=runtime.device,
            save_npz=run.save_npz,
            overwrite=run.overwrite_validation,
            autocast=prediction_dtype(runtime.device, runtime.precision),
            strategy=run.recipe.network.strategy,
        ),
        task=run.task,
        name=f"{run.recipe.name} val tiled True",
        team=runtime,
        previous=fold.previous,
    )
    if not runtime.is_main:
        return summary
    if run.postprocess and fold.stage.video is None:
        determine_postprocessing(
            fold.folder, fold.references, raw=run.val_folder, processes=default_processes()
        )
    copy_references(fold)
    return summary


def validation_folder(checkpoint: str | None) -> str:
    """Return where weights that a user chose are validated, apart from those of v1's folder."""
    if checkpoint is None:
        return "validation_raw"
    return f"validation_{Path(checkpoint).name.removesuffix('.model')}"


def dice_table(summary: Mapping[str, Any]) -> str:
    """Return the mean Dice of every class of a summary, one line each."""
    means = summary["results"]["mean"]
    lines = [f"  class {label:>3}  Dice {_text(row['Dice'])}" for label, row in _rows(means)]
    found = [row["Dice"] for label, row in _rows(means) if row["Dice"] == row["Dice"]]
    if found:
        lines.append(f"  mean       Dice {sum(found) / len(found):.4f}")
    return "\n".join(lines)


def _rows(means: Mapping[str, Any]) -> list[tuple[str, Mapping[str, float]]]:
    return [(label, row) for label, row in means.items() if label not in ("0", "mean")]


def _text(value: float) -> str:
    return f"{value:.4f}" if value == value else "n/a (in no label and no prediction)"
