"""How time and memory grow: with cases, with volume, with classes."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, report
from benchmarks.harness import Process, Side
from benchmarks.processes import watched
from benchmarks.stages import Size
from benchmarks.stages.chain import write_task

MIB = 2**20
SMALL = (24, 40, 40)


@dataclass(frozen=True)
class Point:
    """One measurement: CPU seconds, children included, and peak memory in bytes."""

    x: float
    seconds: float
    peak: int


@dataclass(frozen=True)
class Curve:
    """What grows with what."""

    name: str
    of: str
    """Meaning of x."""

    points: tuple[Point, ...]

    @property
    def exponents(self) -> tuple[float, float]:
        """Slopes of time and peak in a double logarithmic plot: 1 is linear, 0 is flat."""
        x, seconds, peaks = zip(
            *((p.x, p.seconds, max(p.peak, MIB)) for p in self.points), strict=True
        )
        return tuple(  # type: ignore[return-value]
            float(np.polyfit(np.log(x), np.log(y), 1)[0]) for y in (seconds, peaks)
        )


@dataclass(frozen=True)
class Sweep:
    """What is measured for a curve, by size."""

    name: str
    of: str
    stage: str
    sizes: Mapping[str, Sequence[tuple[float, Mapping[str, Any]]]]


def _volumes(stage: Mapping[str, Any], sides: Sequence[int]) -> list[tuple[float, dict[str, Any]]]:
    shapes = [(side // 2, side, side) for side in sides]
    return [(math.prod(shape) / 1e6, {"shape": shape, **stage}) for shape in shapes]


def _classes(counts: Sequence[int], shape: Sequence[int]) -> list[tuple[float, dict[str, Any]]]:
    return [(count, {"shape": shape, "classes": count}) for count in counts]


def _depths(depths: Sequence[int], plane: Sequence[int]) -> list[tuple[float, dict[str, Any]]]:
    return [(depth, {"shape": (depth, *plane), "classes": 25}) for depth in depths]


def _cases(counts: Sequence[int]) -> list[tuple[float, dict[str, Any]]]:
    return [(count, {"shape": SMALL, "cases": count}) for count in counts]


SWEEPS = (
    Sweep("preprocessing", "cases of 24x40x40", "scale_preprocess",
          {"full": _cases((8, 64, 512)), "tiny": _cases((2, 4))}),
    Sweep("preprocessing", "million voxels of each of 2 cases", "scale_preprocess",
          {"full": _volumes({"cases": 2}, (96, 160, 256, 384)),
           "tiny": _volumes({"cases": 2}, (40, 48))}),
    Sweep("windows and export", "classes", "scale_predict",
          {"full": _classes((3, 10, 25, 60, 117), (64, 96, 96)),
           "tiny": _classes((3, 6), (16, 24, 24))}),
    Sweep("export alone", "classes", "scale_export",
          {"full": _classes((3, 10, 25, 60, 117), (64, 96, 96)),
           "tiny": _classes((3, 6), (16, 24, 24))}),
    Sweep("windows and export", "million voxels, 3 classes", "scale_predict",
          {"full": _volumes({"classes": 3}, (96, 160, 256, 384)),
           "tiny": _volumes({"classes": 3}, (24, 32))}),
    Sweep("windows and export", "slices of 96x96, 25 classes", "scale_predict",
          {"full": _depths((64, 128, 256, 512), (96, 96)),
           "tiny": _depths((16, 24), (24, 24))}),
)  # fmt: skip


def measure(sweep: Sweep, size: Size, home: Path, say: Callable[[str], None]) -> Curve:
    """Return a curve, each point in a process of its own.

    Args:
        sweep: what to measure.
        size: full or tiny.
        home: folder for inputs.
        say: told each point.
    """
    points = []
    for x, params in sweep.sizes[size]:
        point = _point(sweep.stage, x, params, home)
        say(f"{sweep.name}, {x:g} {sweep.of}: {point.seconds:.2f} s, {point.peak / MIB:.0f} MiB")
        points.append(point)
    return Curve(sweep.name, sweep.of, tuple(points))


def _point(stage: str, x: float, params: Mapping[str, Any], home: Path) -> Point:
    with tempfile.TemporaryDirectory(dir=home) as name, Process(Side.of("ours")) as process:
        folder = Path(name)
        (folder / "params.json").write_text(json.dumps(params))
        if stage == "scale_preprocess":
            write_task(folder, np.random.default_rng(0), **params)
            process.ask("load", stage=stage, folder=name)
            with watched(process.pid) as seen:
                took = process.ask("run")
            return Point(x, took["cpu"], seen.peak or 0)
        process.ask("load", stage=stage, folder=name)
        took = process.ask("run")  # compiles
        took = process.ask("run")
        found = process.ask("peak")
        return Point(x, took["cpu"], found["peak"] - found["baseline"])


def run(
    plot: Path | None,
    to_json: Path | None,
    to_markdown: Path | None,
    size: Size = "full",
    say: Callable[[str], None] = print,
) -> int:
    """Measure all curves, print them, write and draw them where asked; return 0."""
    about = machine.description()
    if problem := machine.warning(about):
        say(f"warning: {problem}")
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as home:
        curves = [measure(sweep, size, Path(home), say) for sweep in SWEEPS]
    for curve in curves:
        time, peak = curve.exponents
        say(f"{curve.name} against {curve.of}: time grows as x^{time:.2f}, peak as x^{peak:.2f}")
    if to_json:
        found = [{**asdict(curve), "exponents": curve.exponents} for curve in curves]
        to_json.write_text(json.dumps({"machine": about, "curves": found}, indent=1))
    if to_markdown:
        report.put(to_markdown, "scaling", markdown(curves, about))
    if plot:
        draw(curves, about, plot)
    return 0


def markdown(curves: Sequence[Curve], about: Mapping[str, Any]) -> str:
    """Return the curves as a table."""
    lines = [f"{about['date']}, {about['processor']}, load {about['load']}", ""]
    lines += ["| what | against | CPU time | peak | grow as |", "|---|---|---|---|---|"]
    for curve in curves:
        points = curve.points
        times = ", ".join(report.seconds(point.seconds) for point in points)
        peaks = ", ".join(report.mebibytes(point.peak) for point in points)
        against = f"{curve.of}: {', '.join(f'{point.x:.3g}' for point in points)}"
        growth = "x^{:.2f}, x^{:.2f}".format(*curve.exponents)
        lines.append(f"| {curve.name} | {against} | {times} | {peaks} | {growth} |")
    return "\n".join(lines) + "\n"


def draw(curves: Sequence[Curve], about: Mapping[str, Any], path: Path) -> None:
    """Draw time above and peak below, one column per curve, with a dotted line that is linear."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(curves), 6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, len(curves), squeeze=False)
    for column, curve in enumerate(curves):
        x = [point.x for point in curve.points]
        rows = (
            ([point.seconds for point in curve.points], "CPU time (s)"),
            ([max(point.peak, MIB) / MIB for point in curve.points], "peak memory (MiB)"),
        )
        for axes, (y, title), exponent in zip(grid[:, column], rows, curve.exponents, strict=True):
            axes.loglog(x, y, "o-", color="tab:blue")
            axes.loglog(x, [y[-1] * value / x[-1] for value in x], ":", color="grey")
            axes.set_title(f"{curve.name}\n{title} ~ x^{exponent:.2f}", fontsize=9)
            axes.set_xlabel(curve.of, fontsize=9)
            axes.set_xticks(x, [f"{value:.3g}" for value in x], fontsize=8)
            ticks = _apart(y)
            axes.set_yticks(ticks, [f"{value:.3g}" for value in ticks], fontsize=8)
            axes.minorticks_off()
            axes.set_ylim(min(y) / 2, max(y) * 2)
            axes.grid(alpha=0.3)
    figure.suptitle(f"{about['processor']}, {about['date']}; dotted: linear", fontsize=10)
    figure.savefig(path, dpi=70)


def _apart(values: Sequence[float]) -> list[float]:
    """Return those of the values, from the lowest up, whose labels do not overlap."""
    kept: list[float] = []
    for value in sorted(values):
        if not kept or value > 1.2 * kept[-1]:
            kept.append(value)
    return kept
