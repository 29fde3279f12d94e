"""Stages of training augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.stages import Agreement, Arrays, Params, Stage, Work, equal, within_range
from benchmarks.stages import synthetic as made
from benchmarks.stages.arrays import save

MOST = 0.15
"""Difference of foreground shares that two random turns and scales may make: a patch that shows
more than the image is empty outside."""

TURN = {"angles": (0.3, -0.2, 0.25), "scale": 1.15}


def _patch(
    folder: Path, rng: np.random.Generator, *, shape: Sequence[int], patch: Sequence[int],
    labels: int, angles: Sequence[float], scale: float,
) -> None:  # fmt: skip
    label = made.labels(rng, shape, labels, background=False).astype(np.int16)
    save(folder, image=made.image(rng, shape) / 100, label=label - 1)


def _sizes(labels: int) -> dict[str, Params]:
    return {
        "full": {"shape": (205,) * 3, "patch": (128,) * 3, "labels": labels, **TURN},
        "quick": {"shape": (48,) * 3, "patch": (32,) * 3, "labels": labels, **TURN},
        "tiny": {"shape": (16,) * 3, "patch": (8,) * 3, "labels": 3, **TURN},
    }


def _placed(ours: Arrays, theirs: Arrays) -> Agreement:
    """Compare image, to 1e-5 of the range, and label, but where rounding decides."""
    image = within_range(1e-5)({"image": ours["image"]}, {"image": theirs["image"]})
    label = equal(1e-6)({"label": ours["label"]}, {"label": theirs["label"]})
    return Agreement(image.holds and label.holds, f"{image.text}; labels {label.text}")


def _alike(ours: Arrays, theirs: Arrays) -> Agreement:
    """Compare what other rules or random numbers leave: shape and share of foreground."""
    shapes = ours["image"].shape == theirs["image"].shape
    here, there = (float((side["label"] > 0).mean()) for side in (ours, theirs))
    holds = shapes and abs(here - there) < MOST
    return Agreement(holds, f"statistical: foreground {here:.3f} and {there:.3f}")


def _work(params: Params) -> Work:
    return Work(bytes=(4 + 2) * 2 * float(np.prod(params["patch"])))


def _spatial(labels: int, v2: float) -> Stage:
    return Stage(
        name=f"spatial_{labels}", title=f"turned and scaled, {labels} labels, 205³ to 128³",
        make=_patch, sizes=_sizes(labels), targets={"v1": 20, "v2": v2, "naive": 1},
        agree={"": _placed, "v2": _alike}, work=_work,
        note="v2 interpolates the image linearly, v1 and we by cubic splines",
    )  # fmt: skip


def _chain(labels: int, v2: float) -> Stage:
    return Stage(
        name=f"augment_{labels}", title=f"all of augmentation at once, {labels} labels",
        make=_patch, sizes={k: v for k, v in _sizes(labels).items() if k != "quick"},
        targets={"v1": 20, "v2": v2}, agree={"": _alike}, work=_work,
        note="every change fires, in v1's ranges and order; random numbers differ",
    )  # fmt: skip


STAGES = (_spatial(3, 7), _spatial(24, 40), _chain(3, 7), _chain(24, 40))
