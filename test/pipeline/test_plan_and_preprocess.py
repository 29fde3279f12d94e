"""nnUNet_plan_and_preprocess as a user runs it, on tiny CT volumes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetlike.core.serialization import load_pickle
from nnunetlike.data.splits import load_splits
from nnunetlike.data.store import CaseStore
from nnunetlike.plans.v1 import load_plans
from nnunetlike.run.plan_and_preprocess import main

TASK = "Task501_Ball"


def write_volume(voxels: np.ndarray, path: Path) -> None:
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((1.0, 1.0, 2.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def write_case(folder: Path, case_id: str, seed: int, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(40, 10, shape)
    label = np.zeros(shape, np.uint8)
    label[3:7, 6:14, 5:15] = 1
    image[label == 1] += 100
    write_volume(image.astype(np.int16), folder / "imagesTr" / f"{case_id}_0000.nii.gz")
    write_volume(label, folder / "labelsTr" / f"{case_id}.nii.gz")


def write_dataset(folder: Path, case_ids: list[str]) -> None:
    content = {
        "name": "Ball",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "ball"},
        "numTraining": len(case_ids),
        "numTest": 0,
        "training": [
            {"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in case_ids
        ],
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(content))


@pytest.fixture
def make_task(home: Path) -> Callable[[int], Path]:
    """Write a raw task of so many cases and return its folder."""

    def make(cases: int) -> Path:
        folder = home / "raw" / "nnUNet_raw_data" / TASK
        ids = [f"ball_{i}" for i in range(cases)]
        for i, case_id in enumerate(ids):
            write_case(folder, case_id, i, (12, 20 + i, 24))
        write_dataset(folder, ids)
        return folder

    return make


def run(*options: str) -> int:
    return main(["-t", "501", "-tf", "1", "-tl", "1", *options])


def test_a_task_becomes_plans_splits_and_cases(
    home: Path, make_task: Callable[[int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    make_task(5)
    assert run("--verify_dataset_integrity") == 0
    folder = home / "preprocessed" / TASK
    for name in (
        "dataset.json",
        "dataset_properties.pkl",
        "dataset_properties.json",
        "splits_final.json",
        "nnUNetPlansv2.1_plans_3D.json",
        "gt_segmentations/ball_4.nii.gz",
    ):
        assert (folder / name).is_file(), name
    assert len(load_splits(folder / "splits_final.pkl")) == 5
    for suffix, data in (("3D", "nnUNetData_plans_v2.1"), ("2D", "nnUNetData_plans_v2.1_2D")):
        plans = load_plans(folder / f"nnUNetPlansv2.1_plans_{suffix}.pkl")
        assert plans.preprocessed_folder == str(folder)
        assert all(Path(path).is_file() for path in plans.case_files)
        store = CaseStore(folder / f"{data}_stage0")
        assert store.case_ids() == [f"ball_{i}" for i in range(5)]
        assert store.load("ball_0").shape == (2, 12, 20, 24)
        assert abs(store.load("ball_0")[0].mean()) > 1  # normalised with the ball's intensities
    said = capsys.readouterr().out
    for part in (
        "cases           5",
        "0 CT",
        "2 x 1 x 1 mm",
        "patch size",
        "U-Net",
        "UNet++",
        "are free",
    ):
        assert part in said, part


def test_one_case_is_planned_for_fold_all(
    home: Path, make_task: Callable[[int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    make_task(1)
    assert run("-no_pp") == 0
    assert "train with fold 'all'" in capsys.readouterr().out
    folder = home / "preprocessed" / TASK
    assert not (folder / "splits_final.pkl").exists()
    assert not (folder / "nnUNetData_plans_v2.1_stage0").exists()
    assert (folder / "nnUNetPlansv2.1_plans_2D.pkl").is_file()


def test_several_tasks_are_planned_in_one_command(
    home: Path, make_task: Callable[[int], Path]
) -> None:
    raw = make_task(2)
    shutil.copytree(raw, raw.parent / "Task502_Copy")
    assert main(["-t", "501", "Task502_Copy", "-tf", "2", "-pl2d", "None"]) == 0
    for task in (TASK, "Task502_Copy"):
        store = CaseStore(home / "preprocessed" / task / "nnUNetData_plans_v2.1_stage0")
        assert store.case_ids() == ["ball_0", "ball_1"]


def test_none_skips_a_planner(home: Path, make_task: Callable[[int], Path]) -> None:
    make_task(2)
    assert run("-pl3d", "None", "-pl2d", "ExperimentPlanner2D_v21", "-no_pp") == 0
    files = {path.name for path in (home / "preprocessed" / TASK).glob("*plans*.pkl")}
    assert files == {"nnUNetPlansv2.1_plans_2D.pkl"}


def test_a_changed_image_is_cropped_again_and_others_are_not(
    home: Path, make_task: Callable[[int], Path]
) -> None:
    raw = make_task(2)
    assert run("-no_pp") == 0
    cropped = home / "raw" / "nnUNet_cropped_data" / TASK
    before = [(cropped / f"ball_{i}.npz").stat().st_mtime_ns for i in range(2)]
    write_case(raw, "ball_0", 77, (14, 20, 24))
    assert run("-no_pp") == 0
    after = [(cropped / f"ball_{i}.npz").stat().st_mtime_ns for i in range(2)]
    assert after[0] > before[0] and after[1] == before[1]
    found = load_pickle(home / "preprocessed" / TASK / "dataset_properties.pkl")
    assert found["all_sizes"] == [(14, 20, 24), (12, 21, 24)]


def test_an_old_file_put_in_place_of_an_image_is_noticed(
    home: Path, make_task: Callable[[int], Path]
) -> None:
    raw = make_task(1)
    assert run("-no_pp") == 0
    write_case(home, "ball_0", 3, (16, 20, 24))
    for part in ("imagesTr/ball_0_0000.nii.gz", "labelsTr/ball_0.nii.gz"):
        os.utime(home / part, (1, 1))
        (home / part).replace(raw / part)
    assert run("-no_pp") == 0
    found = load_pickle(home / "preprocessed" / TASK / "dataset_properties.pkl")
    assert found["all_sizes"] == [(16, 20, 24)]


def test_a_case_taken_out_of_dataset_json_leaves_no_trace(
    home: Path, make_task: Callable[[int], Path]
) -> None:
    raw = make_task(3)
    assert run("-pl2d", "None") == 0
    write_dataset(raw, ["ball_0", "ball_2"])
    assert run("-pl2d", "None") == 0
    folder = home / "preprocessed" / TASK
    assert CaseStore(folder / "nnUNetData_plans_v2.1_stage0").case_ids() == ["ball_0", "ball_2"]
    labels = {path.name for path in (folder / "gt_segmentations").iterdir()}
    assert labels == {"ball_0.nii.gz", "ball_2.nii.gz"}


def test_splits_of_the_user_are_kept(
    home: Path, make_task: Callable[[int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    raw = make_task(6)
    assert run("-no_pp") == 0
    path = home / "preprocessed" / TASK / "splits_final.pkl"
    written = path.read_bytes()
    assert run("-no_pp") == 0
    assert "exists and is kept" in capsys.readouterr().out
    write_dataset(raw, [f"ball_{i}" for i in range(5)])
    assert run("-no_pp") == 0
    assert "its cases are not those of dataset.json: ball_5" in capsys.readouterr().out
    assert path.read_bytes() == written


def test_folds_keep_groups_together_and_are_as_many_as_asked(
    home: Path, make_task: Callable[[int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    make_task(6)
    groups = home / "patients.csv"
    groups.write_text("".join(f"ball_{i},patient_{i // 2}\n" for i in range(6)))
    options = ("-no_pp", "-pl2d", "None", "--group_by", str(groups), "--folds", "3")
    assert run(*options) == 0
    assert "6 cases in 3 groups are split into 3 folds" in capsys.readouterr().out
    splits = load_splits(home / "preprocessed" / TASK / "splits_final.pkl")
    assert sorted(split.val for split in splits) == [
        ("ball_0", "ball_1"), ("ball_2", "ball_3"), ("ball_4", "ball_5"),
    ]  # fmt: skip
    assert run(*options) == 0
    assert "splits_final.pkl exists and is kept" in capsys.readouterr().out
    assert run("-no_pp", "-pl2d", "None", "--folds", "2") == 2
    assert "has other folds than --folds and --group_by ask for" in capsys.readouterr().err
    assert run("-no_pp", "--folds", "1") == 2


def test_missing_files_are_all_named(
    make_task: Callable[[int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    raw = make_task(3)
    (raw / "imagesTr" / "ball_0_0000.nii.gz").unlink()
    (raw / "labelsTr" / "ball_2.nii.gz").unlink()
    assert run() == 3
    said = capsys.readouterr().err
    assert "2 files" in said and "ball_0_0000.nii.gz" in said and "labelsTr/ball_2.nii.gz" in said


def test_a_label_of_another_size_names_its_case(
    make_task: Callable[[int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    raw = make_task(2)
    write_volume(np.ones((11, 20, 24), np.uint8), raw / "labelsTr" / "ball_0.nii.gz")
    assert run() == 3
    assert "ball_0: the label has (11, 20, 24) voxels" in capsys.readouterr().err


def test_voxels_that_are_not_numbers_become_zero_and_their_file_is_named(
    home: Path, make_task: Callable[[int], Path], caplog: pytest.LogCaptureFixture
) -> None:
    raw = make_task(1)
    image = np.full((12, 20, 24), 40, np.float32)
    image[0, 0, 0] = np.nan
    write_volume(image, raw / "imagesTr" / "ball_0_0000.nii.gz")
    write_dataset(raw, ["ball_0"])
    content = json.loads((raw / "dataset.json").read_text())
    content["modality"] = {"0": "MRI"}
    (raw / "dataset.json").write_text(json.dumps(content))
    assert run() == 0
    for folder in ("nnUNetData_plans_v2.1_stage0", "nnUNetData_plans_v2.1_2D_stage0"):
        store = CaseStore(home / "preprocessed" / TASK / folder)
        assert np.isfinite(store.load("ball_0")).all(), folder
    assert "ball_0_0000.nii.gz: 1 of 5760 voxels are NaN or infinite and count as 0" in caplog.text


def test_a_label_with_nan_ends_planning_with_3_and_its_name(
    make_task: Callable[[int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    label = np.zeros((12, 20, 24), np.float32)
    label[3, 6, 5] = np.nan
    write_volume(label, make_task(1) / "labelsTr" / "ball_0.nii.gz")
    assert run() == 3
    assert "ball_0.nii.gz: a label map holds integers, but found nan" in capsys.readouterr().err


def test_plans_of_another_task_can_be_taken_over(
    home: Path, make_task: Callable[[int], Path]
) -> None:
    make_task(2)
    assert run("-no_pp", "-pl2d", "None") == 0
    folder = home / "preprocessed" / TASK
    options = ["-pl3d", "ExperimentPlanner3D_v21_Pretrained", "-overwrite_plans_identifier", "X"]
    theirs = folder / "nnUNetPlansv2.1_plans_3D.pkl"
    assert run(*options, "-overwrite_plans", str(theirs), "-pl2d", "None") == 0
    plans = load_plans(folder / "nnUNetPlans_pretrained_X_plans_3D.pkl")
    assert plans.stages == load_plans(theirs).stages
    assert CaseStore(folder / "nnUNetData_pretrained_X_stage0").case_ids() == ["ball_0", "ball_1"]


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (["-pl3d", "ExperimentPlanner3D_v21_16gb"], "Did you mean"),
        (["-pl3d", "ExperimentPlanner3D_v21_Pretrained"], "give all three"),
        (["-overwrite_plans", "x.pkl"], "give all three"),
        (["-pl3d", "ExperimentPlanner2D_v21"], "does not plan in 3D"),
    ],
)
def test_wrong_planners_are_answered(
    make_task: Callable[[int], Path],
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    answer: str,
) -> None:
    make_task(1)
    assert run(*options) == 2
    assert answer in capsys.readouterr().err


def test_a_task_that_is_not_there_is_answered(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 2
    assert "no task has the number 501" in capsys.readouterr().err
    assert main(["-t", "Task999_No"]) == 3
    assert "dataset.json does not exist" in capsys.readouterr().err
