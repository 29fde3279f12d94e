"""Several models' validations of the same folds, averaged as an ensemble would."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nnunetlike.core.errors import UsageError
from nnunetlike.core.folders import visible_files
from nnunetlike.data.imageio import ending_in, split_ending
from nnunetlike.inference.ensemble import EnsembleCase, ensemble_cases
from nnunetlike.inference.probabilities import kept_ids
from nnunetlike.postprocessing.consolidate import chosen_folds, predictions_of
from nnunetlike.postprocessing.determine import (
    determine_postprocessing,
    foreground_of,
    pair_with_references,
    summarise,
)

RAW, FINAL = "ensembled_raw", "ensembled_postprocessed"
VALIDATION = "validation_raw"


def without_probabilities(fold: Path) -> list[str]:
    """Return the validation cases of a fold whose probabilities were not kept, sorted."""
    ids = [split_ending(path.name)[0] for path in predictions_of([fold])]
    return sorted(set(ids) - set(kept_ids(fold / VALIDATION)))


def ensemble_validations(
    models: Sequence[Path],
    folds: Sequence[int | str],
    references: Path,
    target: Path,
    *,
    labels: Sequence[int],
    postprocess: bool = True,
    min_size: bool = False,
    processes: int,
) -> None:
    """Average the validations of several models, score them and find their postprocessing.

    Writes `target/ensembled_raw` (label maps and summary.json) and, with postprocessing,
    `target/postprocessing.json` and `target/ensembled_postprocessed`, as nnU-Net v1 does.

    Args:
        models: folders `TRAINER__PLANS`, whose validations kept their probabilities.
        folds: numbers, or `all`; each case is validated in one of them.
        references: folder with a reference label map for every case.
        target: folder of this ensemble.
        labels: to score, background included.
        postprocess: determine the postprocessing.
        min_size: also look for the volume below which a component of a label is better removed.
        processes: most worker processes; 0 or 1 computes in this process.

    Raises:
        UsageError: the models did not validate the same cases.
        DataError: probabilities are missing, cannot be read or do not fit together.
    """
    cases = _cases(models, folds)
    ending = ending_in(references)
    written = ensemble_cases(cases, target / RAW, ending=ending, processes=processes)
    for path in set(visible_files(target / RAW, ending)) - set(written):
        path.unlink()  # of folds that are not asked for now
    pairs = pair_with_references(written, references)
    summarise(pairs, labels, target / RAW, target / RAW, processes=processes)
    if postprocess:
        determine_postprocessing(
            target, references, raw=RAW, final=FINAL, classes=foreground_of(labels),
            min_size=min_size, processes=processes,
        )  # fmt: skip


def _cases(models: Sequence[Path], folds: Sequence[int | str]) -> list[EnsembleCase]:
    """Return the cases with their probabilities by every model."""
    by_model: list[dict[str, Path]] = []
    for model in models:
        files = predictions_of(chosen_folds(model, folds))
        stems = {split_ending(path.name)[0]: path for path in files}
        by_model.append({i: path.with_name(f"{i}.npz") for i, path in stems.items()})
    require_same_cases({str(m): set(f) for m, f in zip(models, by_model, strict=True)})
    return [EnsembleCase(i, tuple(files[i] for files in by_model)) for i in sorted(by_model[0])]


def require_same_cases(cases: dict[str, set[str]]) -> None:
    """Do nothing if all models validated the same cases.

    Args:
        cases: identifiers by the name of the model.

    Raises:
        UsageError: they did not; what each lacks is named.
    """
    every = set().union(*cases.values())
    faults = [
        f"{name} lacks {', '.join(sorted(every - found)[:10])}"
        for name, found in cases.items()
        if every - found
    ]
    if faults:
        raise UsageError(
            "the models validated different cases, so their Dice cannot be compared: "
            f"{'; '.join(faults)}. Train them on the same splits, or choose folds with -f"
        )
