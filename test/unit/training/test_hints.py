"""A hint when nothing is learnt."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from nnunetlike.training.hooks.hints import ZeroDiceHint
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
