"""Folders of predicted videos against the references of a raw task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nnunetlike.core.errors import DataError
from nnunetlike.data.dataset import DatasetSpec
from nnunetlike.data.imageio import split_ending
from nnunetlike.data.video import VideoFacts
from nnunetlike.evaluation.evaluator import folder_pairs
from nnunetlike.evaluation.video import VideoSummary, evaluate_videos

SIDECARS = {"labelsTr": "casesTr", "labelsTs": "casesTs"}
"""Where a raw task keeps the facts of the videos whose references lie in a folder."""

NO_IGNORE = -1
"""Value that no pixel of a label map has."""


def find_sidecars(references: Path) -> Path | None:
    """Return the folder of the videos' facts beside a raw task's references.

    Returns:
        None if the references are not `labelsTr` or `labelsTs` of a task that declares videos, or
        there is no such folder.
    """
    references = references.resolve()
    description = references.parent / "dataset.json"
    folder = references.parent / SIDECARS.get(references.name, "")
    if folder == references.parent or not folder.is_dir() or not description.is_file():
        return None
    return folder if DatasetSpec.load(description).video is not None else None


def evaluate_video_folder(
    predictions: Path,
    references: Path,
    labels: Sequence[int],
    sidecars: Path,
    *,
    processes: int,
    title: str = "evaluating",
) -> VideoSummary:
    """Return the scores of all videos of two folders whose file names are the same.

    What the labels are called, which one is ignored and which frames are scored says the
    `dataset.json` beside the folder of references or that of sidecars.

    Args:
        predictions: folder of label videos.
        references: folder of label videos.
        labels: label values to score.
        sidecars: folder of `ID.json`, the facts of each video.
        processes: most worker processes; 0 or 1 computes in this process.
        title: what the progress bar says; no bar when empty.

    Raises:
        DataError: a case, its facts or dataset.json is missing or wrong.
    """
    task = _description(references, sidecars)
    pairs = folder_pairs(predictions, references)
    cases = [split_ending(reference.name)[0] for _, reference in pairs]
    return evaluate_videos(
        pairs,
        {case: VideoFacts.load(sidecars / f"{case}.json") for case in cases},
        labels,
        ignore=NO_IGNORE if task.labels.ignore is None else task.labels.ignore,
        names=task.labels.names,
        supervision=task.video.supervision if task.video is not None else "sparse",
        processes=processes,
        title=title,
    )


def _description(references: Path, sidecars: Path) -> DatasetSpec:
    places = [folder.resolve().parent / "dataset.json" for folder in (references, sidecars)]
    for path in places:
        if path.is_file():
            return DatasetSpec.load(path)
    raise DataError(
        f"there is no {' and no '.join(map(str, dict.fromkeys(places)))}, which would tell the "
        "label that is ignored. Keep references or facts in the folder of their raw task"
    )
