"""Heads of a network against one label map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nnunetlike.networks.unet import UNetSpec
from nnunetlike.networks.unet_plus_plus import UNetPlusPlusSpec
from nnunetlike.training.losses.compound import dice_and_cross_entropy
from nnunetlike.training.objectives import Batch
from nnunetlike.training.objectives.segmentation import (
    DeepSupervision,
    SegmentationObjective,
    hard_counts,
    head_weights,
    resize_nearest,
)


class Heads(nn.Module):
    """A network that gives the logits it was made with."""

    def __init__(self, *heads: Tensor, alone: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.alone = alone

    def forward(self, image: Tensor) -> list[Tensor] | Tensor:
        return self.heads[0] if self.alone else list(self.heads)


def batch_of(size: int = 8, samples: int = 2, dimension: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(0)
    shape = (samples, *(size,) * dimension)
    return {
        "image": torch.randn(samples, 1, *shape[1:], generator=generator),
        "label": torch.randint(0, 3, shape, generator=generator).to(torch.int16),
        "case_ids": ["a"] * samples,
    }


def logits_of(size: int = 8, seed: int = 5, samples: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, 3, size, size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("heads", "expected"),
    [(1, [1.0]), (2, [1.0, 0.0]), (5, [8 / 15, 4 / 15, 2 / 15, 1 / 15, 0.0])],
)
def test_v1_gives_the_last_of_several_heads_nothing(heads: int, expected: list[float]) -> None:
    assert head_weights(heads, "v1") == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(
    ("heads", "expected"), [(1, [1.0]), (2, [2 / 3, 1 / 3]), (3, [4 / 7, 2 / 7, 1 / 7])]
)
def test_all_gives_every_head_something(heads: int, expected: list[float]) -> None:
    assert head_weights(heads, "all") == pytest.approx(expected, abs=1e-15)


@given(sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=2, max_size=3))
def test_targets_take_the_voxel_in_which_their_centre_lies(sizes: list[tuple[int, int]]) -> None:
    coarse, factor = zip(*sizes, strict=True)
    fine = [n * f for n, f in sizes]
    label = np.arange(np.prod(fine)).reshape(fine)
    places = [((np.arange(n) + 0.5) * f).astype(int) for n, f in zip(coarse, factor, strict=True)]
    ours = resize_nearest(torch.from_numpy(label)[None], coarse)[0]
    np.testing.assert_array_equal(ours.numpy(), label[np.ix_(*places)])


def test_a_target_of_the_same_size_is_the_label_itself() -> None:
    label = batch_of()["label"]
    assert resize_nearest(label, (8, 8)) is label


def test_counts_by_hand() -> None:
    label = torch.tensor([[[0, 1, 1, 2]]], dtype=torch.int16)
    predicted = torch.tensor([[[1, 1, 0, 2]]])
    logits = nn.functional.one_hot(predicted, 3).movedim(-1, 1).double()
    assert hard_counts(logits, label).tolist() == [[1, 1, 1], [1, 0, 0]]


def test_counts_of_classes_that_are_nowhere_are_0() -> None:
    label = torch.zeros(1, 2, 2, dtype=torch.int16)
    logits = torch.zeros(1, 4, 2, 2)
    logits[:, 0] = 1
    assert hard_counts(logits, label).tolist() == [[0, 0, 0]] * 3


def test_the_loss_is_the_weighted_sum_over_heads_of_their_resolution() -> None:
    batch, heads = batch_of(), [logits_of(8), logits_of(4), logits_of(2)]
    loss = dice_and_cross_entropy(batch_dice=True)
    targets = [batch["label"], batch["label"][:, 1::2, 1::2], batch["label"][:, 2::4, 2::4]]
    scores = [loss(x, y) for x, y in zip(heads, targets, strict=True)]
    for rule, weights in (("v1", (2 / 3, 1 / 3, 0)), ("all", (4 / 7, 2 / 7, 1 / 7))):
        expected = sum(w * s for w, s in zip(weights, scores, strict=True))
        output = SegmentationObjective(Heads(*heads), loss, rule)(batch)
        assert output.loss.item() == pytest.approx(float(expected), rel=1e-12)
        assert sum(output.terms.values()).item() == pytest.approx(float(expected), rel=1e-12)


def test_a_single_head_has_the_whole_loss() -> None:
    batch, logits = batch_of(), logits_of()
    loss = dice_and_cross_entropy(batch_dice=False)
    output = SegmentationObjective(Heads(logits, alone=True), loss)(batch)
    assert output.loss.item() == pytest.approx(loss(logits, batch["label"]).item(), rel=1e-12)


def test_counts_are_given_in_eval_mode_only_and_the_loss_is_the_same() -> None:
    batch, heads = batch_of(), [logits_of(8), logits_of(4)]
    objective = DeepSupervision().build(Heads(*heads), batch_dice=True)
    training = objective(batch)
    evaluated = objective.eval()(batch)
    assert training.counts is None
    assert evaluated.counts is not None
    assert evaluated.counts.tolist() == hard_counts(heads[0], batch["label"]).tolist()
    assert evaluated.loss == training.loss


def test_the_label_is_left_as_it_is() -> None:
    batch = batch_of()
    before = batch["label"].clone()
    DeepSupervision().build(Heads(logits_of(8), logits_of(4)), batch_dice=True).eval()(batch)
    assert torch.equal(batch["label"], before)


def test_only_the_coarsest_head_of_a_unet_goes_untrained() -> None:
    spec, task = UNetSpec.tiny(2)
    objective = DeepSupervision(weights="v1").build(spec.build(task), batch_dice=True)
    objective(batch_of(16)).loss.backward()
    without = [name for name, p in objective.network.named_parameters() if p.grad is None]
    assert without == ["heads.1.weight"]


@pytest.mark.parametrize("dimension", [2, 3])
def test_every_head_and_parameter_of_a_unet_plus_plus_is_trained(dimension: int) -> None:
    spec, task = UNetPlusPlusSpec.tiny(dimension)
    objective = DeepSupervision(weights="all").build(spec.build(task), batch_dice=True)
    objective(batch_of(8, dimension=dimension)).loss.backward()
    for name, parameter in objective.network.named_parameters():
        assert parameter.grad is not None, name
    for head in objective.network.heads:
        assert head.weight.grad.abs().sum() > 0


def test_the_loss_is_computed_in_single_precision_under_autocast() -> None:
    spec, task = UNetPlusPlusSpec.tiny(2)
    torch.manual_seed(0)
    objective = DeepSupervision(weights="all").build(spec.build(task), batch_dice=True)
    batch = batch_of(16)
    full = objective(batch).loss
    with torch.autocast("cpu", torch.bfloat16):
        output = objective(batch)
    assert output.loss.dtype == torch.float32
    assert {term.dtype for term in output.terms.values()} == {torch.float32}
    assert output.loss.item() == pytest.approx(full.item(), rel=2e-2)


@pytest.mark.parametrize("batch_dice", [True, False])
def test_uneven_shares_of_a_batch_have_its_loss_on_average(batch_dice: bool) -> None:
    batch, logits = batch_of(samples=3), logits_of(samples=3)
    setting = DeepSupervision()
    whole = setting.build(Heads(logits, alone=True), batch_dice=batch_dice)(batch).loss
    sums = sums_of(logits, batch["label"])
    losses = []
    for part in (slice(0, 2), slice(2, 3)):
        share = (part.stop - part.start) * 2 / 3
        total = (lambda _: sums) if batch_dice else None
        network = Heads(logits[part], alone=True)
        objective = setting.build(network, batch_dice=batch_dice, total=total, share=share)
        piece: Batch = {**batch, "label": batch["label"][part], "image": batch["image"][part]}
        losses.append(objective(piece).loss.item())
    assert sum(losses) / 2 == pytest.approx(whole.item(), rel=1e-9)


def sums_of(logits: Tensor, label: Tensor) -> Tensor:
    """Return the four sums that Dice asks for, by class."""
    probabilities = logits.softmax(1)[:, 1:]
    members = torch.stack([label == 1, label == 2], 1).double()
    axes = (0, 2, 3)
    voxels = torch.full((2,), label.numel(), dtype=torch.float64)
    parts = [(probabilities * members).sum(axes), probabilities.sum(axes), members.sum(axes)]
    return torch.stack([*parts, voxels])


def test_settings_are_values() -> None:
    assert DeepSupervision() == DeepSupervision(weights="v1")
    assert replace(DeepSupervision(), weights="all") != DeepSupervision()
