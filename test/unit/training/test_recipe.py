"""Recipes as values."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest

from nnunetlike.core.errors import UsageError
from nnunetlike.training.optimizers import PolySGD
from nnunetlike.training.recipes import TRAINERS

V2 = TRAINERS.get("nnUNetTrainerV2")


def test_v1s_trainer_has_v1s_numbers() -> None:
    assert (V2.epochs, V2.iterations, V2.val_iterations, V2.oversample) == (1000, 250, 50, 0.33)
    assert V2.optimizer == PolySGD(
        lr=0.01, momentum=0.99, nesterov=True, weight_decay=3e-5, power=0.9, clip_norm=12
    )
    assert V2.save_every == 50


def test_plus_plus_scores_every_head() -> None:
    description = TRAINERS.get("nnUNetPlusPlusTrainerV2").describe()
    assert description["network"]["name"] == "unet_plus_plus"
    assert description["objective"]["weights"] == "all"


@pytest.mark.parametrize(
    "name", ["epochs", "iterations", "val_iterations", "batch_size", "save_every"]
)
def test_numbers_below_one_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is 0"):
        replace(V2, **{name: 0})


def test_features_are_an_option_of_the_network() -> None:
    assert V2.with_base_features(8).describe()["network"]["base_features"] == 8
    with pytest.raises(UsageError, match="base_num_features is 0"):
        V2.with_base_features(0)


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        V2.epochs = 3  # type: ignore[misc]


def test_the_rate_is_zero_after_the_last_epoch_and_later() -> None:
    assert PolySGD().rate(10, 10) == 0
    assert PolySGD().rate(12, 10) == 0
