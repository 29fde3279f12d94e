"""The two stages of a cascade: what the low resolution hands on, and who needs it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from nnunetlike.core import paths
from nnunetlike.core.errors import DataError
from nnunetlike.core.parallel import default_processes, process_map
from nnunetlike.data.previous_stage import FOLDER, PreviousStage
from nnunetlike.data.splits import load_splits
from nnunetlike.data.store import CaseStore
from nnunetlike.inference.next_stage import predict_next_stage
from nnunetlike.inference.strategies import Request
from nnunetlike.run.fold import Fold
from nnunetlike.training.runtime import Runtime, prediction_dtype


def require_previous_stage(fold: Fold) -> None:
    """Do nothing if every case of the fold has a segmentation by the low resolution.

    Raises:
        DataError: some have none; they are named, with the commands that make them.
    """
    previous = fold.previous
    if previous is None:
        return
    missing = previous.missing(sorted({*fold.split.train, *fold.split.val}))
    if missing:
        commands = "; ".join(_commands(fold, previous.folder.parent, missing))
        shown = ", ".join(missing[:10]) + (", …" if len(missing) > 10 else "")
        raise DataError(
            f"{previous.folder} lacks the segmentations of {len(missing)} cases: {shown}. Each "
            f"fold of {paths.LOW} makes those of its validation cases. Run: {commands}"
        )


def _commands(fold: Fold, model: Path, missing: Sequence[str]) -> list[str]:
    """Return the commands that make the segmentations of cases."""
    run = fold.run
    by_fold: dict[int | str, list[str]] = defaultdict(list)
    splits = load_splits(fold.dataset / "splits_final.pkl")
    for case in missing:
        number = next((i for i, split in enumerate(splits) if case in split.val), "all")
        by_fold[number].append(case)
    plans = "" if run.plans_identifier == paths.DEFAULT_PLANS else f" -p {run.plans_identifier}"
    return [
        f"nnUNet_train {paths.LOW} {run.recipe.previous_trainer} {run.task} {number}{plans}"
        + (" -val" if any((model / paths.fold_name(number)).glob("*.model")) else "")
        for number in sorted(by_fold, key=str)
    ]


def unpack_previous_stage(fold: Fold) -> None:
    """Write the segmentations uncompressed beside their npz, those that are not yet."""
    if fold.previous is not None:
        cases = sorted({*fold.split.train, *fold.split.val})
        process_map(fold.previous.unpack, cases, processes=default_processes(), title="")


def hand_on(fold: Fold, network: nn.Module, runtime: Runtime) -> None:
    """Write what the low resolution says of its validation cases for the next stage.

    Raises:
        DataError: the cases of the full resolution are not preprocessed.
        ResourceError: a device's memory or the disk does not suffice.
    """
    full = CaseStore(fold.dataset / fold.plans.stage_folder(max(fold.plans.stages)))
    missing = [case for case in fold.split.val if not full.holds(case)]
    if missing:
        raise DataError(
            f"{full.folder} lacks {', '.join(missing[:10])}, whose grid the next stage needs; "
            "preprocess again with nnUNet_plan_and_preprocess, or give --disable_next_stage_pred"
        )
    patch = fold.stage.patch_size
    predict_next_stage(
        network.to(runtime.device),
        fold.store,
        full,
        fold.split.val,
        PreviousStage(fold.model_folder / FOLDER),
        request=Request(
            patch_size=patch,
            device=runtime.device,
            mirror_axes=fold.mirror_axes,
            autocast=prediction_dtype(runtime.device, runtime.precision),
        ),
        strategy=fold.run.recipe.network.strategy,
        team=runtime,
    )
