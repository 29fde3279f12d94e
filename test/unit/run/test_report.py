"""One hint when nothing is learnt, chosen by what the training cases look like."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nnunetlike.run.report import why_nothing_is_learnt
from nnunetlike.training.recipes import TRAINERS


def _fold(box: tuple[int, int, int] | None, patch: tuple[int, ...] = (40, 40, 40)) -> Any:
    voxels = np.empty((0, 3), int) if box is None else np.array([[0, 0, 0], np.array(box) - 1])
    locations: Mapping[int, Any] = {1: voxels, 2: np.empty((0, 3), int)}
    return SimpleNamespace(
        split=SimpleNamespace(train=("a", "b")),
        store=SimpleNamespace(record=lambda case: SimpleNamespace(class_locations=locations)),
        plans=SimpleNamespace(classes=(1, 2)),
        stage=SimpleNamespace(patch_size=patch),
        run=SimpleNamespace(recipe=TRAINERS.get("nnUNetTrainerV2")),
    )


@pytest.mark.parametrize(
    ("fold", "precision", "hint"),
    [
        (_fold(None), "fp32", "none of the 2 training cases looked at has any foreground"),
        (_fold((2, 3, 3)), "fp32", "about 2 x 3 x 3 voxels in a patch of 40 x 40 x 40, and 33% of"),
        (_fold((20, 3, 3)), "fp16", "training computes in fp16. Try --fp32"),
        (_fold((20, 9, 9)), "fp32", "the learning rate began at 0.01. Try --lr 0.001"),
        (_fold((20, 9, 9), (32, 32)), "fp32", "9 x 9 voxels in a patch of 32 x 32;"),
    ],
)
def test_the_hint_fits_the_cases(fold: Any, precision: str, hint: str) -> None:
    assert hint in why_nothing_is_learnt(fold, precision)
