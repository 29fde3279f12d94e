"""nnUNet_export_onnx: files that compute what the network does, or no files."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunetlike.core.serialization import save_json
from nnunetlike.inference.model_bundle import load_bundle
from nnunetlike.networks.portable import load_network
from nnunetlike.run import export_onnx
from nnunetlike.run.export_onnx import main
from nnunetlike.run.run_training import main as train

TASK = "Task901_Tiny"
OPTIONS = (
    "--epochs=1", "--iterations=2", "--val_iterations=1", "--num_workers=0", "--seed=7",
    "--device=cpu", "--fp32", "--disable_validation_inference",
)  # fmt: skip


@pytest.fixture
def trained(tiny_task: Path) -> Path:
    """A home with a trained 2D U-Net and the names of its labels."""
    content = {
        "modality": {"0": "MR"},
        "labels": {"0": "background", "1": "core", "2": "rim"},
        "training": [],
    }
    save_json(content, tiny_task / "preprocessed" / TASK / "dataset.json")
    assert train(["2d", "nnUNetTrainerV2", TASK, "0", *OPTIONS]) == 0
    return tiny_task


def _export(home: Path, *options: str) -> int:
    return main(["-t", TASK, "-m", "2d", "-o", str(home / "out"), *options])


def test_onnx_computes_what_the_network_does_and_says_how_well(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    onnxruntime: Any = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    assert _export(trained) == 0
    out = capsys.readouterr().out
    assert "fold_0.onnx: probabilities differ by at most" in out
    assert "on the middle of c_0" in out
    assert {p.name for p in (trained / "out").iterdir()} == {"fold_0.onnx", "onnx.json"}
    said = json.loads((trained / "out" / "onnx.json").read_text())
    (file,) = said["files"]
    path = trained / "out" / file["file"]
    assert file["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    for parity in (file["parity"]["random_patches"], file["parity"]["real_patch"]):
        assert parity["largest_difference_of_probabilities"] <= parity["tolerance"]
        assert parity["share_of_equal_labels"] > 0.999
    assert file["parity"]["real_patch"]["case"] == "c_0"

    bundle = load_bundle(trained / "results/nnUNet/2d" / TASK / "nnUNetTrainerV2__nnUNetPlansv2.1")
    network = next(iter(bundle.networks(torch.device("cpu"))))
    shape = (5, *said["input"]["shape"][1:])
    patches = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (theirs,) = session.run([said["output"]["name"]], {said["input"]["name"]: patches})
    with torch.no_grad():
        ours = network(torch.from_numpy(patches)).numpy()
    assert theirs.shape == (5, *said["output"]["shape"][1:])
    assert np.allclose(ours, theirs, atol=1e-4)


def test_torchscript_needs_no_further_package(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    assert _export(trained) == 2
    assert 'pip install "nnunetlike[onnx]"' in capsys.readouterr().err
    assert not (trained / "out").exists()
    assert _export(trained, "--torchscript") == 0
    assert {p.name for p in (trained / "out").iterdir()} == {"fold_0.pt", "torchscript.json"}
    patches = np.zeros((3, 1, 16, 16), np.float32)
    assert load_network(trained / "out" / "fold_0.pt", "torchscript")(patches).shape == (
        3,
        3,
        16,
        16,
    )


def test_the_description_tells_a_runtime_what_it_needs(trained: Path) -> None:
    assert _export(trained, "--torchscript") == 0
    said = json.loads((trained / "out" / "torchscript.json").read_text())
    assert said["input"]["shape"] == ["any", 1, 16, 16]
    assert said["output"]["axes"] == ["batch", "label", "height", "width"]
    assert said["labels"] == [
        {"index": 0, "value": 0, "name": "background"},
        {"index": 1, "value": 1, "name": "core"},
        {"index": 2, "value": 2, "name": "rim"},
    ]
    before = said["preprocessing"]
    assert before["spacing_mm"] == [None, 1.0, 1.0]  # slices are seen one by one
    assert before["steps"] == ["crop", "transpose", "resample", "normalise"]
    (channel,) = before["channels"]
    assert (channel["name"], channel["normalisation"]["subtract"]) == ("MR", "mean")
    assert said["prediction"]["mirror_axes"] == [0, 1]
    assert said["prediction"]["window_weights"]["sigma"] == [2.0, 2.0]
    assert (said["task"], said["configuration"]) == (TASK, "2d")


def test_a_network_that_computes_something_else_is_an_error_and_not_written(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(path: Path, kind: Any) -> Any:
        right = load_network(path, kind)
        return lambda patches: right(patches) * 1.01

    monkeypatch.setattr(export_onnx, "load_network", wrong)
    assert _export(trained, "--torchscript") == 3
    assert "fold_0.pt: on 3 random patches the exported network differs" in capsys.readouterr().err
    assert list((trained / "out").iterdir()) == []


def test_without_a_preprocessed_case_random_patches_are_compared(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(trained / "preprocessed" / TASK)
    assert _export(trained, "--torchscript") == 0
    assert "random patches alone are compared" in capsys.readouterr().out
    said = json.loads((trained / "out" / "torchscript.json").read_text())
    assert said["files"][0]["parity"]["real_patch"] is None
    assert [label["name"] for label in said["labels"]] == ["background", "core", "rim"]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["nnUNetTrainerV2__nnUNetPlans_tiny",
                                   "nnUNetPlusPlusTrainerV2__nnUNetPlans_upp"])  # fmt: skip
def test_models_of_v1_become_onnx(golden: Path, home: Path, model: str) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    shutil.copytree(golden / "model" / "RESULTS_FOLDER", home / "results")
    trainer, _, plans = model.partition("__")
    assert main(["-t", "Task071_CTISO", "-tr", trainer, "-p", plans, "-o", str(home / "out")]) == 0
    said = json.loads((home / "out" / "onnx.json").read_text())
    assert said["files"][0]["parity"]["random_patches"]["share_of_equal_labels"] > 0.999
    (channel,) = said["preprocessing"]["channels"]
    assert channel["normalisation"]["scheme"] == "CT"
    assert len(channel["normalisation"]["clip"]) == 2
    assert channel["normalisation"]["divide_by"] > 0
