"""Predicted videos against references: `summary.json` of nnU-Net v1 with blocks beside `results`.

`results` holds for each case what v1 holds, over the case's labelled frames: shares are means over
the frames where they are defined, numbers of pixels are added up. Every mean over cases is one mean
over all of them, whatever the order and the number of processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.core.parallel import process_map
from nnunetlike.core.serialization import save_json
from nnunetlike.core.typing import JSON
from nnunetlike.data.imageio import split_ending
from nnunetlike.data.video import Supervision, VideoFacts
from nnunetlike.evaluation.evaluator import pair_memory
from nnunetlike.evaluation.summary import CaseScores, Summary
from nnunetlike.evaluation.ventricle import Structures
from nnunetlike.evaluation.video_blocks import blocks
from nnunetlike.evaluation.video_case import (
    Unit,
    VideoFiles,
    VideoMeasurement,
    VideoScores,
    score_video,
)
from nnunetlike.evaluation.video_pictures import save_area_curves, save_bland_altman

BLAND_ALTMAN = "bland_altman.png"
AREA_CURVES = "area_curves.png"


@dataclass(frozen=True, kw_only=True)
class VideoSummary:
    """Scores of all videos, in their order."""

    videos: tuple[VideoScores, ...]
    measurement: VideoMeasurement

    @property
    def summary(self) -> Summary:
        """The scores as v1 has them."""
        return Summary(
            tuple(
                CaseScores(str(v.files.prediction), str(v.files.reference), v.scores)
                for v in self.videos
            )
        )

    def to_json(
        self, *, name: str = "", description: str = "", task: str = "", author: str = "Fabian"
    ) -> JSON:
        """Return the content of summary.json: v1's, and the blocks."""
        content = self.summary.to_v1(name=name, description=description, task=task, author=author)
        more = blocks(self.videos, self.measurement)
        content["foreground_mean"] |= more.pop("foreground_mean")
        return content | more

    def write(
        self,
        path: Path,
        *,
        name: str = "",
        description: str = "",
        task: str = "",
        author: str = "Fabian",
    ) -> JSON:
        """Write summary.json and return its content; write the pictures beside it.

        `bland_altman.png` is written where an ejection fraction could be compared,
        `area_curves.png` where a label is the ventricle's cavity; else an old one is removed.

        Args:
            path: the file.
            name: what was evaluated, `GDKVMTrainer val tiled True` after training.
            description: free text.
            task: name of the task.
            author: who evaluated; v1 always wrote the default.
        """
        content = self.to_json(name=name, description=description, task=task, author=author)
        save_json(content, path, sort_keys=True)
        save_bland_altman(content["clinical"], path.with_name(BLAND_ALTMAN))
        save_area_curves(self.videos, path.with_name(AREA_CURVES))
        return content


def evaluate_videos(
    pairs: Sequence[tuple[Path, Path]],
    facts: Mapping[str, VideoFacts],
    labels: Sequence[int],
    *,
    ignore: int,
    names: Mapping[int, str] | None = None,
    unit: Unit | None = None,
    supervision: Supervision = "sparse",
    processes: int,
    title: str = "evaluating",
) -> VideoSummary:
    """Return the scores of pairs of label videos.

    Each case is read, reduced to numbers and dropped.

    Args:
        pairs: prediction and reference of each case; the reference's name without ending is the
            case's identifier.
        facts: of each case.
        labels: label values, 0 for background too if wanted.
        ignore: value of pixels and frames without a label.
        names: of the labels, which tell what the ejection fraction is measured by: LV, MYO and LA,
            upper or lower case; labels 1, 2 and 3 if no name is known.
        unit: of distances; None takes mm if the spacing of every case is known, else pixels.
        supervision: `edes` scores end-diastole and end-systole only. Steadiness over time and
            curves take every frame all the same.
        processes: most worker processes; 0 or 1 computes in this process.
        title: what the progress bar says; no bar when empty.

    Raises:
        UsageError: there is nothing to score, or a case is given twice.
        DataError: a file is missing or cannot be read, a pair differs in shape, facts are missing
            or do not fit, or distances cannot be in mm.
    """
    if not pairs or not labels:
        raise UsageError("nothing to evaluate: give at least one case and one label")
    files = _files(pairs, facts)
    unknown = [file.case for file in files if not file.facts.spacing_known]
    if unit == "mm" and unknown:
        raise DataError(
            f"distances cannot be in mm: the spacing of {', '.join(unknown[:10])} is not known. "
            "Evaluate in pixels (unit px)"
        )
    names = {value: str(value) for value in labels} if names is None else names
    measurement = VideoMeasurement(
        labels=tuple(labels),
        ignore=ignore,
        unit=unit or ("px" if unknown else "mm"),
        supervision=supervision,
        ventricle=Structures.of({v: n for v, n in names.items() if v != ignore}),
    )
    score = partial(score_video, measurement=measurement)
    found = process_map(
        score, files, processes=processes, name=_case, title=title, cost=_memory
    )  # fmt: skip
    return VideoSummary(videos=tuple(found), measurement=measurement)


def _files(pairs: Sequence[tuple[Path, Path]], facts: Mapping[str, VideoFacts]) -> list[VideoFiles]:
    cases = [split_ending(reference.name)[0] for _, reference in pairs]
    double = [case for case, count in Counter(cases).items() if count > 1]
    if double:
        raise UsageError(f"each case counts once, but given twice: {', '.join(double[:10])}")
    missing = [case for case in cases if case not in facts]
    if missing:
        raise DataError(
            f"nothing is known of {', '.join(missing[:10])} ({len(missing)} of {len(cases)} "
            "cases). A video is evaluated on the labelled frames that its facts name; write "
            "casesTr/ID.json for each"
        )
    return [
        VideoFiles(prediction=prediction, reference=reference, facts=facts[case])
        for case, (prediction, reference) in zip(cases, pairs, strict=True)
    ]


def _case(files: VideoFiles) -> str:
    return files.case


def _memory(files: VideoFiles) -> float:
    return pair_memory((files.prediction, files.reference))
