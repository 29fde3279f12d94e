"""Cross-entropy on values derived by hand."""

from __future__ import annotations

import math

import pytest
import torch

from nnunetlike.training.losses.cross_entropy import (
    BinaryCrossEntropy,
    CrossEntropy,
    TopKCrossEntropy,
)


def test_even_logits_cost_the_logarithm_of_the_number_of_classes() -> None:
    label = torch.randint(0, 4, (2, 3, 3, 3), dtype=torch.int16)
    assert CrossEntropy()(torch.zeros(2, 4, 3, 3, 3), label).item() == pytest.approx(math.log(4))


def test_ignored_voxels_do_not_count() -> None:
    logits = torch.tensor([[[[0.0, 3.0]], [[0.0, 0.0]]]])
    label = torch.tensor([[[0, 1]]])
    assert CrossEntropy(ignore_label=1)(logits, label).item() == pytest.approx(math.log(2))


def test_nothing_but_ignored_voxels_costs_nothing() -> None:
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    loss = CrossEntropy(ignore_label=1)(logits, torch.ones(1, 3, 3, dtype=torch.int16))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and (logits.grad == 0).all()


def test_the_label_is_left_as_it_is() -> None:
    label = torch.randint(0, 3, (2, 4, 4), dtype=torch.int16)
    before = label.clone()
    CrossEntropy(ignore_label=1)(torch.randn(2, 3, 4, 4), label)
    assert torch.equal(label, before)


def test_only_the_worst_voxels_count() -> None:
    logits = torch.zeros(1, 2, 1, 10)
    logits[0, 1, 0, 3] = 20.0  # sure of class 1 where the label is 0
    label = torch.zeros(1, 1, 10, dtype=torch.int16)
    assert TopKCrossEntropy(percent=10)(logits, label).item() == pytest.approx(20, abs=1e-5)
    expected = (20 + math.log(2)) / 2
    assert TopKCrossEntropy(percent=20)(logits, label).item() == pytest.approx(expected, abs=1e-5)


def test_at_least_one_voxel_counts() -> None:
    loss = TopKCrossEntropy(percent=1)(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2).short())
    assert loss.item() == pytest.approx(math.log(2))


def test_binary_cross_entropy_of_even_logits_is_the_logarithm_of_2() -> None:
    label = torch.randint(0, 2, (2, 5, 3, 3)).bool()
    assert BinaryCrossEntropy()(torch.zeros(2, 5, 3, 3), label).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("ignored", [None, 1])
def test_summing_in_a_fixed_order_gives_the_same_loss(ignored: int | None) -> None:
    logits, label = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randint(0, 3, (2, 4, 4))
    usual = CrossEntropy(ignore_label=ignored)(logits, label)
    (gradient,) = torch.autograd.grad(usual, logits)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        fixed = CrossEntropy(ignore_label=ignored)(logits, label)
        torch.testing.assert_close(fixed, usual)
        torch.testing.assert_close(torch.autograd.grad(fixed, logits)[0], gradient)
    finally:
        torch.use_deterministic_algorithms(before)
