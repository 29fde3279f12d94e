"""The stages: what both sides are given, how their results are compared, what was hoped for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]
Params = Mapping[str, Any]
Size = Literal["full", "quick", "tiny"]


class AbsentError(Exception):
    """The inputs of a stage are not here; says which."""


@dataclass(frozen=True)
class Agreement:
    """Whether two results are the same within what is allowed, and by how much they differ."""

    holds: bool
    text: str


Agree = Callable[[Arrays, Arrays], Agreement]


@dataclass(frozen=True)
class Work:
    """The least that a stage must move and compute, from which its limit on a machine follows."""

    bytes: float = 0
    flops: float = 0
    kind: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One row, or one per peer, of the table."""

    name: str
    title: str
    """What is done, for the table."""

    make: Callable[..., None]
    """Writes the inputs: `make(folder, rng, **params)`."""

    sizes: Mapping[str, Params]
    """Parameters by size. `tiny` warms the sides up; without `quick`, not in that mode."""

    targets: Mapping[str, float]
    """Least ratio by side; of time, or of memory where that is measured."""

    agree: Mapping[str, Agree]
    """How a result is compared, by side; `""` is for all others."""

    work: Callable[[Params], Work] = field(default=lambda _: Work())
    clock: Literal["cpu", "wall"] = "cpu"
    measures: Literal["time", "memory"] = "time"
    room: float | None = None
    """Most bytes that our peak may lie above the baseline."""

    peak_share: float | None = None
    """Most that our peak may be as a share of theirs."""

    once: bool = False
    """Too long for repetitions: the run whose result is compared is also the one that is timed."""

    show: Callable[[Arrays], str] | None = None
    """What ours alone gave, as text."""

    default: bool = True
    """Run when no stage is named."""

    note: str = ""

    def agreement(self, side: str, ours: Arrays, theirs: Arrays) -> Agreement:
        """Return how our result and that of a side compare."""
        return self.agree.get(side, self.agree.get("", unseen))(ours, theirs)

    def write(self, folder: Path, size: Size, seed: int = 0) -> Params:
        """Write the inputs of a size into a new folder, with the parameters; return these."""
        folder.mkdir(parents=True)
        params = self.sizes[size]
        (folder / "params.json").write_text(json.dumps(params))
        self.make(folder, np.random.default_rng(seed), **params)
        return params


def within_range(most: float) -> Agree:
    """Return a comparison of images: the largest difference as a share of their range."""

    def compare(ours: Arrays, theirs: Arrays) -> Agreement:
        worst = 0.0
        for name, there in theirs.items():
            here = ours[name]
            if here.shape != there.shape:
                return Agreement(False, f"shape {here.shape}, not {there.shape}")
            extent = float(np.ptp(there)) or 1.0
            worst = max(worst, float(np.abs(here.astype(np.float64) - there).max()) / extent)
        return Agreement(worst <= most, f"{worst:.1e} of range")

    return compare


def equal(most: float = 0, named: str = "differ") -> Agree:
    """Return a comparison of whole numbers: at most this share of all elements differs."""

    def compare(ours: Arrays, theirs: Arrays) -> Agreement:
        wrong = total = 0
        for name, there in theirs.items():
            here = ours[name]
            if here.shape != there.shape:
                return Agreement(False, f"{name}: shape {here.shape}, not {there.shape}")
            wrong += int(np.count_nonzero(here != there))
            total += there.size
        text = f"{wrong} of {total} {named}" if wrong or total > 1 else "equal"
        return Agreement(wrong <= most * total, "identical" if not wrong else text)

    return compare


def about(most: float) -> Agree:
    """Return a comparison of numbers: the largest relative difference."""

    def compare(ours: Arrays, theirs: Arrays) -> Agreement:
        worst = 0.0
        for name, there in theirs.items():
            here, other = ours[name].astype(np.float64), there.astype(np.float64)
            scale = np.maximum(np.maximum(np.abs(here), np.abs(other)), 1e-12)
            worst = max(worst, float((np.abs(here - other) / scale).max()))
        return Agreement(worst <= most, f"{worst:.1e} relative")

    return compare


def unseen(ours: Arrays, theirs: Arrays) -> Agreement:
    """Accept whatever two sides give: there is nothing in common to compare."""
    del ours, theirs
    return Agreement(True, "not comparable")


def every_stage() -> dict[str, Stage]:
    """Return the stages by name, in the order of the table."""
    from benchmarks.stages import arrays, chain, files, networks, patches

    modules = (arrays, files, patches, networks, chain)
    return {stage.name: stage for module in modules for stage in module.STAGES}
