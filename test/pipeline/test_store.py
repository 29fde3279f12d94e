"""nnUNet_plan_and_preprocess --store, and what trains, validates and draws from each form."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetlike.core.resources import Space
from nnunetlike.data.store import FORMS, SUFFIXES, CaseStore, Form
from nnunetlike.experiment_planning import store_choice
from nnunetlike.run import clean, plan_and_preprocess, plot_task_pngs, run_training

TASK = "Task703_Forms"
CASES = ("a", "b")
TRAINING = (
    "3d_fullres", "nnUNetTrainerV2", "703", "all", "--epochs=1", "--iterations=2",
    "--val_iterations=1", "--seed=7", "--device=cpu", "--fp32", "--base_num_features=4",
)  # fmt: skip


@pytest.fixture
def raw(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A raw task of two cases; returns the home."""
    monkeypatch.setenv("nnUNet_def_n_proc", "0")
    folder = home / "raw" / "nnUNet_raw_data" / TASK
    rng = np.random.default_rng(0)
    for case_id in CASES:
        label = np.zeros((12, 20, 24), np.uint8)
        label[3:7, 6:14, 5:15] = 1
        image = (rng.normal(40, 10, label.shape) + 100 * label).astype(np.int16)
        for voxels, path in (
            (image, folder / "imagesTr" / f"{case_id}_0000.nii.gz"),
            (label, folder / "labelsTr" / f"{case_id}.nii.gz"),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
    content = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "x"},
        "training": [
            {"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in CASES
        ],
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return home


def plan(*options: str, processes: int = 0) -> int:
    count = str(processes)
    return plan_and_preprocess.main(
        ["-t", "703", "-tf", count, "-tl", count, "-pl2d", "None", *options]
    )


def stage(home: Path) -> CaseStore:
    return CaseStore(home / "preprocessed" / TASK / "nnUNetData_plans_v2.1_stage0")


def suffixes(home: Path) -> set[str]:
    return {path.suffix for path in stage(home).folder.iterdir()}


def losses(home: Path) -> list[float]:
    folder = home / "results/nnUNet/3d_fullres" / TASK / "nnUNetTrainerV2__nnUNetPlansv2.1/all"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [value for line in lines for key, value in sorted(line.items()) if "loss" in key]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what disk and memory the choice of a form sees."""

    def pretend(disk: int = 2**40, memory: int = 2**40) -> None:
        monkeypatch.setattr(
            plan_and_preprocess, "disk_space", lambda path: Space(2**41, disk), raising=True
        )
        monkeypatch.setattr("nnunetlike.core.disk.disk_space", lambda path: Space(2**41, disk))
        monkeypatch.setattr(plan_and_preprocess, "total_memory", lambda: memory)

    return pretend


@pytest.mark.slow
def test_training_and_validation_are_the_same_from_every_exact_form(raw: Path) -> None:
    pytest.importorskip("blosc2")
    found: dict[str, Any] = {}
    for form in FORMS:
        assert plan("--store", form) == 0
        assert stage(raw).case_ids() == list(CASES)
        workers = "--num_workers=2" if form == "blosc2" else "--num_workers=0"
        assert run_training.main([*TRAINING, workers]) == 0
        (summary,) = (raw / "results").rglob("validation_raw/summary.json")
        found[form] = (losses(raw), json.loads(summary.read_text())["results"])
    assert len(found["npz"][0]) > 1
    assert found["npy"] == found["npz"]
    assert found["blosc2"] == found["npz"]
    np.testing.assert_allclose(found["fp16"][0], found["npz"][0], rtol=1e-2)


@pytest.fixture
def no_longer_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the tiny task for more than is packed as v1 does."""
    monkeypatch.setattr(store_choice, "LITTLE", 0)


def test_little_data_are_stored_as_v1_does(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan() == 0
    said = capsys.readouterr().out
    assert "stored as npz (as nnU-Net v1 has them, since all are 90.0 KiB)" in said
    assert suffixes(raw) == {".npz", ".pkl"}


@pytest.mark.usefixtures("no_longer_little")
def test_the_default_is_mapped_arrays_and_needs_no_unpacking(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan() == 0
    said = capsys.readouterr().out
    assert "stored as npy (uncompressed, since the 90.0 KiB of the largest stage stay in" in said
    assert suffixes(raw) == {".npy", ".pkl"}
    assert run_training.main([*TRAINING, "--num_workers=0", "--disable_validation_inference"]) == 0
    assert suffixes(raw) == {".npy", ".pkl"}


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"memory": 2**16}, "since uncompressed the 90.0 KiB of the largest stage would not stay"),
        ({"disk": 80_000}, "since uncompressed they would take 90.0 KiB"),
    ],
)
def test_little_memory_or_disk_asks_for_bricks(
    raw: Path,
    machine: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    limits: dict[str, int],
    reason: str,
) -> None:
    pytest.importorskip("blosc2")
    assert plan("-no_pp") == 0  # cropping takes its own room
    machine(**limits)
    assert plan() == 0
    assert f"stored as blosc2 (compressed, {reason}" in capsys.readouterr().out
    assert suffixes(raw) == {".b2nd", ".pkl"}


def test_a_disk_too_small_ends_with_4_and_the_forms_that_fit(
    raw: Path, machine: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan("-no_pp") == 0
    machine(disk=80_000)
    assert plan("--store", "npy") == 4
    said = capsys.readouterr().err
    assert f"error: {TASK}: preprocessing needs about 90.0 KiB, but the disk of" in said
    assert "78.1 KiB free" in said and "--store blosc2" in said
    assert "--store fp16 (45.0 KiB, rounds images)" in said
    machine(disk=100)
    assert plan() == 4
    assert "or plan fewer configurations (-pl2d None, -pl3d None)" in capsys.readouterr().err
    assert not stage(raw).folder.exists()


def test_npz_that_cannot_be_unpacked_is_warned_of(
    raw: Path, machine: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan("-no_pp") == 0
    machine(disk=80_000)
    assert plan("--store", "npz") == 0
    assert "warning: training cannot unpack all of them" in capsys.readouterr().out


@pytest.mark.usefixtures("no_longer_little")
def test_a_form_that_was_chosen_stays_until_another_is_asked_for(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forms: list[Form] = ["npz", "npy", "fp16"]
    for form in forms:
        assert plan("--store", form) == 0
        assert suffixes(raw) == {SUFFIXES[form], ".pkl"}
    said = capsys.readouterr().out
    assert "made again, since it is stored as npz, not npy: a, b" in said
    assert "made again, since it is stored as npy, not fp16: a, b" in said
    assert plan() == 0  # nothing rounds that is not asked for
    assert "made again, since it is stored as fp16, not npy: a, b" in capsys.readouterr().out
    assert plan("--store", "npz") == 0
    capsys.readouterr()
    assert plan() == 0
    said = capsys.readouterr().out
    assert "stored as npz (as the cases that are there)" in said
    assert "2 of 2 cases are there and have not changed since" in said


@pytest.mark.usefixtures("no_longer_little")
def test_a_folder_of_mixed_forms_is_trained_from_and_then_made_one(raw: Path) -> None:
    assert plan("--store", "npz") == 0
    store = stage(raw)
    data, record = store.load("a"), store.record("a")
    CaseStore(store.folder, "npy").write("a", data, record)
    assert run_training.main([*TRAINING, "--num_workers=0", "--disable_validation_inference"]) == 0
    assert {path.name for path in store.folder.iterdir() if path.suffix != ".pkl"} == {
        "a.npy", "b.npz", "b.npy",
    }  # fmt: skip
    assert clean.main(["-t", "703", "-y"]) == 0  # what cannot be unpacked again stays
    assert {path.name for path in store.folder.iterdir() if path.suffix != ".pkl"} == {
        "a.npy", "b.npz",
    }  # fmt: skip
    assert plan() == 0
    assert suffixes(raw) == {".npy", ".pkl"}


@pytest.mark.slow
def test_workers_write_bricks_and_pictures_are_drawn_from_them(raw: Path) -> None:
    pytest.importorskip("blosc2")
    assert plan("--store", "blosc2", processes=2) == 0
    pictures = raw / "pictures"
    assert plot_task_pngs.main(["-t", "703", "-o", str(pictures), "-num_processes", "0"]) == 0
    assert {path.name for path in pictures.iterdir()} == {"a.png", "b.png"}
    assert clean.main(["-t", "703", "-y", "--preprocessed"]) == 0
    assert not stage(raw).folder.exists()


def test_a_damaged_brick_file_ends_training_with_3_and_its_name(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("blosc2")
    assert plan("--store", "blosc2") == 0
    for case in CASES:
        path = stage(raw).folder / f"{case}.b2nd"
        path.write_bytes(path.read_bytes()[:-100])
    assert run_training.main([*TRAINING, "--num_workers=0"]) == 3
    assert ".b2nd cannot be read" in capsys.readouterr().err


def test_bricks_are_refused_at_once_without_blosc2(
    raw: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "blosc2", None)
    assert plan("--store", "blosc2") == 2
    said = capsys.readouterr().err
    assert "--store blosc2 needs blosc2" in said and 'pip install "nnunetlike[blosc2]"' in said
    assert not list((raw / "raw").rglob("*.npz"))
