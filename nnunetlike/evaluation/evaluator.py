"""Predicted label maps against reference label maps, case by case, in parallel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from nnunetlike.core.errors import DataError, ShapeError, UsageError
from nnunetlike.core.folders import visible_files
from nnunetlike.core.intact import unpacked_size
from nnunetlike.core.parallel import process_map
from nnunetlike.core.typing import LabelMap, Spacing
from nnunetlike.data.imageio import ending_in, format_of, split_ending
from nnunetlike.evaluation.confusion import confusion
from nnunetlike.evaluation.metrics import Comparison, chosen_metrics
from nnunetlike.evaluation.summary import CaseScores, Summary

Label = int | tuple[int, ...]
"""One label value, or the values whose union is a region."""

MEMORY_FACTOR = 12
"""Memory that a comparison takes, per byte of both files unpacked (measured)."""

Labels = Sequence[Label] | Mapping[Label, str]
"""What to score; a mapping also gives each structure its name in summary.json."""


def evaluate_pairs(
    pairs: Sequence[tuple[Path, Path]],
    labels: Labels,
    *,
    processes: int,
    advanced: bool = False,
    metrics: Sequence[str] = (),
    title: str = "evaluating",
) -> Summary:
    """Return the scores of pairs of files.

    Args:
        pairs: prediction and reference of each case.
        labels: label values (0 for background too, if wanted) and regions (tuples of values).
        processes: most worker processes; 0 or 1 computes in this process.
        advanced: also compute the costly metrics (Hausdorff Distance 95).
        metrics: what else to compute, as `chosen_metrics` takes it.
        title: what the progress bar says; no bar when empty.

    Raises:
        UsageError: there is nothing to score, or a metric does not exist.
        DataError: a file is missing, cannot be read, or a pair differs in shape.
    """
    if not pairs or not labels:
        raise UsageError("nothing to evaluate: give at least one case and one label")
    chosen_metrics(advanced=advanced, asked=metrics)  # before any case is read
    evaluate = partial(
        _evaluate_files,
        structures=_structures(labels),
        advanced=advanced,
        metrics=tuple(metrics),
    )
    cases = process_map(
        evaluate, pairs, processes=processes, name=_case_name, title=title, cost=pair_memory
    )
    return Summary(tuple(cases))


def evaluate_folder(
    predictions: Path,
    references: Path,
    labels: Labels,
    *,
    processes: int,
    advanced: bool = False,
    metrics: Sequence[str] = (),
    title: str = "evaluating",
) -> Summary:
    """Return the scores of all cases of two folders, see `folder_pairs`.

    Raises:
        DataError: a folder is missing or empty, or a case is in one of them only.
    """
    pairs = folder_pairs(predictions, references)
    return evaluate_pairs(
        pairs, labels, processes=processes, advanced=advanced, metrics=metrics, title=title
    )


def folder_pairs(predictions: Path, references: Path) -> list[tuple[Path, Path]]:
    """Return the pairs of files of two folders that hold the same names, sorted.

    The files are those with the ending of the references; others are not looked at.

    Raises:
        DataError: a folder is missing or empty, or a case is in one of them only.
    """
    for folder in (predictions, references):
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder")
    ending = ending_in(references)
    predicted = {path.name for path in visible_files(predictions, ending)}
    wanted = {path.name for path in visible_files(references, ending)}
    if not wanted:
        raise DataError(f"{references} holds no {ending} file, nor any other image")
    if predicted != wanted:
        raise DataError(
            "predictions and references must be the same cases. "
            + _only_in(references, wanted - predicted)
            + _only_in(predictions, predicted - wanted)
            + "Predict the missing cases, or move the others away"
        )
    return [(predictions / name, references / name) for name in sorted(wanted)]


def score_case(
    prediction: LabelMap,
    reference: LabelMap,
    spacing: Spacing,
    structures: Mapping[str, tuple[int, ...]],
    *,
    advanced: bool = False,
    metrics: Sequence[str] = (),
) -> dict[str, dict[str, float]]:
    """Return the metrics of each structure of one case.

    Args:
        prediction: label map, (D, H, W).
        reference: label map, (D, H, W).
        spacing: distance between voxel centres along D, H, W, in mm.
        structures: label values of each structure, by name.
        advanced: also compute the costly metrics.
        metrics: what else to compute, as `chosen_metrics` takes it.

    Raises:
        ShapeError: the shapes differ.
    """
    chosen = chosen_metrics(advanced=advanced, asked=metrics)
    every = [value for members in structures.values() for value in members]
    matrix = confusion(reference, prediction, every)
    scores: dict[str, dict[str, float]] = {}
    for name, members in structures.items():
        case = Comparison(matrix.counts(members), members, prediction, reference, spacing)
        scores[name] = {metric: found.measure(case) for metric, found in chosen.items()}
    return scores


def pair_memory(pair: tuple[Path, Path]) -> float:
    """Return about how many bytes it takes to compare a prediction with its reference."""
    return MEMORY_FACTOR * sum(map(unpacked_size, pair))


def _structures(labels: Labels) -> dict[str, tuple[int, ...]]:
    names = labels if isinstance(labels, Mapping) else {label: str(label) for label in labels}
    return {
        str(name): label if isinstance(label, tuple) else (int(label),)
        for label, name in names.items()
    }


def _evaluate_files(
    pair: tuple[Path, Path],
    *,
    structures: Mapping[str, tuple[int, ...]],
    advanced: bool,
    metrics: Sequence[str],
) -> CaseScores:
    predicted, wanted = pair
    prediction, geometry = format_of(predicted).read_label(predicted)
    reference, _ = format_of(wanted).read_label(wanted)
    try:
        scores = score_case(
            prediction, reference, geometry.spacing, structures, advanced=advanced, metrics=metrics
        )
    except ShapeError as error:
        raise ShapeError(f"{predicted} against {wanted}: {error}") from None
    return CaseScores(str(predicted), str(wanted), scores)


def _case_name(pair: tuple[Path, Path]) -> str:
    return split_ending(pair[0].name)[0]


def _only_in(folder: Path, names: set[str], limit: int = 10) -> str:
    if not names:
        return ""
    shown = ", ".join(sorted(names)[:limit])
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"Only in {folder}: {shown}{more}. "
