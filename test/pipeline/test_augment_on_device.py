"""nnUNet_train --augment_on device, here with a CPU as the device."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nnunetlike.networks.model_files import load_model_file
from nnunetlike.run.run_training import main
from nnunetlike.training.hooks.monitor import Monitor

OPTIONS = (
    "--iterations=3", "--val_iterations=1", "--seed=7", "--device=cpu", "--fp32",
    "--disable_validation_inference", "--augment_on=device",
)  # fmt: skip
UNET, TASK = "nnUNetTrainerV2", "Task901_Tiny"


def folder_of(home: Path, configuration: str) -> Path:
    model = home / "results" / "nnUNet" / configuration / TASK / f"{UNET}__nnUNetPlansv2.1"
    return model / "fold_0"


def losses(folder: Path, name: str = "model_final_checkpoint.model") -> Any:
    return load_model_file(folder / name).content["plot_stuff"]


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_losses_are_those_of_patches_that_workers_augment(
    tiny_task: Path, configuration: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the field of noise, which is left out here."""
    monkeypatch.setattr(
        "nnunetlike.training.augmentation.intensity.noise", lambda image, sd, rng: image
    )
    monkeypatch.setattr(
        "nnunetlike.training.device_augmentation.intensity.noise", lambda image, sd, seed: image
    )
    found = []
    for where in ("device", "cpu"):
        words = [configuration, UNET, "901", "0", *OPTIONS, "--epochs=1", "--num_workers=0"]
        assert main([*words, f"--augment_on={where}"]) == 0
        found.append(losses(folder_of(tiny_task, configuration)))
    (device_train, device_val, *_), (cpu_train, cpu_val, *_) = found
    assert device_train == pytest.approx(cpu_train, rel=1e-4)
    assert device_val == pytest.approx(cpu_val, rel=1e-4)


def test_debug_json_and_the_memory_line_know_where_patches_are_augmented(
    tiny_task: Path, caplog: pytest.LogCaptureFixture
) -> None:
    needed = {}
    for where in ("device", "cpu"):
        words = ["3d_fullres", UNET, "901", "0", *OPTIONS, "--epochs=1", "--num_workers=0"]
        with caplog.at_level(logging.INFO):
            assert main([*words, f"--augment_on={where}"]) == 0
        facts = json.loads((folder_of(tiny_task, "3d_fullres") / "debug.json").read_text())
        assert facts["augment_on"] == where
        needed[where] = facts["memory_estimate"]
    assert needed["device"] > needed["cpu"]


def test_a_training_that_was_interrupted_ends_like_one_that_was_not(
    tiny_task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["3d_fullres", UNET, "901", "0", *OPTIONS, "--epochs=2"]
    assert main([*words, "--num_workers=0"]) == 0
    folder = folder_of(tiny_task, "3d_fullres")
    whole = losses(folder)

    def interrupt(self: Monitor, loop: Any, state: Any, step: int, total: int) -> None:
        if (state.epoch, step) == (0, 1):
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(Monitor, "on_step_end", interrupt)
        assert main([*words, "--num_workers=0"]) == 5
    assert main([*words, "--num_workers=1", "-c"]) == 0
    assert losses(folder) == whole


@pytest.mark.parametrize("use", ["fps", "prof"])
def test_other_use_measures_it(
    tiny_task: Path, tmp_path: Path, use: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["3d_fullres", UNET, "901", "0", "--augment_on=device", "--device=cpu", "--fp32"]
    measured = [f"--other_use={use}", "--steps=1", "--warmup=1", f"--output={tmp_path / 'out'}"]
    assert main([*words, *measured, "--num_workers=0", "--seed=7"]) == 0
    assert "Task901_Tiny, fold 0: 1 step" in capsys.readouterr().out
    if use == "fps":
        assert json.loads((tmp_path / "out" / "fps.json").read_text())["augment_on"] == "device"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["3d_cascade_fullres", "nnUNetTrainerV2CascadeFullRes"], "what the low resolution"),
        (["video2d", "GDKVMTrainer"], "clips of videos"),
    ],
)
def test_what_the_device_cannot_augment_is_refused(
    tiny_task: Path, words: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "901", "0", *OPTIONS]) == 2
    error = capsys.readouterr().err
    assert f"--augment_on device cannot augment {what}" in error
    assert "--augment_on cpu" in error


@pytest.mark.slow
@pytest.mark.ddp
def test_several_processes_augment_each_its_own(tiny_task: Path) -> None:
    words = ["3d_fullres", UNET, "901", "0", *OPTIONS, "--epochs=1", "--num_workers=1"]
    command = [sys.executable, "-m", "nnunetlike.run.run_training", *words, "--nproc=2", "--dbs"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    assert (folder_of(tiny_task, "3d_fullres") / "model_final_checkpoint.model").is_file()
