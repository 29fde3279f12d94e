"""One video's prediction against its reference: every labelled frame, then the video as a whole.

T time, H, W; K classes. Ignored pixels are in no count and in no mask.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from nnunetlike.core.errors import DataError, ShapeError
from nnunetlike.core.typing import BoolArray, FloatArray, LabelMap
from nnunetlike.data.imageio import format_of, split_ending
from nnunetlike.data.video import Supervision, VideoFacts
from nnunetlike.evaluation.clinical import Cycle, area_curve, measure_cycle
from nnunetlike.evaluation.confusion import Counts, confusion
from nnunetlike.evaluation.frame_surface import NOT_AVAILABLE, SurfaceScore, surface_score
from nnunetlike.evaluation.metrics import Comparison, chosen_metrics
from nnunetlike.evaluation.summary import Scores, mean_of_defined, means_of_defined
from nnunetlike.evaluation.ventricle import Structures

Unit = Literal["mm", "px"]
BACKGROUND = 0
SUMS = ("Total Positives Reference", "Total Positives Test")
"""Metrics of v1 that are numbers of pixels: added over frames, where shares are averaged."""


@dataclass(frozen=True, kw_only=True)
class VideoFiles:
    """Prediction and reference of one video, and what is known of it."""

    prediction: Path
    reference: Path
    facts: VideoFacts

    @property
    def case(self) -> str:
        """The video's identifier."""
        return split_ending(self.reference.name)[0]


@dataclass(frozen=True, kw_only=True)
class VideoMeasurement:
    """What is measured of every video."""

    labels: tuple[int, ...]
    """Label values, background too if wanted."""

    ignore: int
    """Value of pixels without a label."""

    unit: Unit
    supervision: Supervision = "sparse"
    """`edes` scores the labelled frames of end-diastole and end-systole only."""

    ventricle: Structures | None = None
    """What the ejection fraction is measured by; None: no label is a ventricle."""


@dataclass(frozen=True, kw_only=True)
class FrameScores:
    """One structure in one labelled frame."""

    frame: int
    counts: Counts
    metrics: Scores
    """Those of v1 that follow from counts, by their names there."""

    surface: SurfaceScore = NOT_AVAILABLE

    @property
    def empty(self) -> Literal["both", "one", "none"]:
        """Which of prediction and reference lack the structure."""
        predicted, wanted = self.counts.tp + self.counts.fp, self.counts.tp + self.counts.fn
        if not predicted and not wanted:
            return "both"
        return "none" if predicted and wanted else "one"


@dataclass(frozen=True, kw_only=True)
class TemporalScores:
    """How steady a structure is over time."""

    matching_error: float
    """Mean of |Dice(M_t, M_t-1) - Dice(G_t, G_t-1)| over pairs of labelled frames that follow one
    another."""

    n_pairs: int
    jitter: float
    """Mean change of slope of the predicted area curve, over all frames, per mean area."""

    jitter_reference: float
    """The same of the reference, over three labelled frames in a row; NaN without such."""


@dataclass(frozen=True, kw_only=True)
class VideoScores:
    """Everything that is kept of one video."""

    files: VideoFiles
    frames: Mapping[str, tuple[FrameScores, ...]]
    """By structure, in the order of frames."""

    temporal: Mapping[str, TemporalScores]
    areas: tuple[FloatArray, FloatArray] | None = None
    """The cavity's area in each frame (T,), predicted and reference (NaN where not labelled)."""

    cycles: tuple[Cycle, Cycle] | None = None
    """Predicted and reference heart cycle."""

    @cached_property
    def scores(self) -> dict[str, dict[str, float]]:
        """Metrics of v1 by structure: means over labelled frames, numbers of pixels added up."""
        return {structure: _over_frames(found) for structure, found in self.frames.items()}


def score_video(files: VideoFiles, measurement: VideoMeasurement) -> VideoScores:
    """Return the scores of one video.

    Raises:
        DataError: a file cannot be read, the pair differs in shape, or the facts speak of labelled
            frames that the reference does not have.
    """
    prediction, _ = format_of(files.prediction).read_label(files.prediction)
    reference, geometry = format_of(files.reference).read_label(files.reference)
    if prediction.shape != reference.shape:
        raise ShapeError(
            f"{files.prediction} against {files.reference}: the prediction has {prediction.shape} "
            f"pixels (T, H, W) but the reference {reference.shape}; predict on the grid of the "
            "reference"
        )
    labelled = _labelled_frames(files, reference, measurement.ignore)
    scored = files.facts.supervised(measurement.supervision).labelled_frames
    spacing = (geometry.spacing[1], geometry.spacing[2])
    unit_spacing = spacing if measurement.unit == "mm" else (1.0, 1.0)
    structures = [value for value in measurement.labels if value != BACKGROUND]
    areas = _areas(prediction, reference, labelled, measurement.ventricle, files.facts, spacing)
    return VideoScores(
        files=files,
        frames=_frame_scores(prediction, reference, scored, measurement, unit_spacing),
        temporal={
            str(value): temporal_scores(
                prediction == value, reference == value, reference != measurement.ignore, labelled
            )
            for value in structures
        },
        areas=areas,
        cycles=None if areas is None or measurement.ventricle is None else (
            measure_cycle(prediction, measurement.ventricle, spacing, files.facts, areas=areas[0]),
            measure_cycle(reference, measurement.ventricle, spacing, files.facts, areas=areas[1]),
        ),
    )  # fmt: skip


def temporal_scores(
    prediction: BoolArray, reference: BoolArray, valid: BoolArray, labelled: Sequence[int]
) -> TemporalScores:
    """Return how steady a predicted structure is beside the reference.

    Args:
        prediction: masks, (T, H, W).
        reference: masks, (T, H, W).
        valid: pixels that have a label, (T, H, W).
        labelled: frames with a label, ascending.

    A structure that is absent from two frames is as steady as can be (Dice 1); a pair of frames
    without it in prediction and reference does not count.
    """
    errors = []
    for before, after in pairwise(labelled):
        shared = valid[before] & valid[after]
        ours = _steadiness(prediction[before] & shared, prediction[after] & shared)
        theirs = _steadiness(reference[before] & shared, reference[after] & shared)
        if ours is not None or theirs is not None:
            errors.append(
                abs((1.0 if ours is None else ours) - (1.0 if theirs is None else theirs))
            )
    curve = np.full(len(reference), np.nan)
    curve[list(labelled)] = np.count_nonzero(reference[list(labelled)], axis=(1, 2))
    return TemporalScores(
        matching_error=mean_of_defined(errors),
        n_pairs=len(errors),
        jitter=area_jitter(np.count_nonzero(prediction, axis=(1, 2)).astype(float)),
        jitter_reference=area_jitter(curve),
    )


def area_jitter(areas: FloatArray) -> float:
    """Return the mean of |a_t+1 - 2 a_t + a_t-1| over the mean area; NaN if not defined.

    Args:
        areas: of a structure by frame, (T,); triples with a NaN are left out.
    """
    bends = np.abs(np.diff(areas, 2))
    size = mean_of_defined(areas.tolist())
    return mean_of_defined(bends.tolist()) / size if size > 0 else math.nan


def _labelled_frames(files: VideoFiles, reference: LabelMap, ignore: int) -> tuple[int, ...]:
    """Return the frames that the facts call labelled, all of which must be so."""
    named = files.facts.labelled_frames
    outside = [t for t in named if not 0 <= t < len(reference)]
    blank = [t for t in named if t not in outside and (reference[t] == ignore).all()]
    if outside or blank:
        what = f"has {len(reference)} frames" if outside else f"holds only {ignore}, ignored, there"
        frames = ", ".join(map(str, outside or blank))
        raise DataError(
            f"{files.case}: frames {frames} are said to be labelled, but {files.reference} {what}. "
            f"Mend labelled_frames in the case's facts (casesTr/{files.case}.json), or the label"
        )
    return tuple(sorted(named))


def _frame_scores(
    prediction: LabelMap,
    reference: LabelMap,
    frames: Sequence[int],
    measurement: VideoMeasurement,
    spacing: tuple[float, float],
) -> dict[str, tuple[FrameScores, ...]]:
    found: dict[str, list[FrameScores]] = {str(value): [] for value in measurement.labels}
    for t in sorted(frames):
        valid = reference[t] != measurement.ignore
        matrix = confusion(reference[t][valid], prediction[t][valid], measurement.labels)
        for value in measurement.labels:
            counts = matrix.counts([value])
            surface = NOT_AVAILABLE
            if value != BACKGROUND:
                surface = surface_score(
                    (prediction[t] == value) & valid, (reference[t] == value) & valid, spacing
                )
            comparison = Comparison(counts, (value,), prediction[t], reference[t], spacing)
            found[str(value)].append(
                FrameScores(
                    frame=t, counts=counts, metrics=_metrics(comparison), surface=surface
                )
            )  # fmt: skip
    return {structure: tuple(rows) for structure, rows in found.items()}


def _metrics(comparison: Comparison) -> dict[str, float]:
    metrics = chosen_metrics(advanced=False)
    return {name: metric.measure(comparison) for name, metric in metrics.items()}


def _over_frames(frames: Sequence[FrameScores]) -> dict[str, float]:
    if not frames:
        return dict.fromkeys(chosen_metrics(advanced=False), math.nan)
    means = means_of_defined(frame.metrics for frame in frames)
    return means | {name: sum(frame.metrics[name] for frame in frames) for name in SUMS}


def _areas(
    prediction: LabelMap,
    reference: LabelMap,
    labelled: Sequence[int],
    ventricle: Structures | None,
    facts: VideoFacts,
    spacing: tuple[float, float],
) -> tuple[FloatArray, FloatArray] | None:
    if ventricle is None:
        return None
    spacing = spacing if facts.spacing_known else (1.0, 1.0)
    ours, theirs = (
        area_curve(label, ventricle.cavity, spacing) for label in (prediction, reference)
    )
    theirs[np.setdiff1d(np.arange(len(theirs)), labelled)] = math.nan
    return ours, theirs


def _steadiness(before: BoolArray, after: BoolArray) -> float | None:
    """Return the Dice of a mask and the one before it; None if both are empty."""
    size = int(np.count_nonzero(before)) + int(np.count_nonzero(after))
    return 2 * int(np.count_nonzero(before & after)) / size if size else None
