"""The loss of clips: which frames and pixels count, and how much."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nnunetlike.training.objectives import Batch
from nnunetlike.training.objectives.video import (
    VideoObjective,
    VideoSegmentation,
    counts_of_labelled,
    frame_losses,
    targets_at,
    uncertain_points,
    values_at,
)

DENSE = VideoSegmentation(points=None)


class Answers(nn.Module):
    """A network that answers with given logits, whatever it sees."""

    def __init__(self, *heads: Tensor) -> None:
        super().__init__()
        self.heads = nn.ParameterList(heads)

    def forward(self, image: Tensor) -> list[Tensor]:
        return list(self.heads)


def a_clip(seed: int = 0, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Return logits (2, K, 4, 6, 5) and labels of which frames 1 and 2 have none."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 4, 6, 5, generator=generator)
    label = torch.randint(0, classes, (2, 4, 6, 5), generator=generator)
    label[:, 1:3] = classes
    return logits, label


def batch(label: Tensor) -> Batch:
    return Batch(
        image=torch.zeros(len(label), 1, *label.shape[1:]), label=label, case_ids=["a", "b"]
    )


def by_hand(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy plus Dice of the labelled frames, as the definition says, frame by frame."""
    losses = []
    classes = logits.shape[1]
    for b, t in (label < classes).flatten(2).any(2).nonzero().tolist():
        known = label[b, t] < classes
        frame = logits[b, :, t][:, known]
        truth = label[b, t][known]
        members = functional.one_hot(truth, classes).T[1:].float()
        shown = frame.softmax(0)[1:]
        dice = 1 - (2 * (shown * members).sum(1) + 1) / (shown.sum(1) + members.sum(1) + 1)
        losses.append(functional.cross_entropy(frame.T, truth) + dice.mean())
    return torch.stack(losses).mean()


def test_the_loss_is_the_mean_over_labelled_frames_of_cross_entropy_and_dice() -> None:
    logits, label = a_clip()
    label[0, 0, :2] = 3  # pixels without a label in a frame that has one
    loss = VideoObjective(Answers(logits), DENSE)(batch(label)).loss
    assert loss.item() == pytest.approx(by_hand(logits, label).item(), rel=1e-5)


def test_no_gradient_reaches_the_logits_of_unlabelled_frames_or_pixels() -> None:
    logits, label = a_clip()
    label[0, 0, :2] = 3
    network = Answers(logits.clone())
    VideoObjective(network, DENSE)(batch(label)).loss.backward()
    gradient = network.heads[0].grad
    assert gradient is not None
    unknown = (label == 3)[:, None].expand_as(gradient)
    assert torch.all(gradient[unknown] == 0)
    assert torch.all(gradient[~unknown] != 0)


def test_a_batch_without_labels_has_the_loss_zero_and_gradients_of_zero() -> None:
    logits, label = a_clip()
    network = Answers(logits.clone(), logits[..., ::2, ::2].clone())
    output = VideoObjective(network, DENSE)(batch(torch.full_like(label, 3)))
    output.loss.backward()
    assert output.loss.item() == 0
    assert all(torch.all(head.grad == 0) for head in network.heads)  # type: ignore[arg-type]


def test_every_sample_of_the_batch_supervises_the_auxiliary_heads() -> None:
    logits, label = a_clip()
    network = Answers(logits.clone(), logits[..., ::2, ::2].clone())
    VideoObjective(network, DENSE)(batch(label)).loss.backward()
    gradient = network.heads[1].grad
    assert gradient is not None
    assert all(gradient[b, :, t].abs().sum() > 0 for b in (0, 1) for t in (0, 3))
    assert torch.all(gradient[:, :, 1:3] == 0)


def test_auxiliary_heads_count_a_hundredth() -> None:
    logits, label = a_clip()
    one = VideoObjective(Answers(logits), DENSE)(batch(label)).loss
    three = VideoObjective(Answers(logits, logits, logits), DENSE)(batch(label)).loss
    assert three.item() == pytest.approx(1.02 * one.item(), rel=1e-5)


def test_processes_with_other_numbers_of_labelled_frames_make_the_loss_of_the_whole_batch() -> None:
    logits, label = a_clip()
    label[1, 3] = 3  # the first clip has two labelled frames, the second one
    whole = VideoObjective(Answers(logits), DENSE)(batch(label)).loss

    def total(value: Tensor) -> Tensor:
        """Return the sum over both processes: three frames, two processes."""
        assert value.tolist() in ([2.0, 1.0], [1.0, 1.0])
        return torch.tensor([3.0, 2.0])

    parts = [
        VideoObjective(Answers(logits[b : b + 1]), DENSE, total)(batch(label[b : b + 1])).loss
        for b in (0, 1)
    ]
    assert torch.stack(parts).mean().item() == pytest.approx(whole.item(), rel=1e-6)


def test_points_are_drawn_where_the_classes_are_close() -> None:
    torch.manual_seed(0)
    logits = torch.zeros(2, 2, 32, 32)
    logits[:, 1] = torch.linspace(-8, 8, 32)[None, :]  # undecided in the middle of a row
    points = uncertain_points(logits, 400, oversample=3.0, importance=0.75)
    assert points.shape == (2, 400, 2)
    assert points.abs().max() <= 1
    assert points[:, :300, 0].abs().mean() < 0.2  # of 1200 drawn, the 300 nearest the middle
    assert points[:, 300:, 0].abs().mean() == pytest.approx(0.5, abs=0.1)


def test_points_give_the_loss_of_all_pixels_where_everything_is_even() -> None:
    torch.manual_seed(0)
    logits = torch.zeros(1, 2, 2, 24, 24)
    logits[:, 1] = 0.7
    label = torch.ones(1, 2, 24, 24, dtype=torch.long)
    dense = VideoObjective(Answers(logits), DENSE)(batch(label))
    sampled = VideoObjective(Answers(logits), replace(DENSE, points=100))(batch(label))
    expected = dense.terms["cross_entropy"].item()
    assert sampled.terms["cross_entropy"].item() == pytest.approx(expected, rel=1e-5)


def test_frames_with_fewer_pixels_than_points_are_compared_whole() -> None:
    logits, label = a_clip()
    few = VideoObjective(Answers(logits), VideoSegmentation(points=30))(batch(label)).loss
    dense = VideoObjective(Answers(logits), DENSE)(batch(label)).loss
    assert few.item() == dense.item()


def test_a_point_beside_a_pixel_without_label_does_not_count() -> None:
    label = torch.zeros(1, 4, 4, dtype=torch.long)
    label[:, :, 2:] = 2
    grid = torch.tensor([[[-0.75, 0.0], [0.0, 0.0], [0.75, 0.0]]])
    target, valid = targets_at(label, 2, grid)
    assert valid.tolist() == [[True, False, False]]
    assert target[0, :, 0].tolist() == [1, 0]


def test_coarse_heads_are_compared_on_the_grid_of_the_labels() -> None:
    coarse = torch.arange(4.0).view(1, 1, 2, 2)
    fine = values_at(coarse, (4, 4), None)
    expected = functional.interpolate(coarse, (4, 4), mode="bilinear", align_corners=False)
    assert torch.equal(fine, expected.flatten(2))


def test_dice_of_an_absent_class_is_judged_by_what_is_predicted_of_it() -> None:
    logits = torch.tensor([[[20.0, 20.0], [-20.0, -20.0]]])
    target = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    entropy, dice = frame_losses(logits, target, torch.ones(1, 2, dtype=torch.bool))
    assert entropy.item() == pytest.approx(0, abs=1e-6)
    assert dice.item() == pytest.approx(0, abs=1e-6)
    _, wrong = frame_losses(-logits, target, torch.ones(1, 2, dtype=torch.bool))
    assert wrong.item() == pytest.approx(1 - 1 / 3, abs=1e-6)


def test_counts_leave_out_what_has_no_label() -> None:
    logits = torch.zeros(1, 2, 1, 1, 4)
    logits[0, 1, 0, 0] = torch.tensor([1.0, 1.0, -1.0, 1.0])
    label = torch.tensor([[[[1, 0, 1, 2]]]])
    assert counts_of_labelled(logits, label).tolist() == [[1, 1, 1]]


def test_evaluation_gives_counts_and_training_does_not() -> None:
    logits, label = a_clip()
    objective = VideoObjective(Answers(logits), VideoSegmentation())
    assert objective(batch(label)).counts is None
    counts = objective.eval()(batch(label)).counts
    assert counts is not None
    assert counts.shape == (2, 3)


def test_half_precision_logits_have_a_loss_in_single_precision() -> None:
    logits, label = a_clip()
    loss = VideoObjective(Answers(logits.bfloat16()), VideoSegmentation())(batch(label)).loss
    assert loss.dtype == torch.float32
    assert math.isfinite(loss.item())
