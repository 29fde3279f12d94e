"""What is said of a training that goes on."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nnunetlike.run.resume import report_start
from nnunetlike.training.progress import EpochProgress
from nnunetlike.training.recipes import TRAINERS

KEPT = {
    "seed": 7, "deterministic": False, "epochs": 1000, "iterations": 250, "val_iterations": 50,
    "batch_size": 2, "precision": "fp16",
}  # fmt: skip


def _say(caplog: pytest.LogCaptureFixture, precision: str = "fp16", **content: Any) -> str:
    caplog.set_level(logging.INFO, "nnunetlike")
    recipe = TRAINERS.get("nnUNetTrainerV2")
    fold: Any = SimpleNamespace(
        run=SimpleNamespace(
            recipe=recipe, seed=7, deterministic=False, freeze=None, augment_on="cpu"
        ),
        share=SimpleNamespace(total=2),
    )
    start = SimpleNamespace(path=Path("model_latest.model"), content={"run": KEPT, **content})
    parts: Any = SimpleNamespace(
        start=start, state=SimpleNamespace(epoch=3), progress=EpochProgress(train_steps=9)
    )
    report_start(fold, SimpleNamespace(precision=precision), parts)  # type: ignore[arg-type]  # all it reads
    return caplog.text


def test_the_place_in_the_epoch_is_told(caplog: pytest.LogCaptureFixture) -> None:
    text = _say(caplog)
    assert "continuing after epoch 2 and 9 training batches with model_latest.model" in text
    assert "differs" not in text


def test_what_differs_from_the_first_half_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert "differs from the one it continues: precision fp16 -> fp32" in _say(caplog, "fp32")


def test_a_precision_that_was_widened_is_no_difference(caplog: pytest.LogCaptureFixture) -> None:
    assert "differs" not in _say(caplog, "fp32", widened_to="fp32")
