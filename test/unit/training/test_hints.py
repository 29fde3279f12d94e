"""Hints when nothing is learnt, and when the network waits."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from nnunetlike.training.hooks.hints import WaitingHint, ZeroDiceHint
from nnunetlike.training.state import TrainState


@pytest.mark.parametrize(
    ("metrics", "hints"),
    [((0.0, 0.0, 0.0, 0.0), 1), ((0.0, math.nan, 0.0), 1), ((0.0, 0.1, 0.0), 0), ((0.0, 0.0), 0)],
)
def test_the_hint_comes_once_when_every_dice_was_zero_for_long(
    metrics: tuple[float, ...], hints: int, caplog: pytest.LogCaptureFixture
) -> None:
    hook = ZeroDiceHint(lambda: "look at the labels", epochs=3)
    loop: Any = SimpleNamespace(runtime=SimpleNamespace(is_main=True))
    state = TrainState()
    for metric in metrics:
        state = state.after_epoch(1.0, 1.0, metric, lr=0.01)
        hook.on_epoch_end(loop, state, None)  # type: ignore[arg-type]  # it needs no report
    assert len(caplog.messages) == hints
    if hints:
        assert caplog.messages[0].endswith("0 or n/a for 3 epochs: look at the labels")


@pytest.mark.parametrize(
    ("waits", "epoch"), [((9, 1, 3, 8), 2), ((9, 1, 2, 1), None), ((9,), None), ((0, 5), 1)]
)
def test_waiting_for_batches_is_told_once_and_not_of_the_first_epoch(
    waits: tuple[float, ...], epoch: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    hook = WaitingHint(lambda: "try more", share=0.2)
    loop: Any = SimpleNamespace(runtime=SimpleNamespace(is_main=True))
    for number, wait_s in enumerate(waits):
        report: Any = SimpleNamespace(epoch=number, wait_s=wait_s, total_s=10.0)
        hook.on_epoch_end(loop, TrainState(), report)
    said = [] if epoch is None else [
        f"epoch {epoch} waited for batches during {10 * waits[epoch]} % of its time: try more"
    ]  # fmt: skip
    assert caplog.messages == said


def test_only_the_main_process_tells_of_waiting(caplog: pytest.LogCaptureFixture) -> None:
    hook = WaitingHint(lambda: "try more")
    loop: Any = SimpleNamespace(runtime=SimpleNamespace(is_main=False))
    for number in range(3):
        report: Any = SimpleNamespace(epoch=number, wait_s=9.0, total_s=10.0)
        hook.on_epoch_end(loop, TrainState(), report)
    assert not caplog.messages
