"""Bookkeeping, online evaluation and schedules against nnU-Net v1's own numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunetlike.training.loop import class_dice, mean_dice
from nnunetlike.training.optimizers import PolySGD
from nnunetlike.training.state import TrainState


@pytest.fixture(scope="module")
def bookkeeping(golden: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((golden / "training" / "bookkeeping.json").read_text())
    return content


def test_moving_averages_and_patience_are_those_of_v1(bookkeeping: dict[str, Any]) -> None:
    state = TrainState()
    rows = []
    for loss, metric in zip(bookkeeping["train_loss"], bookkeeping["eval_metric"], strict=True):
        state = state.after_epoch(loss, 0.0, metric, lr=1.0)
        rows.append(
            [
                state.train_average,
                state.val_average,
                state.best_val_average,
                state.best_train_average,
                state.best_epoch,
                not state.stalled,
            ]
        )
    np.testing.assert_allclose(
        np.array(rows, float), np.array(bookkeeping["rows"], float), rtol=0, atol=1e-12
    )


def test_best_and_latest_are_saved_when_v1_saves_them(bookkeeping: dict[str, Any]) -> None:
    state = TrainState()
    best = []
    for loss, metric in zip(bookkeeping["train_loss"], bookkeeping["eval_metric"], strict=True):
        state = state.after_epoch(loss, 0.0, metric, lr=1.0)
        if state.improved:
            best.append(state.epoch - 1)
    assert best == [e for e, name in bookkeeping["saved"] if name == "model_best.model"]
    latest = [e for e in range(130) if e % 50 == 49]
    assert latest == [e for e, name in bookkeeping["saved"] if name == "model_latest.model"]


def test_without_a_metric_minus_the_validation_loss_counts(bookkeeping: dict[str, Any]) -> None:
    state = TrainState()
    rows = bookkeeping["no_metric_low_lr"]["rows"]
    for loss, row in zip(bookkeeping["train_loss"], rows, strict=True):
        state = state.after_epoch(0.5, loss, None, lr=1e-7)
        assert [state.val_average, not state.stalled, state.best_epoch] == [
            pytest.approx(row[0], abs=1e-12),
            *row[1:],
        ]


def test_online_dice_is_that_of_v1(golden: Path) -> None:
    expected = json.loads((golden / "training" / "online_evaluation.json").read_text())
    found = []
    with np.load(golden / "training" / "online_evaluation.npz") as arrays:
        counts = torch.zeros(expected["classes"] - 1, 3)
        for i in range(3):
            counts += _counts(arrays[f"pred{i}"], arrays[f"target{i}"], expected["classes"])
            found.append(mean_dice(class_dice(counts)))
    assert found[1] == pytest.approx(expected["after_first_two_batches"][0], abs=1e-12)
    assert found[2] == pytest.approx(expected["after_all_three"][0], abs=1e-12)


def _counts(prediction: np.ndarray, reference: np.ndarray, classes: int) -> torch.Tensor:
    rows = []
    for c in range(1, classes):
        p, r = prediction == c, reference == c
        rows.append([int((p & r).sum()), int((p & ~r).sum()), int((~p & r).sum())])
    return torch.tensor(rows)


def test_learning_rates_are_those_of_v1(golden: Path) -> None:
    schedules = json.loads((golden / "training" / "schedules.json").read_text())
    for epoch, rate in schedules["poly_lr(epoch, 1000, 0.01, 0.9)"].items():
        assert PolySGD().rate(int(epoch), 1000) == pytest.approx(rate, abs=1e-12)
    for row in schedules["poly_lr other"]:
        optimizer = PolySGD(lr=row["initial"])
        assert optimizer.rate(row["epoch"], row["max_epochs"]) == pytest.approx(row["out"])
