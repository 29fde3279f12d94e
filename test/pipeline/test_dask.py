"""Planning, preprocessing and prediction on a Dask cluster give what this machine alone gives.

A worker dies in the middle of a case: what it loads first makes it kill itself, once per folder.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunetlike.networks.model_files import describe_network, save_model_file
from nnunetlike.networks.unet import UNetSpec
from nnunetlike.networks.v1_weights import state_dict_to_v1
from nnunetlike.plans.v1 import plans_to_v1
from nnunetlike.run.plan_and_preprocess import main as plan_and_preprocess
from nnunetlike.run.predict import main as predict

Start = Callable[..., tuple[str, subprocess.Popen[str]]]
TASK = "Task906_Dask"
CASES = ("a", "b", "c", "d", "e", "f")
PRELOAD = """
import importlib, sys
sys.path.insert(0, {folder!r})
importlib.import_module("traps_of_workers")  # Dask runs this file twice
"""
TRAPS = """
import os, signal
from pathlib import Path
from nnunetlike.data import store
from nnunetlike.inference import case_prediction, remote

FOLDER = Path(__file__).parent

def die_once(name):
    marker = FOLDER / f"died_{name}"
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)

def note(name):
    with (FOLDER / name).open("a") as stream:
        stream.write(f"{os.getpid()}\\n")

def write_or_die(self, case_id, data, record, write=store.CaseStore.write):
    if case_id == "b":
        die_once(f"{self.folder.name}_{case_id}")
    write(self, case_id, data, record)

def predict_or_die(*arguments, settle_case=case_prediction.settle_case):
    note("predicted")
    if len((FOLDER / "predicted").read_text().split()) == 3:
        die_once("prediction")
    return settle_case(*arguments)

def load_and_note(self, load=remote.ModelSource.load):
    note("loaded")
    return load(self)

store.CaseStore.write = write_or_die
case_prediction.settle_case = predict_or_die
remote.ModelSource.load = load_and_note
"""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def traps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that workers run first; what they note lies beside it."""
    path = tmp_path_factory.mktemp("traps") / "preload.py"
    path.write_text(PRELOAD.format(folder=str(path.parent)))
    path.with_name("traps_of_workers.py").write_text(TRAPS)
    return path


@pytest.fixture(scope="module")
def address(start_dask: Start, traps: Path) -> str:
    return start_dask(preload=traps)[0]


def write_image(voxels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((1.0, 1.0, 1.5))
    sitk.WriteImage(image, str(path))


def picture(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = np.zeros((10 + seed, 20, 18), np.uint8)
    label[2:6, 4:12, 4:9] = 1
    return (rng.normal(100, 5, label.shape) + 50 * label).astype(np.float32), label


@pytest.fixture
def raw(home: Path) -> Path:
    folder = home / "raw" / "nnUNet_raw_data" / TASK
    for seed, case in enumerate(CASES):
        image, label = picture(seed)
        write_image(image, folder / "imagesTr" / f"{case}_0000.nii.gz")
        write_image(label, folder / "labelsTr" / f"{case}.nii.gz")
    content = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "organ"},
        "training": [
            {"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"}
            for case in CASES
        ],
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def contents(folder: Path) -> dict[str, Any]:
    """Return what each file holds; of journals the lines, which a case made again has twice."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        name = str(path.relative_to(folder))
        found[name] = (
            set(content.splitlines())
            if path.suffix == ".jsonl"
            else hashlib.sha256(content).hexdigest()
        )
    return found


def test_planning_with_killed_workers_leaves_what_a_local_run_does(
    raw: Path, home: Path, address: str, traps: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert plan_and_preprocess(["-t", "906", "-tf", "0", "-tl", "0"]) == 0
    cropped = raw.parents[1] / "nnUNet_cropped_data" / TASK
    expected = contents(cropped), contents(home / "preprocessed")
    shutil.rmtree(cropped)
    shutil.rmtree(home / "preprocessed")
    assert plan_and_preprocess(
        ["-t", "906", "--verify_dataset_integrity", "--dask", address]
    ) == 0, capfd.readouterr().err  # fmt: skip
    assert (contents(cropped), contents(home / "preprocessed")) == expected
    deaths = {path.name for path in traps.parent.glob("died_*_b")}
    assert len(deaths) == 3, deaths  # cropping, 3D and 2D
    assert plan_and_preprocess(["-t", "906", "--dask", address]) == 0
    assert "6 of 6 cases are there and have not changed since" in capfd.readouterr().out


@pytest.fixture
def model(home: Path, tiny_plans: Callable[[int], Any]) -> Path:
    """A model of two folds that was never trained."""
    plans = tiny_plans(3)
    spec, task = UNetSpec.tiny(3)
    folder = home / "results" / "nnUNet" / "3d_fullres" / TASK / "nnUNetTrainerV2__nnUNetPlansv2.1"
    for fold in (0, 1):
        torch.manual_seed(fold)
        path = folder / f"fold_{fold}" / "model_final_checkpoint.model"
        path.parent.mkdir(parents=True)
        content = {"state_dict": state_dict_to_v1(spec.build(task)), "epoch": 1}
        info = {
            "plans": plans_to_v1(plans),
            "network": describe_network(spec, task),
            "init": [None] * 5 + [0],
        }
        save_model_file(path, content, info)
    return folder


def test_prediction_with_a_killed_worker_writes_what_a_local_run_does(
    model: Path, home: Path, address: str, traps: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for seed, case in enumerate(CASES):
        write_image(picture(seed)[0], home / "images" / f"{case}_0000.nii.gz")
    words = ["-i", str(home / "images"), "-t", TASK, "-z", "--device", "cpu"]
    local = ["--num_threads_preprocessing=0", "--num_threads_nifti_save=0"]
    assert predict([*words, "-o", str(home / "local"), *local]) == 0
    assert predict([*words, "-o", str(home / "dask"), "--dask", address]) == 0
    said = capfd.readouterr()
    assert "device: that of each Dask worker" in said.out
    assert f"6 predictions are in {home / 'dask'}" in said.out
    expected, found = contents(home / "local"), contents(home / "dask")
    for folder in (expected, found):
        del folder["prediction_time.txt"]
    assert found == expected
    assert (traps.parent / "died_prediction").exists()
    assert len((traps.parent / "predicted").read_text().split()) >= len(CASES) + 1
    loaded = (traps.parent / "loaded").read_text().split()
    assert len(loaded) == len(set(loaded)) <= 3  # once by each worker, the dead one's successor too


def test_a_case_that_fails_on_the_cluster_is_named_and_the_others_are_written(
    model: Path, home: Path, address: str, capfd: pytest.CaptureFixture[str]
) -> None:
    for seed, case in enumerate(CASES[:3]):
        write_image(picture(seed)[0], home / "images" / f"{case}_0000.nii.gz")
    broken = home / "images" / "b_0000.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-30])
    words = ["-i", str(home / "images"), "-o", str(home / "out"), "-t", TASK, "--device", "cpu"]
    assert predict([*words, "--dask", address]) == 3
    error = capfd.readouterr().err
    assert "error: 1 of 3 cases failed, the others are done:\n  b: " in error
    assert {path.name for path in (home / "out").glob("*.nii.gz")} == {"a.nii.gz", "c.nii.gz"}


def test_a_model_trained_anew_is_loaded_anew(
    model: Path, home: Path, address: str, tiny_plans: Callable[[int], Any]
) -> None:
    write_image(picture(0)[0], home / "images" / "a_0000.nii.gz")
    words = ["-i", str(home / "images"), "-t", TASK, "-f", "0", "-z", "--device", "cpu"]
    assert predict([*words, "-o", str(home / "first"), "--dask", address]) == 0
    shutil.copyfile(
        model / "fold_1" / "model_final_checkpoint.model",
        model / "fold_0" / "model_final_checkpoint.model",
    )
    assert predict([*words, "-o", str(home / "second"), "--dask", address]) == 0
    assert predict([*words, "-o", str(home / "local")]) == 0
    assert (home / "second/a.npz").read_bytes() == (home / "local/a.npz").read_bytes()
    assert (home / "second/a.npz").read_bytes() != (home / "first/a.npz").read_bytes()


@pytest.mark.parametrize("main", [plan_and_preprocess, predict])
def test_a_scheduler_that_is_not_there_ends_a_command_with_4(
    main: Callable[[list[str]], int],
    raw: Path,
    model: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("distributed")
    from nnunetlike.core import dask_cluster

    monkeypatch.setattr(dask_cluster.dask_cluster.__wrapped__, "__defaults__", (1.0,))  # type: ignore[attr-defined]
    words = {
        plan_and_preprocess: ["-t", "906"],
        predict: ["-i", str(raw / "imagesTr"), "-o", str(raw / "out"), "-t", TASK],
    }[main]  # type: ignore[index]
    assert main([*words, "--dask", "127.0.0.1:1"]) == 4
    error = capsys.readouterr().err
    assert "error: no Dask scheduler answered at 127.0.0.1:1 within 1 s. Start one with" in error
