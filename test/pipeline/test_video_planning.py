"""nnUNet_plan_and_preprocess of a task of videos, as users run it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetlike.data.splits import load_splits
from nnunetlike.data.store import CaseStore
from nnunetlike.plans.v1 import load_plans
from nnunetlike.run.fold import _split
from nnunetlike.run.plan_and_preprocess import main
from nnunetlike.run.plot_task_pngs import main as plot

TASK = "Task950_Ventricles"
PLANS = "nnUNetPlansv2.1_plans_video2D.pkl"
STAGE = "nnUNetData_plans_v2.1_video2D_stage0"
PLAN = ["-t", "950", "-tl", "0", "-tf", "0"]


def test_a_task_of_videos_is_planned_and_preprocessed(video_task: Callable[..., Path]) -> None:
    folder = video_task() / "preprocessed" / TASK
    plans = load_plans(folder / PLANS)
    store = CaseStore(folder / STAGE)
    assert plans.stage("video2d").video is not None and plans.classes == (1,)
    assert sorted(path.name for path in folder.glob("*_plans_*.pkl")) == [PLANS]
    assert len(store.case_ids()) == 6 and len(load_splits(folder / "splits_final.pkl")) == 5
    for case in store.case_ids():
        record = store.record(case)
        assert store.load(case).shape == (2, 8, 48, 48)
        assert record.video is not None and record.original_spacing[0] == 999


def test_planning_again_makes_the_same_bytes_and_nothing_anew(
    video_task: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = video_task() / "preprocessed" / TASK
    before = {path: path.stat().st_mtime_ns for path in (folder / STAGE).iterdir()}
    plans = (folder / PLANS).read_bytes()
    capsys.readouterr()
    assert main(PLAN) == 0
    assert (folder / PLANS).read_bytes() == plans
    assert {path: path.stat().st_mtime_ns for path in (folder / STAGE).iterdir()} == before
    assert "cropping: 6 of 6 cases are there" in capsys.readouterr().out


def test_a_changed_sidecar_is_taken_up(
    video_task: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    home = video_task()
    sidecar = home / f"raw/nnUNet_raw_data/{TASK}/casesTr/patient0002_4CH.json"
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "view": "2CH"}))
    capsys.readouterr()
    assert main(PLAN) == 0
    assert "facts of the video have changed: patient0002_4CH" in capsys.readouterr().out
    record = CaseStore(home / "preprocessed" / TASK / STAGE).record("patient0002_4CH")
    assert record.video is not None and record.video.view == "2CH"


def test_frames_without_a_label_stay_whole(video_task: Callable[..., Path]) -> None:
    home = video_task(labelled="ends")
    for path in sorted((home / "preprocessed" / TASK / STAGE).glob("*.npz")):
        label = np.load(path)["data"][-1]
        assert (label[1:-1] == 2).all() and set(np.unique(label[[0, -1]])) <= {-1, 0, 1}


def change_facts(home: Path, case: str, **changes: object) -> None:
    path = home / f"raw/nnUNet_raw_data/{TASK}/casesTr/{case}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def write_label(folder: Path, case: str, voxels: np.ndarray) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(folder / f"labelsTr/{case}.nii.gz"))


def test_every_faulty_video_is_named_with_its_frames(
    raw_video_task: Callable[..., Path], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = raw_video_task()
    strange = np.zeros((8, 48, 48), np.uint8)
    strange[3, 5, 5] = 255
    write_label(folder, "patient0000_4CH", strange)
    write_label(folder, "patient0001_4CH", np.zeros((7, 48, 48), np.uint8))
    change_facts(home, "patient0002_4CH", es=8)
    assert main(PLAN) == 3
    error = capsys.readouterr().err
    for words in (
        "patient0000_4CH: the label map holds 255 in frame 3, but dataset.json declares 0",
        "patient0001_4CH: the label has (7, 48, 48) voxels (T, H, W)",
        "patient0002_4CH: ES is frame 8, but the video has the frames 0 to 7",
    ):
        assert words in error


def test_all_missing_facts_are_named(
    raw_video_task: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = raw_video_task()
    for case in ("patient0001_4CH", "patient0004_4CH"):
        (folder / f"casesTr/{case}.json").unlink()
    assert main(PLAN) == 3
    error = capsys.readouterr().err
    assert "patient0001_4CH.json" in error and "patient0004_4CH.json" in error


def test_a_video_of_one_frame_teaches_nothing(
    raw_video_task: Callable[..., Path], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = raw_video_task()
    case = "patient0003_4CH"
    frame = np.full((1, 48, 48), 90, np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(frame), str(folder / f"imagesTr/{case}_0000.nii.gz"))
    write_label(folder, case, np.zeros((1, 48, 48), np.uint8))
    change_facts(home, case, labelled_frames=[0], ed=0, es=None)
    assert main(PLAN) == 3
    assert f"{case}: a video needs two frames or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-plv", "None"], "leave out -plv None"),
        (["-plv", "ExperimentPlanner_Video2"], "Did you mean 'ExperimentPlanner_Video2D'?"),
        (["-plv", "ExperimentPlanner2D_v21"], "no planner of videos is called"),
        (["--gpu_mem", "0"], "size of the GPU"),
    ],
)
def test_a_planner_that_does_not_fit_videos_is_refused(
    raw_video_task: Callable[..., Path],
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raw_video_task()
    assert main([*PLAN, *options]) == 2
    assert message in capsys.readouterr().err


def test_planners_of_images_count_for_nothing_and_that_is_said(
    raw_video_task: Callable[..., Path], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw_video_task()
    options = ["-pl3d", "None", "-plv", "ExperimentPlanner_Video2D", "--gpu_mem", "4"]
    assert main([*PLAN, *options, "-no_pp"]) == 0
    assert "planned for video2d only" in capsys.readouterr().out
    found = (home / "preprocessed" / TASK).glob("*_plans_*.pkl")
    assert [path.name for path in found] == ["nnUNetPlansv2.1_fit4GB_plans_video2D.pkl"]


def test_a_planner_of_videos_is_refused_where_there_are_none(
    raw_video_task: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = raw_video_task() / "dataset.json"
    content = json.loads(path.read_text())
    del content["video"]
    path.write_text(json.dumps(content | {"labels": {"0": "background", "1": "LV"}}))
    assert main([*PLAN, "-plv", "ExperimentPlanner_Video2D"]) == 2
    assert "declares none ('video'); leave -plv out" in capsys.readouterr().err


def test_folds_that_tear_a_patient_apart_are_refused(
    video_task: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    home = video_task()
    path = home / f"raw/nnUNet_raw_data/{TASK}/dataset.json"
    content = json.loads(path.read_text())
    content["video"]["group_regex"] = r"^(patient000)\d_"
    path.write_text(json.dumps(content))
    assert main(PLAN) == 3
    assert "1 patient has videos on two sides" in capsys.readouterr().err
    content["video"]["group_regex"] = r"^patient000[0-3]|patient000[45]"
    path.write_text(json.dumps(content))
    (home / "preprocessed" / TASK / "splits_final.pkl").unlink()
    assert main(PLAN) == 0


def test_a_rule_of_the_user_makes_the_groups(
    raw_video_task: Callable[..., Path], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw_video_task()
    (home / "sites.csv").write_text("".join(f"patient{n:04d}_4CH,{n % 2}\n" for n in range(6)))
    assert main([*PLAN, "--group_by", str(home / "sites.csv"), "-no_pp"]) == 0
    assert "6 cases in 2 groups are split into 2 folds" in capsys.readouterr().out
    splits = load_splits(home / "preprocessed" / TASK / "splits_final.pkl")
    assert {case[10:11] for case in splits[0].val} in ({"0", "2", "4"}, {"1", "3", "5"})


def test_the_official_fold_is_resolved_from_the_lists(
    raw_video_task: Callable[..., Path], home: Path
) -> None:
    raw_video_task()
    for n in range(6):
        change_facts(home, f"patient{n:04d}_4CH", split="val" if n > 3 else "train")
    assert main(PLAN) == 0
    folder = home / "preprocessed" / TASK
    plans = load_plans(folder / PLANS)
    split, _ = _split("official", folder, CaseStore(folder / STAGE), plans.fingerprint.video_of)
    assert split.val == ("patient0004_4CH", "patient0005_4CH") and len(split.train) == 4


def test_the_data_are_verified_and_drawn(
    video_task: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    home = video_task(2, labelled="ends")
    assert main([*PLAN, "--verify_dataset_integrity", "-no_pp"]) == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out
    for options in ([], ["--use_raw"]):
        target = home / f"pictures{len(options)}"
        assert plot(["-t", "950", "-o", str(target), "-num_processes", "0", *options]) == 0
        assert len(list(target.glob("*.png"))) == 2
