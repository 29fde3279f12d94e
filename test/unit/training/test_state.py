"""What training knows of its past, through checkpoints and back."""

from __future__ import annotations

import math

import pytest

from nnunetlike.training.state import TrainState


def _after(*metrics: float) -> TrainState:
    state = TrainState()
    for i, metric in enumerate(metrics):
        state = state.after_epoch(1.0 - 0.1 * i, 0.9, metric, lr=0.01)
    return state


def test_first_average_is_the_first_value_and_is_not_an_improvement() -> None:
    state = _after(0.5)
    assert (state.val_average, state.train_average) == (0.5, 1.0)
    assert not state.improved


def test_equal_average_is_no_improvement() -> None:
    assert not _after(0.5, 0.5).improved


def test_strictly_greater_average_is_an_improvement() -> None:
    state = _after(0.5, 0.6)
    assert state.improved
    assert state.val_average == pytest.approx(0.9 * 0.5 + 0.1 * 0.6)


def test_an_epoch_without_any_class_leaves_the_average_as_it_is() -> None:
    state = _after(0.5, math.nan, 0.6)
    assert state.val_average == pytest.approx(0.51)
    assert math.isnan(state.metrics[1])


def test_checkpoint_and_back_gives_the_same_state() -> None:
    state = _after(0.5, 0.4, 0.45)
    assert TrainState.from_checkpoint(state.to_checkpoint()) == state


def test_averages_that_v1_does_not_store_are_computed_anew() -> None:
    state = _after(0.5, 0.4, 0.45, 0.7)
    content = state.to_checkpoint()
    del content["moving_averages"]
    again = TrainState.from_checkpoint(content)
    assert again.val_average == pytest.approx(state.val_average, abs=1e-15)
    assert again.train_average == pytest.approx(state.train_average, abs=1e-15)
