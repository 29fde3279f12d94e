"""What is wrong with the videos of a task beyond what is wrong with images. Axes: T, H, W."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnunetlike.core.errors import DataError
from nnunetlike.data.dataset import DatasetSpec
from nnunetlike.data.doctor.complaint import (
    NO_FACTS,
    TORN_PATIENT,
    VIDEO_FAULT,
    Complaint,
)
from nnunetlike.data.doctor.layout import DATASET_JSON, CaseOnDisk
from nnunetlike.data.geometry import SLICE_THICKNESS, Geometry
from nnunetlike.data.labels import LabelSet
from nnunetlike.data.video import VideoDeclaration, VideoFacts
from nnunetlike.data.video_faults import video_faults


@dataclass(frozen=True, kw_only=True)
class VideoTask:
    """What a task says of its videos."""

    folder: Path
    declaration: VideoDeclaration
    labels: LabelSet

    @classmethod
    def of(cls, folder: Path, spec: DatasetSpec) -> VideoTask | None:
        """Return it, or None if the cases are no videos."""
        if spec.video is None:
            return None
        return cls(folder=folder, declaration=spec.video, labels=spec.labels)

    def examine(self, case: CaseOnDisk, frames: int, label: Any | None) -> Iterator[Complaint]:
        """Yield what is wrong between a training video, its label map and its facts.

        Args:
            case: its files; of a test case nothing is asked.
            frames: T of the image, 0 if it could not be read.
            label: (T, H, W) as in the file, or None if there is none on the grid of the image.
        """
        if case.test:
            return
        path = self.declaration.path(self.folder, case.case_id)
        file = path.relative_to(self.folder).as_posix()
        try:
            facts = self.declaration.facts(self.folder, case.case_id)
        except DataError as error:
            reason = str(error).replace(f"{path}: ", "").replace(f"{path} ", "", 1)
            yield Complaint(
                kind=NO_FACTS, file=file, case_id=case.case_id, found=reason, expected=""
            )
            return
        if frames == 0:
            return
        whole = None if label is None else np.rint(np.nan_to_num(label)).astype(np.int64)
        for fault in video_faults(facts, self.labels, frames, whole):
            yield Complaint(
                kind=VIDEO_FAULT, file=file, case_id=case.case_id, found=fault, expected=""
            )


def timeless(grid: Geometry) -> Geometry:
    """Return a grid without its spacing and origin in time, which files of videos seldom tell."""
    return replace(
        grid, spacing=(SLICE_THICKNESS, *grid.spacing[1:]), origin=(*grid.origin[:2], 0.0)
    )


def torn_patients(task: VideoTask, cases: Iterable[CaseOnDisk]) -> Iterator[Complaint]:
    """Yield a complaint for each patient in two of the data set's own lists."""
    lists: defaultdict[str, set[str]] = defaultdict(set)
    for case in cases:
        facts = _facts(task, case)
        if facts is not None and facts.split is not None:
            lists[facts.patient].add(facts.split)
    for patient, splits in sorted(lists.items()):
        if len(splits) > 1:
            yield Complaint(
                kind=TORN_PATIENT,
                file=DATASET_JSON,
                found=f"{patient} in {' and '.join(sorted(splits))}",
                expected="one of them",
            )


def _facts(task: VideoTask, case: CaseOnDisk) -> VideoFacts | None:
    """Return the facts of a training case; None if they cannot be read, which is told elsewhere."""
    if case.test:
        return None
    try:
        return task.declaration.facts(task.folder, case.case_id)
    except DataError:
        return None
