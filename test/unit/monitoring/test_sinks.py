"""metrics.jsonl, the console's line, the training log and progress.png, each from events."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from nnunetlike.monitoring import SINKS
from nnunetlike.monitoring.console import Console, dice_text, duration, epoch_line
from nnunetlike.monitoring.jsonl import JsonLines, read_events
from nnunetlike.monitoring.plot import ProgressPlot
from nnunetlike.monitoring.training_log import TrainingLog

START = {
    "event": "start",
    "epoch": 0,
    "epochs": 10,
    "lr": 0.01,
    "history": {"train_loss": [], "val_loss": [], "metric": []},
}


def epoch(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "event": "epoch",
        "epoch": number,
        "epochs": 10,
        "train_loss": 0.98659,
        "val_loss": -0.25,
        "dice": [0.23594, None, 0.5],
        "metric": 0.36797,
        "lr": 0.01,
        "next_lr": 0.0053588673,
        "wait_s": 0.25,
        "compute_s": 61.5,
        "total_s": 61.75,
        "eta_s": 11325.0,
        **changes,
    }


def test_every_sink_takes_every_event(tmp_path: Path) -> None:
    saved = {"event": "saved", "file": "model_best.model", "scheduled": False, "seconds": 0.1}
    took = {"event": "epoch_took", "epoch": 0, "seconds": 2.0}
    step = {"event": "step", "epoch": 0, "step": 0, "total": 3}
    for name in SINKS.names():
        sink = SINKS.get(name)(tmp_path)
        for event in (START, step, epoch(0), saved, took, {"event": "unheard of"}):
            sink.write(event)
    assert {"metrics.jsonl", "progress.png"} <= {path.name for path in tmp_path.iterdir()}


def test_record_has_one_line_per_epoch_with_null_for_absent_classes(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path)
    for event in (START, epoch(0), epoch(1, val_loss=math.nan)):
        sink.write(event)
    first, second = (json.loads(line) for line in sink.path.read_text().splitlines())
    assert first["dice"] == [0.23594, None, 0.5]
    assert second["val_loss"] is None


def test_going_on_drops_the_epochs_that_are_repeated(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path)
    for event in (START, epoch(0), epoch(1), epoch(2)):
        sink.write(event)
    JsonLines(tmp_path).write({**START, "epoch": 1})
    assert [event["epoch"] for event in read_events(sink.path)] == [0]


def test_a_line_cut_off_by_a_kill_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 0}\n{"epoch": 1, "tra')
    assert read_events(path) == [{"epoch": 0}]


def test_console_line_says_it_all() -> None:
    assert epoch_line(epoch(3)) == (
        "epoch    3/9  loss train 0.9866 val -0.2500  Dice [0.2359, n/a, 0.5000]  lr 0.010000  "
        "wait 0.2 s compute 61.5 s (compute-bound)  ETA 3h 08m"
    )


def test_absent_class_is_called_so() -> None:
    assert dice_text([None]) == "[n/a]"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(12.3, "12s"), (200, "3m 20s"), (18420, "5h 07m"), (183600, "2d 03h"), (59.7, "1m 00s")],
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_bar_shows_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = {"event": "step", "epoch": 4, "step": 2, "total": 3}
    for setting, shown in (("1", True), ("0", False)):
        monkeypatch.setenv("nnunet_use_progress_bar", setting)
        console = Console(tmp_path)
        console.write(step)
        console.write(epoch(4))
        assert ("epoch 4" in capsys.readouterr().err) == shown


def test_best_checkpoints_do_not_fill_the_console(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "nnunetlike")
    saved = {"event": "saved", "scheduled": False, "seconds": 0.1}
    Console(tmp_path).write({**saved, "file": "model_best.model"})
    Console(tmp_path).write({**saved, "file": "model_latest.model"})
    assert caplog.messages == ["saved model_latest.model"]


def test_training_log_has_v1s_lines_in_v1s_order(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path)
    saved = {"event": "saved", "file": "model_latest.model", "scheduled": True, "seconds": 0.006}
    took = {"event": "epoch_took", "epoch": 0, "seconds": 24.053971}
    for event in (START, epoch(0), saved, took):
        log.write(event)
    stamp = len("2026-11-20 16:30:16.123456: ")
    lines = log.path.read_text().splitlines()
    assert lines[0] == "Starting... "
    assert [line[stamp:] if line[:2] == "20" else line for line in lines[1:]] == [
        "lr: 0.01 ",
        "",
        "epoch:  0 ",
        "train loss : 0.9866 ",
        "validation loss: -0.2500 ",
        "Average global foreground Dice: [0.2359, 0.5] ",
        "(interpret this as an estimate for the Dice of the different classes. "
        "This is not exact.) ",
        "lr: 0.005359 ",
        "saving scheduled checkpoint file... ",
        "saving checkpoint... ",
        "done, saving took 0.01 seconds ",
        "This epoch took 24.053971 s",
        "",
    ]


def test_progress_is_drawn_with_the_history_of_earlier_runs(tmp_path: Path) -> None:
    history = {"train_loss": [1.0, 0.8], "val_loss": [1.1, 0.9], "metric": [0.1, math.nan]}
    plot = ProgressPlot(tmp_path)
    plot.write({**START, "epoch": 2, "history": history})
    plot.write(epoch(2))
    assert plot._history["train_loss"] == [1.0, 0.8, 0.98659]
    picture = np.asarray(imread(tmp_path / "progress.png"))[..., :3]
    for colour in ([0, 0, 1], [1, 0, 0]):
        assert (np.abs(picture - colour).max(-1) < 0.1).any()
    assert not list(tmp_path.glob(".tmp*"))


def test_drawing_leaves_pyplot_alone(tmp_path: Path) -> None:
    import sys

    loaded = "matplotlib.pyplot" in sys.modules
    plot = ProgressPlot(tmp_path)
    plot.write(START)
    plot.write(epoch(0))
    assert ("matplotlib.pyplot" in sys.modules) == loaded
