from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from nnunetlike.core.in_use import using
from nnunetlike.run.clean import main

TASK = "Task004_X"


@pytest.fixture
def task(home: Path) -> Path:
    """A task with a file of each kind, of 1000 bytes each; returns the home."""
    for name in (
        f"raw/nnUNet_raw_data/{TASK}/imagesTr/a_0000.nii.gz",
        f"raw/nnUNet_raw_data/{TASK}/x_stage0/a.npy",
        f"raw/nnUNet_cropped_data/{TASK}/a.npz",
        f"raw/nnUNet_cropped_data/{TASK}/a.pkl",
        f"raw/nnUNet_cropped_data/{TASK}/dataset.json",
        f"raw/nnUNet_cropped_data/{TASK}/gt_segmentations/a.nii.gz",
        f"raw/nnUNet_cropped_data/{TASK}/notes.txt",
        f"preprocessed/{TASK}/splits_final.pkl",
        f"preprocessed/{TASK}/nnUNetPlansv2.1_plans_3D.pkl",
        f"preprocessed/{TASK}/gt_segmentations/a.nii.gz",
        f"preprocessed/{TASK}/nnUNetData_plans_v2.1_stage0/a.npz",
        f"preprocessed/{TASK}/nnUNetData_plans_v2.1_stage0/a.npy",
        f"preprocessed/{TASK}/nnUNetData_plans_v2.1_stage0/a.pkl",
        f"preprocessed/{TASK}/nnUNetData_plans_v2.1_stage0/lone.npy",
        f"preprocessed/{TASK}/nnUNetData_plans_v2.1_stage0/.tmp-12-b.npz",
        f"results/nnUNet/3d_fullres/{TASK}/T__P/fold_0/validation_raw/a.npz",
    ):
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1000)
    return home


def files(home: Path) -> set[str]:
    return {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}


STAGE = f"preprocessed/{TASK}/nnUNetData_plans_v2.1_stage0"
CROPPED = f"raw/nnUNet_cropped_data/{TASK}"


@pytest.mark.parametrize("options", [[], ["--unpacked"]])
def test_unpacked_arrays_go_unless_they_cannot_be_made_again(
    task: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(task)
    assert main(["-t", "4", "-y", *options]) == 0
    assert before - files(task) == {f"{STAGE}/a.npy"}
    assert "1000 bytes freed" in capsys.readouterr().out


def test_cropped_cases_go_when_asked_and_what_is_not_ours_stays(task: Path) -> None:
    before = files(task)
    assert main(["-t", TASK, "-y", "--cropped"]) == 0
    assert before - files(task) == {
        f"{CROPPED}/{name}"
        for name in ("a.npz", "a.pkl", "dataset.json", "gt_segmentations/a.nii.gz")
    }
    assert not (task / CROPPED / "gt_segmentations").exists()


def test_preprocessed_cases_go_when_asked_and_plans_and_splits_stay(task: Path) -> None:
    before = files(task)
    assert main(["-t", TASK, "-y", "--preprocessed"]) == 0
    assert before - files(task) == {f"{STAGE}/{n}" for n in ("a.npz", "a.npy", "a.pkl", "lone.npy")}


def test_everything_asked_at_once_leaves_raw_data_and_results(task: Path) -> None:
    before = files(task)
    assert main(["-t", TASK, "-y", "--preprocessed", "--cropped", "--unpacked"]) == 0
    gone = before - files(task)
    assert len(gone) == 8
    assert not any("nnUNet_raw_data" in name or name.startswith("results") for name in gone)


def test_a_dry_run_removes_nothing_and_tells_the_bytes(
    task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(task)
    assert main(["-t", "4", "--dry-run", "--cropped"]) == 0
    assert files(task) == before
    out = capsys.readouterr().out
    assert "4 files, 3.9 KiB. Planning makes them again" in out
    assert "3.9 KiB could be freed; nothing was removed" in out


def test_half_written_files_go_once_they_are_old(task: Path) -> None:
    old = time.time() - 7200
    os.utime(task / STAGE / ".tmp-12-b.npz", (old, old))
    before = files(task)
    assert main(["-t", "4", "-y"]) == 0
    assert before - files(task) == {f"{STAGE}/a.npy", f"{STAGE}/.tmp-12-b.npz"}


def test_nothing_goes_while_a_command_works_with_the_task(
    task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(task)
    with using(task / "preprocessed" / TASK):
        assert main(["-t", "4", "-y"]) == 2
    assert files(task) == before
    assert "in use by a training" in capsys.readouterr().err


def test_without_a_person_to_ask_minus_y_is_needed(
    task: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert main(["-t", "4"]) == 2
    assert "give -y to remove 1000 bytes" in capsys.readouterr().err


@pytest.mark.parametrize(("answer", "removed"), [("y", 1), ("", 0), ("n", 0)])
def test_a_person_is_asked(
    task: Path, monkeypatch: pytest.MonkeyPatch, answer: str, removed: int
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda prompt: answer)
    before = files(task)
    assert main(["-t", "4"]) == 0
    assert len(before - files(task)) == removed


def test_an_empty_task_has_nothing_to_free(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-t", TASK]) == 0
    assert "0 bytes could be freed" in capsys.readouterr().out
