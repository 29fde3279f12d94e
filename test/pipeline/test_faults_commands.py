"""Whole commands: workers that are spawned, a signal while predicting."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetlike.run.run_training import main as train

pytestmark = pytest.mark.slow
TASK = "Task901_Tiny"
HANG_S = 300
TRAINING = (
    "2d", "nnUNetTrainerV2", TASK, "0", "--epochs=1", "--iterations=2", "--val_iterations=1",
    "--device=cpu", "--fp32", "--seed=7",
)  # fmt: skip


def write_images(folder: Path, names: Sequence[str]) -> Path:
    folder.mkdir(parents=True)
    for seed, name in enumerate(names):
        voxels = np.random.default_rng(seed).normal(size=(8, 16, 16)).astype(np.float32)
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(folder / f"{name}_0000.nii.gz"))
    return folder


def predict_words(images: Path, output: Path) -> list[str]:
    where = ["-i", str(images), "-o", str(output), "-t", "901", "-m", "2d", "-f", "0"]
    return [
        *where,
        "--device",
        "cpu",
        "--num_threads_preprocessing=1",
        "--num_threads_nifti_save=1",
    ]


def command(module: str, words: Sequence[str], **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"nnunetlike.run.{module}", *words],
        env={**os.environ, **settings}, capture_output=True, text=True, timeout=HANG_S, check=False,
    )  # fmt: skip


# Reading of a third image says that it has begun, and takes long.
SLOW_THIRD = """
import sys, time, pathlib
from nnunetlike.inference import case_prediction, cases
case_prediction.available_cores = lambda: 2
prepare = cases.PrepareCase.__call__
def wait(self, case):
    if case.case_id == "c":
        pathlib.Path(sys.argv.pop(), "begun").touch()
        time.sleep(600)
    return prepare(self, case)
cases.PrepareCase.__call__ = wait
from nnunetlike.run.predict import main
sys.exit(main(sys.argv[1:-1]))
"""


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="what is replaced must be so in the workers")
def test_sigterm_ends_a_prediction_with_5_and_it_goes_on(tiny_task: Path) -> None:
    options = ("--num_workers=0", "--disable_validation_inference")
    assert train([*TRAINING, *options]) == 0
    images, output = write_images(tiny_task / "images", "abcd"), tiny_task / "predicted"
    words = predict_words(images, output)
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_THIRD, *words, str(tiny_task)],
        env={**os.environ, "nnUNet_start_method": "fork"}, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        end = time.monotonic() + HANG_S
        while not ((tiny_task / "begun").exists() and (output / "b.nii.gz").exists()):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 5, said
    assert said.strip().endswith("run the same command again to go on")
    assert "Traceback" not in said
    assert {path.name for path in output.glob("*.nii.gz")} == {"a.nii.gz", "b.nii.gz"}
    before = (output / "a.nii.gz").stat().st_mtime_ns
    done = command("predict", words)
    assert done.returncode == 0 and "2 of 4 cases are done already" in done.stdout, done.stderr
    assert len(list(output.glob("*.nii.gz"))) == 4
    assert (output / "a.nii.gz").stat().st_mtime_ns == before


def test_the_whole_pipeline_runs_with_workers_that_are_spawned(home: Path) -> None:
    raw = home / "raw" / "nnUNet_raw_data" / TASK
    write_images(raw / "imagesTr", ("a", "b"))
    (raw / "labelsTr").mkdir()
    for name in ("a", "b"):
        label = np.zeros((8, 16, 16), np.uint8)
        label[2:6, 4:12, 4:9] = 1
        sitk.WriteImage(sitk.GetImageFromArray(label), str(raw / "labelsTr" / f"{name}.nii.gz"))
    (raw / "dataset.json").write_text(
        '{"modality": {"0": "MR"}, "labels": {"0": "background", "1": "x"}, '
        '"training": ["./imagesTr/a.nii.gz", "./imagesTr/b.nii.gz"]}'
    )
    settings = {"nnUNet_start_method": "spawn", "nnUNet_def_n_proc": "2"}
    words = predict_words(raw / "imagesTr", home / "predicted")
    for module, options in (
        ("plan_and_preprocess", ["-t", "901", "-tf", "2", "-tl", "2", "-pl3d", "None"]),
        ("run_training", [*TRAINING, "--num_workers=1", "--disable_validation_inference"]),
        ("predict", words),
    ):
        done = command(module, options, **settings)
        assert done.returncode == 0, done.stderr
    assert len(list((home / "predicted").glob("*.nii.gz"))) == 2
