"""nnUNet_plan_and_preprocess of a task of videos, as users run it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nnunetlike.data.splits import load_splits
from nnunetlike.data.store import CaseStore
from nnunetlike.plans.v1 import load_plans
from nnunetlike.run.plan_and_preprocess import main

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
