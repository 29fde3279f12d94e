"""What training survives: signals, kills, damaged files, a full disk, NaN, lack of memory."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunetlike.data.store import CaseStore
from nnunetlike.networks.model_files import load_model_file
from nnunetlike.run import training_memory
from nnunetlike.run.run_training import main
from nnunetlike.training.hooks import EpochReport
from nnunetlike.training.hooks.checkpoints import Checkpoints
from nnunetlike.training.hooks.monitor import Monitor
from nnunetlike.training.loop import TrainLoop
from nnunetlike.training.runtime import SingleProcess
from nnunetlike.training.state import TrainState

TASK = "Task901_Tiny"
UNET, UNET_PLUS_PLUS = "nnUNetTrainerV2", "nnUNetPlusPlusTrainerV2"
TRAIN_ONLY = "--disable_validation_inference"
HANG_S = 300
FINAL, LATEST, BEST = "model_final_checkpoint.model", "model_latest.model", "model_best.model"


def words(
    *options: str, trainer: str = UNET, configuration: str = "2d", **changes: str
) -> list[str]:
    given = {
        "epochs": "4", "iterations": "3", "val_iterations": "2", "num_workers": "0",
        "device": "cpu", "seed": "7", **changes,
    }  # fmt: skip
    settings = [f"--{name}={value}" for name, value in given.items() if value]
    fixed = [configuration, trainer, TASK, "0", "--fp32", "--deterministic"]
    return [*fixed, *settings, *options]


def folder_of(home: Path, trainer: str = UNET, configuration: str = "2d") -> Path:
    model = home / "results" / "nnUNet" / configuration / TASK / f"{trainer}__nnUNetPlansv2.1"
    return model / "fold_0"


def content_of(folder: Path, name: str = FINAL) -> dict[str, Any]:
    return dict(load_model_file(folder / name).content)


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of what is not the same to the last bit in two checkpoints."""
    wrong = [
        key for key in ("epoch", "plot_stuff", "best_stuff", "moving_averages", "run", "faults")
        if one[key] != other[key]
    ]  # fmt: skip
    for name, value in one["state_dict"].items():
        if not torch.equal(value, other["state_dict"][name]):
            wrong.append(name)
    for number, state in one["optimizer_state_dict"]["state"].items():
        if not torch.equal(
            state["momentum_buffer"],
            other["optimizer_state_dict"]["state"][number]["momentum_buffer"],
        ):
            wrong.append(f"momentum {number}")
    return wrong


@pytest.fixture
def straight(tiny_task: Path) -> Callable[..., dict[str, Any]]:
    """Trains without a break and gives the final checkpoint, whose folder is then removed."""

    def run(**settings: str) -> dict[str, Any]:
        assert main(words(TRAIN_ONLY, **settings)) == 0
        folder = folder_of(
            tiny_task, settings.get("trainer", UNET), settings.get("configuration", "2d")
        )
        content = content_of(folder)
        shutil.rmtree(folder)
        return content

    return run


def signal_at(epoch: int, step: int, number: signal.Signals) -> Callable[..., None]:
    """Return a hook's method that sends this process a signal after a step."""

    def on_step_end(self: Monitor, loop: TrainLoop, state: TrainState, at: int, total: int) -> None:
        if (state.epoch, at) == (epoch, step):
            signal.raise_signal(number)

    return on_step_end


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trainer", "configuration", "epoch", "step", "saved"),
    [(UNET, "2d", 1, 4, 2), (UNET, "3d_fullres", 2, 1, 2), (UNET_PLUS_PLUS, "2d", 2, 0, 2)],
)
def test_two_halves_equal_the_whole_bit_for_bit(
    tiny_task: Path,
    straight: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    trainer: str,
    configuration: str,
    epoch: int,
    step: int,
    saved: int,
) -> None:
    settings = {"trainer": trainer, "configuration": configuration}
    whole = straight(**settings)
    with monkeypatch.context() as patched:
        patched.setattr(Monitor, "on_step_end", signal_at(epoch, step, signal.SIGTERM))
        assert main(words(TRAIN_ONLY, **settings)) == 5
    command = capsys.readouterr().err.splitlines()[-1].partition("Go on with: nnUNet_train ")[2]
    folder = folder_of(tiny_task, trainer, configuration)
    assert content_of(folder, LATEST)["epoch"] == saved  # one that is over is not left again
    assert main(command.split()) == 0
    assert differences(whole, content_of(folder)) == []
    assert not (folder / LATEST).exists()


@pytest.mark.slow
@pytest.mark.parametrize("trainer", [UNET, UNET_PLUS_PLUS])
def test_the_same_seed_gives_the_same_losses_for_any_number_of_workers(
    straight: Callable[..., dict[str, Any]], trainer: str
) -> None:
    found = [straight(trainer=trainer, num_workers=n, epochs="2") for n in ("0", "0", "1", "2")]
    assert [differences(found[0], other) for other in found[1:]] == [[], [], []]


def test_the_seed_of_the_first_half_is_taken_and_another_is_refused(
    tiny_task: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Monitor, "on_step_end", signal_at(0, 0, signal.SIGINT))
        assert main(words(TRAIN_ONLY)) == 5
    assert main(words("-c", TRAIN_ONLY, seed="8")) == 2
    assert "this training began with seed 7 and goes on with it" in capsys.readouterr().err
    assert main(words("-c", TRAIN_ONLY, seed="")) == 0
    assert content_of(folder_of(tiny_task))["run"]["seed"] == 7


# Runs nnUNet_train with every step slowed down, and every step saved from the third on.
SLOW = """
import sys, time
from nnunetlike.run.run_training import main
from nnunetlike.training.hooks.monitor import Monitor
Monitor.on_step_end = lambda *event: time.sleep(0.1)
sys.exit(main(sys.argv[1:]))
"""

KILLED_IN_SAVE = """
import io, os, signal, sys
import torch
from nnunetlike.run.run_training import main
from nnunetlike.training.hooks.checkpoints import Checkpoints
Checkpoints.__init__.__kwdefaults__["every_s"] = 0.0
whole, saves = torch.save, []

def save(content, stream):
    saves.append(content["epoch"])
    if len(saves) < 9:
        return whole(content, stream)
    buffer = io.BytesIO()
    whole(content, buffer)
    stream.write(buffer.getvalue()[:5000])
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)

torch.save = save
sys.exit(main(sys.argv[1:]))
"""


def environment() -> dict[str, str]:
    """As here, with as many threads: sums of floats depend on their number."""
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONUNBUFFERED": "1"}


@pytest.mark.slow
def test_sigterm_from_outside_saves_within_a_minute_and_nothing_is_lost(
    tiny_task: Path, straight: Callable[..., dict[str, Any]]
) -> None:
    whole = straight(num_workers="1")
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, *words(TRAIN_ONLY, num_workers="1")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            while "epoch    0/3" not in process.stdout.readline():
                assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 5
    assert "training was interrupted by SIGTERM in epoch 1 after" in err
    assert err.rstrip().endswith("-c")
    assert "Traceback" not in err
    assert main(words("-c", TRAIN_ONLY, num_workers="1")) == 0
    assert differences(whole, content_of(folder_of(tiny_task))) == []


@pytest.mark.slow
def test_sigkill_in_mid_save_leaves_the_checkpoint_before(
    tiny_task: Path, straight: Callable[..., dict[str, Any]]
) -> None:
    whole = straight()
    ended = subprocess.run(
        [sys.executable, "-c", KILLED_IN_SAVE, *words(TRAIN_ONLY)],
        capture_output=True, text=True, timeout=HANG_S, env=environment(), check=False,
    )  # fmt: skip
    assert ended.returncode == -signal.SIGKILL
    folder = folder_of(tiny_task)
    assert len(list(folder.glob(".tmp-*model_latest.model"))) == 1
    before = content_of(folder, LATEST)
    assert (before["epoch"], before["progress"]["train_steps"]) == (1, 3)
    assert main(words("-c", TRAIN_ONLY)) == 0
    assert differences(whole, content_of(folder)) == []
    assert not list(folder.glob(".tmp-*"))


def test_a_truncated_checkpoint_is_named_and_the_one_before_it_taken(
    tiny_task: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Monitor, "on_step_end", signal_at(1, 0, signal.SIGTERM))
        assert main(words(TRAIN_ONLY)) == 5
    folder = folder_of(tiny_task)
    (folder / BEST).unlink(missing_ok=True)
    latest = (folder / LATEST).read_bytes()
    (folder / LATEST).write_bytes(latest[: len(latest) // 2])
    assert main(words("-c", TRAIN_ONLY)) == 3
    assert "model_latest.model cannot be read as a checkpoint" in capsys.readouterr().err
    (folder / BEST).write_bytes(latest)
    assert main(words("-c", TRAIN_ONLY)) == 0
    assert "going on from model_best.model, after 1 epochs" in caplog.text


def test_a_file_called_stop_ends_cleanly_with_validation(
    tiny_task: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = folder_of(tiny_task)

    def stop(self: Monitor, loop: TrainLoop, state: TrainState, report: EpochReport) -> None:
        if report.epoch == 1:
            (folder / "STOP").touch()

    with monkeypatch.context() as patched:
        patched.setattr(Monitor, "on_epoch_end", stop)
        assert main(words()) == 0
    assert content_of(folder)["epoch"] == 2
    assert (folder / "validation_raw" / "summary.json").is_file()
    assert not (folder / "STOP").exists()
    assert "training ends after epoch 1" in caplog.text and "STOP was there" in caplog.text
    (log,) = folder.glob("training_log_*.txt")
    assert "STOP was there (removed now)" in log.read_text()
    assert main(words("-c", TRAIN_ONLY)) == 0
    assert content_of(folder)["epoch"] == 4


def test_early_stopping_says_why(tiny_task: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = {"epochs": "9", "iterations": "1", "val_iterations": "1", "lr": "1e-9"}
    assert main(words(TRAIN_ONLY, "--early-stopping=1", **settings)) == 0
    assert content_of(folder_of(tiny_task))["epoch"] < 9
    assert "early stopping: the moving average of the validation metric is" in caplog.text


def test_a_finished_training_is_only_validated_again(
    tiny_task: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(words(TRAIN_ONLY, epochs="2")) == 0
    folder = folder_of(tiny_task)
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.glob("m*")}
    assert main(words("-c", epochs="2")) == 0
    assert "training was finished after 2 epochs" in caplog.text
    assert (folder / "validation_raw" / "summary.json").is_file()
    assert before == {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in before}


def test_more_epochs_extend_a_finished_training_with_a_right_schedule(
    tiny_task: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(words(TRAIN_ONLY, epochs="2")) == 0
    assert main(words("-c", TRAIN_ONLY, epochs="8")) == 0
    lines = (folder_of(tiny_task) / "metrics.jsonl").read_text().splitlines()
    rates = [json.loads(line)["lr"] for line in lines]
    assert rates[2:] == pytest.approx([0.01 * (1 - e / 8) ** 0.9 for e in range(2, 8)])
    assert "training now lasts 8 epochs instead of 2" in caplog.text
    assert "0.007719 in epoch 2 instead of 0.000000" in caplog.text


@pytest.fixture
def poison(tiny_task: Path) -> Callable[..., None]:
    """Makes every voxel of the images of some cases NaN."""
    store = CaseStore(tiny_task / "preprocessed" / TASK / "nnUNetData_plans_v2.1_2D_stage0")

    def make(*cases: str) -> None:
        for case in cases:
            data = np.array(store.load(case))
            data[:-1] = np.nan
            store.write(case, data, store.record(case))

    return make


def test_nan_steps_are_skipped_and_their_cases_named_in_log_and_metrics(
    tiny_task: Path, poison: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    poison("c_0")
    assert main(words(TRAIN_ONLY, epochs="2", iterations="4")) == 0
    lines = (folder_of(tiny_task) / "metrics.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    skipped = [skip for event in events for skip in event["skipped"]]
    assert skipped
    assert all("c_0" in skip["cases"] for skip in skipped)
    assert all(event["train_loss"] is not None for event in events)
    assert "is not finite; the step is skipped. Its cases:" in caplog.text
    for value in content_of(folder_of(tiny_task))["state_dict"].values():
        assert bool(value.isfinite().all())


def test_nan_in_every_step_ends_with_the_finding(
    poison: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    poison("c_0", "c_1", "c_2", "c_3")
    assert main(words(TRAIN_ONLY, iterations="9")) == 3
    err = capsys.readouterr().err
    assert "not finite in 5 of 5 recent steps, with cases c_" in err
    assert "computing in fp32" in err


@pytest.fixture
def small_disk(tiny_task: Path) -> Iterator[Path]:
    """The results folder on a disk of 4 MiB, if this user may mount one."""
    results = tiny_task / "results"
    results.mkdir()
    mounted = shutil.which("mount") is not None and (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(results)],
            capture_output=True, timeout=60, check=False,
        ).returncode == 0
    )  # fmt: skip
    if not mounted:
        pytest.skip("this user may not mount a tmpfs")
    try:
        yield results
    finally:
        subprocess.run(["umount", str(results)], timeout=60, check=True)


def fill(folder: Path) -> None:
    """Take all the space there is."""
    with (folder / "filler").open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(4096))
        except OSError:
            return


def test_a_full_disk_in_a_save_leaves_the_checkpoint_before(
    tiny_task: Path,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    save = Checkpoints._save

    def save_until_full(self: Checkpoints, name: str, loop: TrainLoop, state: TrainState) -> None:
        if state.epoch == 2:
            fill(small_disk)
        save(self, LATEST, loop, state)

    monkeypatch.setattr(
        Checkpoints, "on_epoch_end", lambda s, loop, state, _: save_until_full(s, "", loop, state)
    )
    assert main(words(TRAIN_ONLY)) == 4
    err = capsys.readouterr().err
    folder = folder_of(tiny_task)
    assert f"the disk is full: {LATEST} needs" in err and f"{folder} has 0.0 MiB free" in err
    assert content_of(folder, LATEST)["epoch"] == 1
    (small_disk / "filler").unlink()
    monkeypatch.undo()


def test_logs_and_plots_that_cannot_be_written_are_told_and_training_goes_on(
    tiny_task: Path,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fill_and_keep(self: Checkpoints, loop: TrainLoop, state: TrainState, _: object) -> None:
        fill(small_disk)

    monkeypatch.setattr(Checkpoints, "on_epoch_end", fill_and_keep)
    monkeypatch.setattr(Checkpoints, "on_fit_end", lambda *_: (small_disk / "filler").unlink())
    assert main(words(TRAIN_ONLY)) == 0
    out, err = capsys.readouterr()
    assert "ProgressPlot cannot be written" in out + err
    assert "Traceback" not in err


def test_too_little_memory_ends_before_the_first_step(
    tiny_task: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training_memory, "free_memory", lambda device: 10_000)
    assert main(words(TRAIN_ONLY)) == 4
    err = capsys.readouterr().err
    assert "too little memory to train: about" in err
    assert "patch 16 x 16, batch 2, unet of" in err
    assert not (folder_of(tiny_task) / "metrics.jsonl").exists()
    assert main(words(TRAIN_ONLY, "--ignore_memory_estimate", epochs="1")) == 0


def test_memory_that_runs_out_in_a_step_is_explained(
    tiny_task: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def step(*_: object) -> bool:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(SingleProcess, "step", step)
    assert main(words(TRAIN_ONLY)) == 4
    err = capsys.readouterr().err
    assert "memory ran out on cpu (CUDA out of memory. Tried to allocate 2.00 GiB)" in err
    assert "--batch_size 1 would fit by the estimate" in err


def test_a_signal_in_validation_keeps_finished_cases_and_val_does_the_rest(
    tiny_task: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = folder_of(tiny_task)
    load = CaseStore.load
    validated: list[str] = []

    def load_and_signal(self: CaseStore, case: str, **settings: bool) -> Any:
        if (folder / "validation_raw").is_dir():
            validated.append(case)
        if len(validated) == 2:
            while not (folder / "validation_raw" / f"{validated[0]}.nii.gz").is_file():
                time.sleep(0.01)
            signal.raise_signal(signal.SIGTERM)
        return load(self, case, **settings)

    with monkeypatch.context() as patched:
        patched.setattr(CaseStore, "load", load_and_signal)
        assert main(words(epochs="1")) == 5
    err = capsys.readouterr().err
    assert f"finished cases stay in {folder / 'validation_raw'}. Go on with: nnUNet_train" in err
    assert err.rstrip().endswith("-val")
    done = folder / "validation_raw" / f"{validated[0]}.nii.gz"
    first = done.stat().st_mtime_ns
    assert main(words("-val")) == 0
    assert done.stat().st_mtime_ns == first
    assert (folder / "validation_raw" / "summary.json").is_file()
