"""Sums of losses."""

from __future__ import annotations

import pytest
import torch

from nnunetlike.training.losses.compound import (
    dice_and_binary_cross_entropy,
    dice_and_cross_entropy,
    dice_and_top_k,
    generalized_dice_and_cross_entropy,
)
from nnunetlike.training.losses.cross_entropy import CrossEntropy
from nnunetlike.training.losses.dice import SoftDice, members_of

LOGITS = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
LABEL = torch.randint(0, 3, (2, 4, 4), generator=torch.Generator().manual_seed(1))


def test_parts_are_weighted_and_add_up() -> None:
    loss = dice_and_cross_entropy(batch_dice=True, dice_weight=0.5, cross_entropy_weight=2)
    parts = loss.parts(LOGITS, LABEL)
    torch.testing.assert_close(parts["dice"], 0.5 * SoftDice(batch=True)(LOGITS, LABEL))
    torch.testing.assert_close(parts["cross_entropy"], 2 * CrossEntropy()(LOGITS, LABEL))
    torch.testing.assert_close(loss(LOGITS, LABEL), parts["dice"] + parts["cross_entropy"])


@pytest.mark.parametrize(
    "loss", [dice_and_top_k(batch_dice=True), generalized_dice_and_cross_entropy(batch_dice=True)]
)
def test_pairs_have_a_dice_and_a_cross_entropy(loss: object) -> None:
    assert set(loss.parts(LOGITS, LABEL)) == {"dice", "cross_entropy"}


def test_regions_are_scored_one_by_one() -> None:
    members = members_of(LABEL, 3)
    parts = dice_and_binary_cross_entropy(batch_dice=True).parts(LOGITS, members)
    assert set(parts) == {"dice", "cross_entropy"}


def test_equal_settings_make_equal_losses() -> None:
    assert dice_and_cross_entropy(batch_dice=True) == dice_and_cross_entropy(batch_dice=True)
    assert dice_and_cross_entropy(batch_dice=True) != dice_and_cross_entropy(batch_dice=False)
