"""Sides and stages that cost nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]

SIDE = """
import os
import numpy as np

DISTRIBUTIONS = ("numpy", "no-such-distribution")


def double(folder):
    values = np.load(folder / "values.npy")
    return lambda: {double}


def fail(folder):
    raise ValueError("cannot read this")


def die(folder):
    return lambda: os._exit(3)


def memory(folder):
    return lambda: np.ones({megabytes} * 2**20, np.uint8)[:1]


STAGES = {{"double": double, "fail": fail, "die": die, "memory": memory}}
"""


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the folder of the repository be one to import from, wherever pytest was started."""
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture
def side(tmp_path: Path) -> Callable[..., Any]:
    """Return a maker of sides; `double` is the expression that gives its result."""
    from benchmarks.harness import Side

    def make(name: str, double: str = "2 * values", megabytes: int = 1) -> Side:
        path = tmp_path / f"{name}.py"
        path.write_text(SIDE.format(double=double, megabytes=megabytes))
        return Side(name, Path(sys.executable), path)

    return make


@pytest.fixture
def stage() -> Callable[..., Any]:
    """Return a maker of stages with one small array as input."""
    from benchmarks.stages import Stage, equal

    def write(folder: Path, rng: np.random.Generator, *, count: int) -> None:
        np.save(folder / "values.npy", rng.integers(0, 100, count))

    def make(name: str = "double", **changed: Any) -> Stage:
        settings: dict[str, Any] = {
            "name": name, "title": name, "make": write,
            "sizes": {"full": {"count": 1000}, "quick": {"count": 100}, "tiny": {"count": 3}},
            "targets": {"peer": 2.0, "naive": 1.0}, "agree": {"": equal()},
        }  # fmt: skip
        return Stage(**{**settings, **changed})

    return make
