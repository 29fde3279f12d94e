"""What a checkpoint keeps of the epoch in hand, and when skipped steps are too many."""

from __future__ import annotations

from pathlib import Path

import torch

from nnunetlike.training.progress import EpochProgress, FaultCounter, SkippedStep

FAULT = SkippedStep(3, 7, ("a", "b"))


def _after(pattern: str) -> FaultCounter:
    counter = FaultCounter()
    for letter in pattern:
        counter.note(FAULT if letter == "x" else None)
    return counter


def test_five_in_a_row_are_too_many_and_four_are_not() -> None:
    assert not _after("xxxx.xxxx").too_many
    assert _after("xxxx.xxxxx").too_many


def test_twenty_of_a_hundred_are_too_many() -> None:
    assert _after("x...." * 20).too_many
    assert not _after("x....." * 30).too_many


def test_cases_are_counted() -> None:
    assert _after("x.x").describe() == "2 of 3 recent steps, with cases a (2), b (2)"


def test_counter_survives_a_checkpoint() -> None:
    counter = _after("x.x")
    assert FaultCounter.from_checkpoint(counter.to_checkpoint()).recent == counter.recent


def test_progress_survives_a_checkpoint_bit_for_bit(tmp_path: Path) -> None:
    progress = EpochProgress(
        train_steps=2,
        val_steps=1,
        train_losses=[torch.rand(()), torch.rand(())],
        val_losses=[torch.rand(())],
        counts=torch.tensor([[1.0, 2.0, 3.0]]),
        skipped=[FAULT],
    )
    torch.save(progress.to_checkpoint(), tmp_path / "p")
    content = torch.load(tmp_path / "p", weights_only=True)
    again = EpochProgress.from_checkpoint(content, torch.device("cpu"))
    assert again.to_checkpoint().keys() == progress.to_checkpoint().keys()
    assert (again.train_steps, again.val_steps, again.skipped) == (2, 1, [FAULT])
    for name in ("train_losses", "val_losses"):
        pairs = zip(getattr(again, name), getattr(progress, name), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert again.counts is not None and torch.equal(again.counts, progress.counts)


def test_nothing_is_kept_between_two_epochs() -> None:
    assert EpochProgress().to_checkpoint() == {}
    assert EpochProgress.from_checkpoint({}, torch.device("cpu")) == EpochProgress()
