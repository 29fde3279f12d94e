"""Reasons to stop: signals, the file STOP, no gain any more."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from nnunetlike.core.errors import InterruptedRunError
from nnunetlike.training import interruption
from nnunetlike.training.interruption import EarlyStopping, Signals, StopFile
from nnunetlike.training.state import TrainState


def _after(*metrics: float) -> TrainState:
    state = TrainState()
    for metric in metrics:
        state = state.after_epoch(1.0, 1.0, metric, lr=0.01)
    return state


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_reason_to_leave_and_does_not_break_the_step(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    signals = Signals()
    with signals.caught():
        assert signals.reason_to_leave() is None
        signal.raise_signal(number)
        assert signals.reason_to_leave() == number.name
    assert signal.getsignal(number) is before
    assert f"{number.name}: saving after this step" in capfd.readouterr().err


def _send(signals: Signals, *numbers: signal.Signals) -> None:
    with signals.caught():
        for number in numbers:
            signal.raise_signal(number)


def test_a_second_interrupt_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "AGAIN_S", -1.0)
    with pytest.raises(KeyboardInterrupt):
        _send(Signals(), signal.SIGINT, signal.SIGINT)


def test_an_interrupt_that_a_launcher_repeats_is_the_same_one() -> None:
    with pytest.raises(InterruptedRunError, match="SIGINT"):
        _send(Signals(), signal.SIGINT, signal.SIGINT)


def test_a_signal_after_the_last_step_is_not_forgotten() -> None:
    with pytest.raises(InterruptedRunError, match="SIGTERM after the last epoch"):
        _send(Signals(), signal.SIGTERM)


def test_the_file_stop_ends_training_and_is_removed(tmp_path: Path) -> None:
    hook = StopFile(tmp_path)
    assert hook.reason_to_end(TrainState()) is None
    (tmp_path / "STOP").touch()
    assert "STOP was there (removed now)" in (hook.reason_to_end(TrainState()) or "")
    assert not (tmp_path / "STOP").exists()


def test_early_stopping_counts_epochs_since_the_best_average_and_says_so() -> None:
    hook = EarlyStopping(2)
    assert hook.reason_to_end(_after(0.5, 0.6)) is None
    assert hook.reason_to_end(_after(0.5, 0.6, 0.1)) is None
    reason = hook.reason_to_end(_after(0.5, 0.6, 0.1, 0.1))
    assert reason is not None
    assert "has not risen above 0.5100, of epoch 1, for 2 epochs" in reason


def test_early_stopping_survives_a_checkpoint() -> None:
    state = _after(0.5, 0.6, 0.1, 0.1)
    again = TrainState.from_checkpoint(state.to_checkpoint())
    assert EarlyStopping(2).reason_to_end(again) == EarlyStopping(2).reason_to_end(state)
