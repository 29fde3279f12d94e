"""The blocks that summary.json has beside v1's `results` when videos are evaluated.

Means are over cases, of each case's mean over its frames, where defined; NaN where nothing is.
`mean` in a block is the mean over the structures but background.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from nnunetlike.core.typing import JSON
from nnunetlike.evaluation.agreement import LEVEL, RESAMPLES, SEED, patient_bootstrap
from nnunetlike.evaluation.clinical_agreement import clinical_block
from nnunetlike.evaluation.summary import mean_of_defined, means_of_defined
from nnunetlike.evaluation.video_case import (
    BACKGROUND,
    FrameScores,
    VideoMeasurement,
    VideoScores,
)

MEAN = "mean"
PHASES = ("ED", "ES")


def blocks(videos: Sequence[VideoScores], measurement: VideoMeasurement) -> JSON:
    """Return the blocks: nnU-Net v2's keys, and what only videos have.

    Args:
        videos: scores of each case; their order shows in lists only.
        measurement: what was measured.
    """
    structures = [str(value) for value in measurement.labels if value != BACKGROUND]
    per_case = [_v2_metrics(video, structures) for video in videos]
    mean = {s: means_of_defined(case[s] for case in per_case) for s in structures}
    every = [frame for video in videos for s in structures for frame in video.frames[s]]
    return {
        "metric_per_case": [
            {
                "metrics": metrics,
                "prediction_file": str(video.files.prediction),
                "reference_file": str(video.files.reference),
            }
            for video, metrics in zip(videos, per_case, strict=True)
        ],
        "mean": mean,
        "foreground_mean": means_of_defined(mean.values()),
        "supervision": measurement.supervision,
        "per_frame": [row for video in videos for row in _frame_rows(video, structures)],
        "phases": {
            phase: _means(videos, structures, _frames_of(phase), count="n_frames")
            for phase in PHASES
        },
        "views": {
            view: _means(list(of_view), structures, _all_frames, count="n_frames")
            for view, of_view in groupby(
                sorted((v for v in videos if v.files.facts.view), key=_view), key=_view
            )
        },
        "surface": {"unit": measurement.unit, **_surface(videos, structures)},
        "temporal": _temporal(videos, structures),
        "clinical": clinical_block(videos),
        "n_both_empty": sum(frame.empty == "both" for frame in every),
        "n_one_empty": sum(frame.empty == "one" for frame in every),
        "patient_bootstrap_ci": _bootstrap(videos, structures),
    }


Chosen = Callable[[VideoScores, Sequence[FrameScores]], list[FrameScores]]


def _all_frames(_: VideoScores, frames: Sequence[FrameScores]) -> list[FrameScores]:
    return list(frames)


def _frames_of(phase: str) -> Chosen:
    def chosen(video: VideoScores, frames: Sequence[FrameScores]) -> list[FrameScores]:
        """Return those of the phase."""
        wanted = video.files.facts.ed if phase == "ED" else video.files.facts.es
        return [frame for frame in frames if frame.frame == wanted]

    return chosen


def _view(video: VideoScores) -> str:
    return video.files.facts.view or ""


def _measures(frame: FrameScores) -> dict[str, float]:
    """Return Dice, IoU and distances of one structure in one frame."""
    return {
        "Dice": frame.metrics["Dice"],
        "IoU": frame.metrics["Jaccard"],
        "HD95": frame.surface.hd95,
        "ASD": frame.surface.asd,
    }


def _v2_metrics(video: VideoScores, structures: Iterable[str]) -> dict[str, dict[str, float]]:
    return {structure: _v2_scores(video, structure) for structure in structures}


def _v2_scores(video: VideoScores, structure: str) -> dict[str, float]:
    """Return a structure's metrics by nnU-Net v2's names: counts are sums over frames."""
    frames = video.frames[structure]
    counts = {
        name.upper(): sum(getattr(frame.counts, name) for frame in frames)
        for name in ("tp", "fp", "fn", "tn")
    }
    return {
        "Dice": video.scores[structure]["Dice"],
        "IoU": video.scores[structure]["Jaccard"],
        **counts,
        "n_pred": counts["TP"] + counts["FP"],
        "n_ref": counts["TP"] + counts["FN"],
    }


def _frame_rows(video: VideoScores, structures: Sequence[str]) -> list[JSON]:
    by_frame: dict[int, JSON] = {}
    for structure in structures:
        for frame in video.frames[structure]:
            row = by_frame.setdefault(frame.frame, {"case": video.files.case, "frame": frame.frame})
            row[structure] = _measures(frame)
    return [by_frame[frame] for frame in sorted(by_frame)]


def _means(
    videos: Sequence[VideoScores], structures: Sequence[str], chosen: Chosen, *, count: str
) -> JSON:
    """Return the mean measures of each structure over cases, of all structures, and counts."""
    found: dict[str, dict[str, float]] = {}
    frames = 0
    for structure in structures:
        rows = [chosen(video, video.frames[structure]) for video in videos]
        found[structure] = _case_means(rows)
        frames = sum(map(len, rows))
    cases = len(videos)
    return {**found, MEAN: means_of_defined(found.values()), "n_cases": cases, count: frames}


def _case_means(rows: Iterable[Sequence[FrameScores]]) -> dict[str, float]:
    means = [means_of_defined(map(_measures, frames)) for frames in rows if frames]
    return means_of_defined(means) or dict.fromkeys(("Dice", "IoU", "HD95", "ASD"), math.nan)


def _surface(videos: Sequence[VideoScores], structures: Sequence[str]) -> JSON:
    """Return distances by structure, with how often it was empty and so N/A or the diagonal."""
    found: dict[str, dict[str, float]] = {}
    for structure in structures:
        frames = [frame for video in videos for frame in video.frames[structure]]
        measures = _case_means(video.frames[structure] for video in videos)
        found[structure] = {
            **{name: measures[name] for name in ("HD95", "ASD")},
            "n_frames": len(frames),
            "n_both_empty": sum(frame.empty == "both" for frame in frames),
            "n_one_empty": sum(frame.empty == "one" for frame in frames),
        }
    distances = [{name: row[name] for name in ("HD95", "ASD")} for row in found.values()]
    return {**found, MEAN: means_of_defined(distances)}


def _temporal(videos: Sequence[VideoScores], structures: Sequence[str]) -> JSON:
    found: dict[str, dict[str, float]] = {}
    for structure in structures:
        scores = [video.temporal[structure] for video in videos]
        found[structure] = {
            "matching_error": mean_of_defined([s.matching_error for s in scores]),
            "jitter": mean_of_defined([s.jitter for s in scores]),
            "jitter_reference": mean_of_defined([s.jitter_reference for s in scores]),
            "n_pairs": sum(s.n_pairs for s in scores),
        }
    shares = [{k: v for k, v in row.items() if k != "n_pairs"} for row in found.values()]
    return {**found, MEAN: means_of_defined(shares)}


def _bootstrap(videos: Sequence[VideoScores], structures: Sequence[str]) -> JSON:
    """Return intervals of the mean Dice by structure, and of that over each case's structures."""

    def interval(dice: Callable[[VideoScores], float]) -> list[float]:
        """Return the interval of a mean over patients."""
        values: dict[str, list[float]] = {}
        for video in videos:
            values.setdefault(video.files.facts.patient, []).append(dice(video))
        return list(patient_bootstrap(values))

    def of(structure: str) -> Callable[[VideoScores], float]:
        """Return what gives the Dice of a structure."""
        return lambda video: video.scores[structure]["Dice"]

    def of_all(video: VideoScores) -> float:
        """Return the mean Dice of a video over the structures."""
        return mean_of_defined([video.scores[structure]["Dice"] for structure in structures])

    return {
        "metric": "Dice",
        **{structure: interval(of(structure)) for structure in structures},
        MEAN: interval(of_all),
        "level": LEVEL,
        "n_patients": len({video.files.facts.patient for video in videos}),
        "n_resamples": RESAMPLES,
        "seed": SEED,
    }
