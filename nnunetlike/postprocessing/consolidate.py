"""The validation predictions of all folds of a model, pooled for one common postprocessing."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetlike.core.errors import UsageError
from nnunetlike.core.folders import atomic_folder, visible_files
from nnunetlike.core.paths import OFFICIAL, fold_name
from nnunetlike.core.typing import JSON
from nnunetlike.data.imageio import ending_in
from nnunetlike.evaluation.summary import read_summary
from nnunetlike.postprocessing.determine import (
    determine_postprocessing,
    foreground_of,
    pair_with_references,
    scored_labels,
    summarise,
)

POOLED = "cv_niftis_raw"
POOLED_FINAL = "cv_niftis_postprocessed"
REFERENCES = "gt_niftis"


@dataclass(frozen=True)
class Consolidated:
    """What the folds gave together."""

    folds: tuple[str, ...]
    """Folder names."""

    cases: int
    references: int
    """Cases that have a reference: more than `cases` if folds are missing."""

    postprocessing: JSON


@dataclass(frozen=True)
class Pooled:
    """The predictions of several folds in one folder."""

    folds: tuple[str, ...]
    """Folder names."""

    cases: int
    labels: tuple[int, ...]
    """That were scored, background included."""


def pool(
    model: Path,
    references: Path,
    *,
    folds: Sequence[int | str] | None = None,
    validation: str = "validation_raw",
    classes: Sequence[int] | None = None,
    processes: int,
) -> Pooled:
    """Write `cv_niftis_raw`, whole or not at all: copies of the predictions and a summary.json.

    Args:
        model: folder that holds the folds.
        references: folder with a reference label map for every prediction.
        folds: fold numbers, or `all`; None takes every numbered fold with predictions, or `all`
            where there is no other.
        validation: name of the predictions' folder in each fold.
        classes: labels; those of the folds' summary.json if None.
        processes: most worker processes; 0 or 1 computes in this process.

    Raises:
        UsageError: a fold has no complete validation, or two folds predicted the same case.
        DataError: references are missing.
    """
    chosen = chosen_folds(model, folds, validation)
    files = predictions_of(chosen, validation)
    labels = list(classes or scored_labels(chosen[0] / validation / "summary.json"))
    pairs = pair_with_references(files, references)
    with atomic_folder(model / POOLED) as folder:
        for path in files:
            shutil.copyfile(path, folder / path.name)
        summarise(pairs, labels, folder, model / POOLED, processes=processes)
    return Pooled(tuple(fold.name for fold in chosen), len(files), tuple(labels))


def consolidate(
    model: Path,
    references: Path,
    *,
    folds: Sequence[int | str] | None = None,
    validation: str = "validation_raw",
    classes: Sequence[int] | None = None,
    min_size: bool = False,
    processes: int,
) -> Consolidated:
    """Pool the validation predictions of a model's folds and determine their postprocessing.

    Writes into the model folder, each whole or not at all: `cv_niftis_raw` (see `pool`),
    `cv_niftis_postprocessed` and `postprocessing.json`.

    Args:
        model: folder that holds the folds.
        references: folder with a reference label map for every prediction.
        folds: as `pool` takes them.
        validation: name of the predictions' folder in each fold.
        classes: foreground labels; those of the folds' summary.json if None.
        min_size: also look for the volume below which a component of a label is better removed.
        processes: most worker processes; 0 or 1 computes in this process.

    Raises:
        UsageError: a fold has no complete validation, or two folds predicted the same case.
        DataError: references are missing.
    """
    pooled = pool(
        model, references, folds=folds, validation=validation, classes=classes, processes=processes
    )
    found = determine_postprocessing(
        model,
        references,
        raw=POOLED,
        final=POOLED_FINAL,
        classes=foreground_of(pooled.labels),
        min_size=min_size,
        processes=processes,
    )
    total = len(visible_files(references, ending_in(references)))
    return Consolidated(pooled.folds, pooled.cases, total, found)


def chosen_folds(
    model: Path, folds: Sequence[int | str] | None = None, validation: str = "validation_raw"
) -> list[Path]:
    """Return the folders of the folds asked for, or of all that were validated.

    Raises:
        UsageError: one of them was not, or there is none.
    """
    if not model.is_dir():
        raise UsageError(f"{model} does not exist; train the model first")
    if folds is not None:
        chosen = [model / fold_name(fold) for fold in folds]
        missing = [fold.name for fold in chosen if not _is_validated(fold / validation)]
    else:
        numbered = [entry for entry in model.iterdir() if re.fullmatch(r"fold_\d+", entry.name)]
        numbered.sort(key=lambda entry: int(entry.name.removeprefix("fold_")))
        official = [path for path in [model / fold_name(OFFICIAL)] if path.is_dir()]
        candidates = numbered or official or [model / "all"]
        chosen = [fold for fold in candidates if _is_validated(fold / validation)]
        missing = []
    if missing or not chosen:
        who = ", ".join(missing) or "every fold"
        raise UsageError(
            f"{model}: {who} lacks a complete validation in {validation}. Validate first: "
            "nnUNet_train … -val"
        )
    return chosen


def _is_validated(folder: Path) -> bool:
    """Tell whether a validation has come to its end: its summary.json comes last."""
    return (folder / "summary.json").is_file()


def predictions_of(folds: Sequence[Path], validation: str = "validation_raw") -> list[Path]:
    """Return the predictions of all folds, sorted by name; each case once.

    Raises:
        UsageError: two folds predicted the same case, or a fold lacks one that its summary names.
    """
    by_name: dict[str, Path] = {}
    for fold in folds:
        found = visible_files(fold / validation, ending_in(fold / validation))
        _require_all(fold, validation, found)
        for path in found:
            if path.name in by_name:
                raise UsageError(
                    f"{path.name} was predicted by {by_name[path.name].parent.parent.name} and by "
                    f"{fold.name}; choose folds that validate each case once with -f"
                )
            by_name[path.name] = path
    return [by_name[name] for name in sorted(by_name)]


def _require_all(fold: Path, validation: str, found: Sequence[Path]) -> None:
    scored = read_summary(fold / validation / "summary.json").cases
    names = {Path(case.prediction).name for case in scored if case.prediction}
    missing = names - {path.name for path in found}
    if missing:
        raise UsageError(
            f"{fold / validation} lacks {', '.join(sorted(missing)[:10])}, which its summary.json "
            "scores. Validate again: nnUNet_train … -val --val_disable_overwrite"
        )
