"""The disk is looked at before work begins, and cleaned only where nobody works."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetlike.core import disk
from nnunetlike.core.in_use import using
from nnunetlike.core.resources import Space
from nnunetlike.run import clean, plan_and_preprocess, run_training

TASK = "Task702_Room"
TRAINING = (
    "--epochs=1", "--iterations=1", "--val_iterations=1", "--num_workers=0", "--seed=7",
    "--device=cpu", "--fp32", "--disable_validation_inference",
)  # fmt: skip


@pytest.fixture
def raw(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A raw task of two cases; returns the home."""
    monkeypatch.setenv("nnUNet_def_n_proc", "0")
    folder = home / "raw" / "nnUNet_raw_data" / TASK
    rng = np.random.default_rng(0)
    for case_id in ("a", "b"):
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
            {"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in "ab"
        ],
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return home


def plan(*options: str) -> int:
    return plan_and_preprocess.main(["-t", "702", "-tf", "1", "-tl", "1", *options])


def fill_disk(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(disk, "disk_space", lambda path: Space(2**40, free))


def test_planning_begins_nothing_on_a_disk_too_small_for_cropped_cases(
    raw: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_disk(monkeypatch, 100)
    assert plan() == 4
    said = capsys.readouterr().err
    assert f"error: {TASK}: cropping needs about" in said and "only 100 bytes free" in said
    assert not list((raw / "raw" / "nnUNet_cropped_data").rglob("*.npz"))


def test_planning_writes_no_case_on_a_disk_too_small_for_preprocessed_ones(
    raw: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan("-no_pp") == 0
    assert "preprocessed cases take about" in capsys.readouterr().out
    fill_disk(monkeypatch, 100)
    assert plan() == 4
    assert f"error: {TASK}: preprocessing needs about" in capsys.readouterr().err
    assert not list((raw / "preprocessed").rglob("*.npz"))


def test_training_unpacks_nothing_on_a_disk_too_small(
    tiny_task: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_disk(monkeypatch, 100)
    words = ["2d", "nnUNetTrainerV2", "901", "0", *TRAINING]
    assert run_training.main(words) == 4
    said = capsys.readouterr().err
    assert "error: unpacking 6 cases needs about" in said and "--use_compressed_data" in said
    assert not list((tiny_task / "preprocessed").rglob("*.npy"))
    assert run_training.main([*words, "--use_compressed_data"]) == 0


def test_validation_keeps_no_probabilities_on_a_disk_too_small(
    tiny_task: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["2d", "nnUNetTrainerV2", "901", "0", *TRAINING, "--use_compressed_data"]
    assert run_training.main(words) == 0
    fill_disk(monkeypatch, 100)
    validation = [word for word in words if word != "--disable_validation_inference"]
    assert run_training.main([*validation, "-val", "--npz"]) == 4
    said = capsys.readouterr().err
    assert "error: writing the probabilities of 2 cases needs about" in said
    assert "validate without --npz" in said
    assert not list((tiny_task / "results").rglob("validation_raw/*.nii.gz"))


def test_a_task_in_training_is_not_cleaned(
    tiny_task: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    statuses = []

    def train(fold: object, runtime: object) -> None:
        statuses.append(clean.main(["-t", "901", "-y"]))
        raise KeyboardInterrupt

    monkeypatch.setattr(run_training, "train", train)
    assert run_training.main(["2d", "nnUNetTrainerV2", "901", "0", *TRAINING]) == 5
    assert statuses == [2]
    assert "in use by a training" in capsys.readouterr().err
    assert clean.main(["-t", "901", "-y"]) == 0


def test_what_was_cleaned_is_made_again(raw: Path) -> None:
    assert plan("-pl2d", "None") == 0
    before = {path.name for path in (raw / "preprocessed").rglob("*.npz")}
    assert clean.main(["-t", "702", "-y", "--preprocessed", "--cropped"]) == 0
    assert not list((raw / "preprocessed").rglob("*.npz"))
    assert plan("-pl2d", "None") == 0
    assert {path.name for path in (raw / "preprocessed").rglob("*.npz")} == before


def test_planning_marks_the_task_as_in_use(raw: Path) -> None:
    (raw / "preprocessed" / TASK).mkdir(parents=True)
    with using(raw / "preprocessed" / TASK):
        assert plan("-no_pp") == 0  # several may work with it
