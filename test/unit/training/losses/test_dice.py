"""Dice and its relatives on values derived by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nnunetlike.training.losses.dice import (
    GeneralizedDice,
    Matthews,
    OverlapLoss,
    SoftDice,
    SquaredDice,
    members_of,
    overlap,
)

LOSSES = [SoftDice(), SquaredDice(), GeneralizedDice(), Matthews()]
NAMES = ["soft", "squared", "generalized", "matthews"]


def certain(label: Tensor, classes: int) -> Tensor:
    """Return logits whose softmax is the label itself."""
    return (members_of(label, classes).double() - 0.5) * 400


def half_right() -> tuple[Tensor, Tensor]:
    """Return logits and label: one of two foreground voxels found, one found where none is."""
    predicted = torch.tensor([[0, 1, 1, 0]])
    return certain(predicted, 2)[..., None], torch.tensor([[0, 0, 1, 1]])[..., None]


def test_overlap_counts_by_hand() -> None:
    probabilities = torch.tensor([[[0.25, 0.5, 0.75]]], dtype=torch.float64)
    found = overlap(probabilities, torch.tensor([[[False, True, True]]]))
    assert found.shared.item() == 1.25
    assert found.false_positives.item() == 0.25
    assert found.false_negatives.item() == 0.75
    assert found.true_negatives.item() == 0.75


def test_overlap_counts_valid_voxels_only() -> None:
    probabilities = torch.tensor([[[0.25, 0.5, 0.75]]], dtype=torch.float64)
    valid = torch.tensor([[[True, True, False]]])
    found = overlap(probabilities, torch.tensor([[[False, True, True]]]), valid)
    parts = (found.shared, found.predicted, found.present, found.voxels)
    assert [part.item() for part in parts] == [0.5, 0.75, 1.0, 2.0]


def test_half_an_overlap_gives_a_dice_of_one_half() -> None:
    logits, label = half_right()
    assert SoftDice()(logits, label).item() == pytest.approx(-0.5, abs=1e-5)
    assert SoftDice(background=True)(logits, label).item() == pytest.approx(-0.5, abs=1e-5)


def test_half_an_overlap_has_no_correlation() -> None:
    logits, label = half_right()
    assert Matthews()(logits, label).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("loss", LOSSES, ids=NAMES)
def test_a_certain_and_right_prediction_has_the_loss_minus_1(loss: OverlapLoss) -> None:
    label = torch.tensor([[[0, 1, 2], [2, 1, 0]]])
    assert loss(certain(label, 3), label).item() == pytest.approx(-1, abs=1e-5)


def test_the_logarithm_is_taken_of_the_mean_dice() -> None:
    logits, label = half_right()
    assert SoftDice(log=True)(logits, label).item() == pytest.approx(math.log(2), abs=1e-4)


def test_a_batch_dice_sums_before_the_ratio() -> None:
    label = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1]])[..., None]
    predicted = torch.tensor([[0, 1, 0, 0], [1, 1, 1, 1]])[..., None]
    logits = certain(predicted, 2)
    assert SoftDice(batch=True)(logits, label).item() == pytest.approx(-0.8, abs=1e-5)
    assert SoftDice(batch=False)(logits, label).item() == pytest.approx(-0.5, abs=1e-5)


def test_a_class_that_is_nowhere_and_not_predicted_has_a_dice_of_1() -> None:
    label = torch.zeros(1, 3, 3, dtype=torch.long)
    logits = certain(label, 2)
    assert SoftDice()(logits, label).item() == pytest.approx(-1, abs=2e-3)


@pytest.mark.parametrize("loss", LOSSES, ids=NAMES)
def test_the_label_is_left_as_it_is(loss: OverlapLoss) -> None:
    label = torch.randint(0, 3, (2, 4, 4), dtype=torch.int16)
    before = label.clone()
    SoftDice(ignore_label=1)(torch.randn(2, 3, 4, 4), label)
    loss(torch.randn(2, 3, 4, 4), label)
    assert torch.equal(label, before)


def test_ignored_voxels_change_neither_value_nor_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 3, (2, 4, 4), generator=generator)
    logits = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    label[:, 2:] = 2
    changed = logits.clone()
    changed[:, :, 2:] += torch.randn(2, 3, 2, 4, generator=generator, dtype=torch.float64)
    loss = SoftDice(ignore_label=2)
    ours = logits.requires_grad_()
    value = loss(ours, label)
    value.backward()
    assert value.item() == pytest.approx(loss(changed, label).item(), abs=1e-15)
    assert ours.grad is not None
    assert (ours.grad[:, :, 2:] == 0).all() and ours.grad[:, :, :2].abs().sum() > 0


def test_regions_may_overlap() -> None:
    label = torch.tensor([[[1, 1, 0], [1, 0, 0]]], dtype=torch.bool)
    logits = (label.double() - 0.5) * 400
    loss = SoftDice(regions=True, background=True)
    assert loss(logits, label).item() == pytest.approx(-1, abs=1e-5)


def test_a_batch_spread_over_processes_has_the_dice_of_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, 5, generator=generator, dtype=torch.float64)
    label = torch.randint(0, 3, (2, 5, 5), generator=generator)
    whole = SoftDice(batch=True)(logits.repeat(3, 1, 1, 1), label.repeat(3, 1, 1))
    one_of_three = SoftDice(batch=True, total=lambda local: 3 * local)(logits, label)
    assert one_of_three.item() == pytest.approx(whole.item(), rel=1e-9)


@pytest.mark.parametrize("loss", LOSSES, ids=NAMES)
def test_the_gradient_is_that_of_the_value(loss: OverlapLoss) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    label = torch.randint(0, 3, (2, 4, 3), generator=generator)
    assert torch.autograd.gradcheck(lambda x: loss(x, label), logits)
