"""Pictures beside a video's summary.json: agreement of ejection fractions, and area curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunetlike.core.serialization import atomic_path
from nnunetlike.evaluation.video_case import VideoScores

if TYPE_CHECKING:  # importing matplotlib makes folders in the user's home
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PREDICTED, REFERENCE = "#D55E00", "#0072B2"
MOST_CURVES = 12
COLUMNS = 4
METHOD_NAMES = {
    "biplane_discs_20": "biplane, 20 discs",
    "single_plane_discs_20": "single plane, 20 discs",
    "area_length": "area-length",
}


def save_bland_altman(clinical: dict[str, Any], path: Path) -> None:
    """Write the differences of ejection fractions over their means, whole or not at all.

    Args:
        clinical: the block of summary.json.
        path: PNG; removed where there is no pair to show.
    """
    pairs = [
        (value["predicted"], value["reference"])
        for value in clinical["values"]
        if value["predicted"] is not None and value["reference"] is not None
    ]
    if not pairs:
        path.unlink(missing_ok=True)
        return
    predicted, reference = np.array(pairs, float).T
    figure, axes = _figure(1, 1, width=6.4, height=4.8)
    _draw_bland_altman(axes[0], (predicted + reference) / 2, predicted - reference, clinical)
    method = METHOD_NAMES.get(clinical["method"], clinical["method"])
    axes[0].set_title(f"Ejection fraction, {method}: n = {len(pairs)}", fontsize=11)
    _save(figure, path)


def save_area_curves(videos: Sequence[VideoScores], path: Path) -> None:
    """Write predicted and reference area over frames of the first 12 cases by name.

    Args:
        videos: scores of the cases.
        path: PNG; removed where no label is the ventricle's cavity.
    """
    shown = sorted((v for v in videos if v.areas), key=lambda v: v.files.case)[:MOST_CURVES]
    if not shown:
        path.unlink(missing_ok=True)
        return
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes = _figure(rows, columns, width=max(6.4, 3.4 * columns), height=0.7 + 2.5 * rows)
    for one, video in zip(axes, shown, strict=False):
        _draw_curves(one, video)
    for spare in axes[len(shown) :]:
        spare.set_axis_off()
    handles, texts = axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    _save(figure, path)


def _figure(rows: int, columns: int, *, width: float, height: float) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})


def _draw_bland_altman(axes: Axes, mean: Any, difference: Any, clinical: dict[str, Any]) -> None:
    axes.scatter(mean, difference, s=22, color=REFERENCE, alpha=0.75, linewidths=0)
    axes.axhline(0, color="0.75", linewidth=0.8, zorder=0)
    low, high = clinical["loa"]
    lines = [(clinical["bias"], "-", "bias"), (low, "--", "-1.96 SD"), (high, "--", "+1.96 SD")]
    for value, style, text in [line for line in lines if line[0] == line[0]]:
        axes.axhline(value, color=PREDICTED, linestyle=style, linewidth=1.2)
        axes.annotate(
            f"{text} {value:+.1f}", (1, value), xycoords=("axes fraction", "data"),
            xytext=(-4, 3), textcoords="offset points", ha="right", va="bottom", fontsize=9,
            color=PREDICTED,
        )  # fmt: skip
    axes.margins(x=0.1, y=0.2)
    axes.set_xlabel("mean of prediction and reference (%)")
    axes.set_ylabel("prediction - reference (points)")


def _draw_curves(axes: Axes, video: VideoScores) -> None:
    from matplotlib.ticker import MaxNLocator

    ours, theirs = video.areas or ([], [])
    frames = np.arange(len(ours))
    axes.plot(frames, ours, color=PREDICTED, linewidth=1.4, label="predicted")
    axes.plot(
        frames, theirs, color=REFERENCE, linewidth=1.4, marker="o", markersize=3, label="reference"
    )
    cycle = (video.cycles or (None, None))[0]
    marks = {"ED": cycle.ed, "ES": cycle.es} if cycle else {}
    axes.set_ylim(0, 1.2 * float(np.fmax.reduce([1.0, *ours, *theirs])))
    for phase, frame in marks.items():
        if frame is not None:
            _mark(axes, phase, frame, len(frames))
    squared = "mm²" if video.files.facts.spacing_known else "px²"
    axes.set_title(video.files.case, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("frame", fontsize=8)
    axes.set_ylabel(f"area ({squared})", fontsize=8)
    axes.tick_params(labelsize=8)


def _mark(axes: Axes, phase: str, frame: int, frames: int) -> None:
    """Draw a line at a frame, with the phase's name on the side where there is room."""
    axes.axvline(frame, color="0.6", linestyle=":", linewidth=1, zorder=0)
    late = 2 * frame > frames
    axes.annotate(
        phase, (frame, 1), xycoords=("data", "axes fraction"), xytext=(-2 if late else 2, -9),
        textcoords="offset points", ha="right" if late else "left", fontsize=8, color="0.4",
    )  # fmt: skip
