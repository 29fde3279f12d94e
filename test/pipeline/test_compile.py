"""--compile: a training and a prediction by torch.compile, and what is said where there is none."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunetlike.networks.model_files import load_model_file
from nnunetlike.run import predict, run_training

WORDS = ["2d", "nnUNetTrainerV2", "901", "0", "--device=cpu", "--num_workers=0", "--seed=7"]
SHORT = ["--iterations=2", "--val_iterations=1", "--disable_postprocessing_on_folds"]
FOLD = "results/nnUNet/2d/Task901_Tiny/nnUNetTrainerV2__nnUNetPlansv2.1/fold_0"


@pytest.fixture
def compiles(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What torch.compile, here a compiler that changes nothing, was given."""
    given: list[object] = []

    def stand_in(forward: object, **_: object) -> object:
        given.append(forward)
        return forward

    monkeypatch.setattr(torch, "compile", stand_in)
    monkeypatch.setattr("shutil.which", lambda name: name)
    return given


def trained(*options: str) -> int:
    return run_training.main([*WORDS, *SHORT, *options])


def weights(home: Path) -> dict[str, torch.Tensor]:
    return dict(load_model_file(home / FOLD / "model_final_checkpoint.model").state_dict)


def test_a_compiled_training_stops_and_goes_on_and_gives_what_an_eager_one_gives(
    tiny_task: Path, compiles: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    options = ["--fp32", "--epochs=2", "--no_compile"]
    assert trained(*options) == 0
    eager = weights(tiny_task)
    summary = json.loads((tiny_task / FOLD / "validation_raw/summary.json").read_text())
    shutil.rmtree(tiny_task / "results")
    with caplog.at_level(logging.INFO):
        assert trained("--fp32", "--epochs=1", "--compile") == 0
        assert trained("--fp32", "--epochs=2", "--compile", "-c") == 0
    assert caplog.text.count("the network is compiled, which took") == len(compiles) == 2
    found = weights(tiny_task)
    assert list(found) == list(eager)
    for name, value in found.items():
        assert value.is_contiguous(), name
        assert torch.allclose(value, eager[name], atol=1e-3), name
    again = json.loads((tiny_task / FOLD / "validation_raw/summary.json").read_text())
    assert list(again["results"]["mean"]) == list(summary["results"]["mean"])


def test_figures_are_those_of_compiled_steps(
    tiny_task: Path, tmp_path: Path, compiles: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        measured = ["--other_use=fps", "--steps=2", "--warmup=0", f"--output={tmp_path}"]
        assert run_training.main([*WORDS, "--compile", *measured]) == 0
    assert "the network is compiled, which took" in caplog.text
    assert len(compiles) == 1


@pytest.mark.parametrize("precision", [[], ["--bf16"]])
def test_a_compiled_prediction_gives_the_labels_of_an_eager_one(
    tiny_task: Path, compiles: list[object], capsys: pytest.CaptureFixture[str],
    precision: list[str],
) -> None:  # fmt: skip
    assert trained("--fp32", "--epochs=1", "--disable_validation_inference") == 0
    for number in range(2):
        values = np.random.default_rng(number).normal(size=(4, 16, 16)).astype(np.float32)
        sitk.WriteImage(
            sitk.GetImageFromArray(values), str(tiny_task / f"images_{number}_0000.nii.gz")
        )
    labels = {}
    for options in ([], ["--compile"]):
        out = tiny_task / f"out{len(options)}"
        words = ["-i", str(tiny_task), "-o", str(out), "-t", "901", "-m", "2d", "--device=cpu"]
        processes = ["--num_threads_preprocessing=0", "--num_threads_nifti_save=0"]
        assert predict.main([*words, *processes, *precision, *options]) == 0
        files = sorted(out.glob("*.nii.gz"))
        assert len(files) == 2
        labels[len(options)] = np.stack(
            [sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in files]
        )
    assert len(compiles) == 1
    assert "; the network is compiled" in capsys.readouterr().out
    assert (labels[0] == labels[1]).mean() > (0.99 if not precision else 0.9)


def test_without_a_compiler_training_and_prediction_go_on_and_say_so(
    tiny_task: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("nnUNet_compile", "1")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with caplog.at_level(logging.INFO):
        assert trained("--fp32", "--epochs=1", "--disable_validation_inference") == 0
    reason = "there is no C++ compiler (no-such-compiler; set CXX to another)"
    assert f"the network is not compiled: {reason}" in caplog.text
    image = sitk.GetImageFromArray(np.ones((4, 16, 16), np.float32))
    sitk.WriteImage(image, str(tiny_task / "image_0000.nii.gz"))
    words = ["-i", str(tiny_task), "-o", str(tiny_task / "out"), "-t", "901", "-m", "2d"]
    processes = ["--num_threads_preprocessing=0", "--num_threads_nifti_save=0", "--device=cpu"]
    assert predict.main([*words, *processes]) == 0
    assert f"device: cpu (float32); the network is not compiled: {reason}" in (
        capsys.readouterr().out
    )
