"""Pictures a person can judge: label maps drawn over the image they belong to.

Each picture shows, for every plane of a volume, the slice with most foreground: the bare image,
then one column a label map (reference, prediction), filled lightly and outlined. Pixels have the
shape that the spacing gives them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunetlike.core.serialization import atomic_path
from nnunetlike.core.typing import BoolArray, FloatArray, LabelMap, Spacing

if TYPE_CHECKING:  # importing matplotlib makes folders in the user's home
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec

COLORS = (
    "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7", "#0072B2", "#7FFF00",
    "#FF4FD8", "#00E5FF", "#B388FF", "#FF8A80", "#A1887F", "#C0CA33", "#26A69A", "#FFFFFF",
)  # fmt: skip
"""One colour a label, in turn; colour-blind people tell the first seven apart (Okabe and Ito)."""

COLUMN_WIDTH = 3.6
"""Inches of one column."""

LEGEND_ENTRY = (2.4, 0.2)
"""Inches of one entry of the legend, width and height."""


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """What one picture shows."""

    image: FloatArray
    """One channel, (D, H, W)."""

    label_maps: Mapping[str, LabelMap]
    """What to draw over it, by column title; each (D, H, W). Labels up to 0 are not drawn."""

    spacing: Spacing
    """Distance between voxel centres along D, H, W, in mm."""

    names: Mapping[int, str]
    """What the legend says, by label; a label without a name is called by its number."""

    title: str = ""


def save_overlay(overlay: Overlay, path: Path, *, dots_per_inch: int = 110) -> None:
    """Write the picture as PNG, whole or not at all."""
    figure = draw_overlay(overlay)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dots_per_inch, facecolor=figure.get_facecolor())


def draw_overlay(overlay: Overlay) -> Figure:
    """Return the picture: one row a plane, one column for the image and one a label map."""
    cuts = _cuts(overlay)
    titles = ["image", *overlay.label_maps]
    shown = _labels_shown(overlay)
    width = COLUMN_WIDTH * len(titles)
    entries = max(1, min(len(shown), int(width / LEGEND_ENTRY[0])))
    legend = 0.3 + LEGEND_ENTRY[1] * -(-len(shown) // entries)
    figure, grid = _page(width, [_proportion(axis, overlay) for axis, _ in cuts], titles, legend)
    window = _window(overlay.image)
    for row, cut in enumerate(cuts):
        for column, title in enumerate(titles):
            axes = figure.add_subplot(grid[row, column])
            _draw_plane(axes, overlay, cut, title if column else None, window)
            if row == 0:
                axes.set_title(title, color="white", fontsize=10)
    top = 1 - 0.12 / figure.get_figheight()
    figure.suptitle(overlay.title, color="white", fontsize=12, y=top, va="top")
    _draw_legend(figure, overlay, shown, entries)
    return figure


def _page(
    width: float, proportions: Sequence[float], titles: Sequence[str], legend: float
) -> tuple[Figure, GridSpec]:
    """Return an empty figure and its grid, in inches: titles above, `legend` below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    head = 0.7
    height = head + COLUMN_WIDTH * sum(proportions) + 0.1 * len(proportions) + legend
    figure = Figure(figsize=(width, height), facecolor="black")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(proportions), len(titles), height_ratios=proportions, left=0.01, right=0.99,
        top=1 - head / height, bottom=legend / height, wspace=0.02, hspace=0.04,
    )  # fmt: skip
    return figure, grid


def busiest_slice(foreground: BoolArray, axis: int) -> int:
    """Return the index along `axis` with most foreground; the middle if there is none."""
    rest = tuple(other for other in range(foreground.ndim) if other != axis)
    area = foreground.sum(axis=rest)
    return int(area.argmax()) if area.any() else foreground.shape[axis] // 2


def _cuts(overlay: Overlay) -> list[tuple[int, int]]:
    """Return axis and index of the slices to show: three of a volume, one of a single slice."""
    shape = overlay.image.shape
    foreground = np.zeros(shape, dtype=bool)
    for label in overlay.label_maps.values():
        foreground |= label > 0
    axes = [0] if min(shape) == 1 else [0, 1, 2]
    return [(axis, busiest_slice(foreground, axis)) for axis in axes]


def _proportion(axis: int, overlay: Overlay) -> float:
    """Return height over width of a plane in mm, within what fits a page."""
    rows, columns = (other for other in range(3) if other != axis)
    shape, spacing = overlay.image.shape, overlay.spacing
    proportion = shape[rows] * spacing[rows] / (shape[columns] * spacing[columns])
    return float(np.clip(proportion, 0.25, 2.0))


def _labels_shown(overlay: Overlay) -> list[int]:
    found = {int(v) for label in overlay.label_maps.values() for v in np.unique(label)}
    return sorted(value for value in found if value > 0)


def _window(image: FloatArray) -> tuple[float, float]:
    """Return the intensities shown black and white: percentiles 0.5 and 99.5 of the volume."""
    finite = image[np.isfinite(image)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(finite, (0.5, 99.5))
    return (float(low), float(high)) if high > low else (float(low), float(low) + 1.0)


def _draw_plane(
    axes: Axes,
    overlay: Overlay,
    cut: tuple[int, int],
    title: str | None,
    window: tuple[float, float],
) -> None:
    axis, index = cut
    rows, columns = (other for other in range(3) if other != axis)
    axes.imshow(
        overlay.image.take(index, axis=axis),
        cmap="gray",
        vmin=window[0],
        vmax=window[1],
        aspect=overlay.spacing[rows] / overlay.spacing[columns],
        origin="upper" if axis == 0 else "lower",
        interpolation="nearest",
    )
    axes.set_axis_off()
    if title is None and overlay.image.shape[axis] > 1:
        _note(axes, f"{'DHW'[axis]} {index + 1}/{overlay.image.shape[axis]}")
    if title is not None:
        _draw_labels(axes, np.take(overlay.label_maps[title], index, axis=axis))


def _note(axes: Axes, text: str) -> None:
    axes.text(
        0.02, 0.02, text, transform=axes.transAxes, color="white", fontsize=8, va="bottom",
        bbox={"facecolor": "black", "alpha": 0.5, "edgecolor": "none", "pad": 1.5},
    )  # fmt: skip


def _draw_labels(axes: Axes, label: LabelMap) -> None:
    """Fill every label lightly and outline it."""
    flip = axes.yaxis_inverted()
    for value in np.unique(label):
        if value > 0:
            mask = np.pad(label == value, 1).astype(np.float32)
            grid = np.arange(-1, mask.shape[1] - 1), np.arange(-1, mask.shape[0] - 1)
            color = [_color(int(value))]
            axes.contourf(*grid, mask, levels=[0.5, 1.5], colors=color, alpha=0.3)
            axes.contour(*grid, mask, levels=[0.5], colors=color, linewidths=1.2)
    axes.set_xlim(-0.5, label.shape[1] - 0.5)
    low, high = -0.5, label.shape[0] - 0.5
    axes.set_ylim(*((high, low) if flip else (low, high)))


def _draw_legend(figure: Figure, overlay: Overlay, shown: Sequence[int], columns: int) -> None:
    from matplotlib.patches import Patch

    if not shown:
        return
    figure.legend(
        handles=[
            Patch(facecolor=_color(value), label=f"{value} {overlay.names.get(value, '')}".strip())
            for value in shown
        ],
        loc="lower center",
        ncols=columns,
        frameon=False,
        labelcolor="white",
        fontsize=9,
    )


def _color(value: int) -> str:
    return COLORS[(value - 1) % len(COLORS)]
