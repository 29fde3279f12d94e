"""progress.png: losses on the left axis, metric on the right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetlike.core.serialization import atomic_path
from nnunetlike.monitoring import SINKS, Event

if TYPE_CHECKING:  # importing matplotlib makes folders in the user's home
    from matplotlib.figure import Figure

FILE = "progress.png"
History = Mapping[str, Sequence[float]]


class ProgressPlot:
    """Draws `progress.png` anew after every epoch, those of earlier runs included."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._history: dict[str, list[float]] = {"train_loss": [], "val_loss": [], "metric": []}

    def write(self, event: Event) -> None:
        """Take up what an event tells; draw after an epoch."""
        if event["event"] == "start":
            self._history = {name: list(event["history"][name]) for name in self._history}
        if event["event"] == "epoch":
            for name, values in self._history.items():
                values.append(math.nan if event[name] is None else event[name])
            draw_progress(self._history, self.path)


def draw_progress(history: History, path: Path) -> None:
    """Draw training loss (blue), validation loss (red) and metric (green, dashed) over epochs."""
    from matplotlib.ticker import MaxNLocator

    figure = empty_figure(15, 9)
    left = figure.add_subplot()
    right = left.twinx()
    for values, axis, style, label in (
        (history["train_loss"], left, "b-", "loss_tr"),
        (history["val_loss"], left, "r-", "loss_val"),
        (history["metric"], right, "g--", "evaluation metric"),
    ):
        marker = "." if len(values) < 60 else None
        axis.plot(range(len(values)), values, style, label=label, marker=marker, linewidth=2)
    left.set_xlabel("epoch")
    left.set_ylabel("loss")
    right.set_ylabel("evaluation metric (mean Dice)")
    left.grid(alpha=0.3)
    lines = [*left.get_lines(), *right.get_lines()]
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    names = [str(line.get_label()) for line in lines]
    figure.legend(lines, names, loc="outside upper center", ncols=len(lines))
    save_figure(figure, path)


def draw_curve(
    x: Sequence[float], y: Sequence[float], path: Path, *, xlabel: str, ylabel: str
) -> None:
    """Draw one curve over a logarithmic axis."""
    figure = empty_figure(12, 7)
    axis = figure.add_subplot()
    axis.plot(x, y, "b-", linewidth=2)
    axis.set_xscale("log")
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    axis.grid(alpha=0.3)
    save_figure(figure, path)


def empty_figure(width: float, height: float) -> Figure:
    """Return a figure of so many inches that needs no screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


SINKS.add("plot", ProgressPlot)
