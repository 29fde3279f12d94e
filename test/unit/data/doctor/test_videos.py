"""The doctor on tasks of videos: no false complaints, and those that planning would make."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetlike.data.doctor.examination import Examination, examine_task
from nnunetlike.data.doctor.repair import repair_task
from nnunetlike.data.doctor.treatment import Orders

CASE = "patient0000_4CH"


@pytest.fixture
def task(raw_video_task: Callable[..., Path]) -> Path:
    return raw_video_task(2, 1, labelled="ends")


def examined(folder: Path) -> Examination:
    return examine_task(folder, processes=0)


def change_facts(folder: Path, case: str = CASE, **changes: Any) -> None:
    path = folder / "casesTr" / f"{case}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_label(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    path = str(folder / "labelsTr" / f"{CASE}.nii.gz")
    voxels = sitk.GetArrayFromImage(sitk.ReadImage(path))
    sitk.WriteImage(sitk.GetImageFromArray(change(voxels)), path)


def test_a_task_of_videos_has_no_complaint(task: Path) -> None:
    assert examined(task).complaints == ()


def test_a_label_that_is_ignored_need_not_occur(raw_video_task: Callable[..., Path]) -> None:
    assert examined(raw_video_task(2, 1)).complaints == ()


def test_spacing_and_origin_in_time_do_not_count(task: Path) -> None:
    path = str(task / "imagesTr" / f"{CASE}_0000.nii.gz")
    image = sitk.ReadImage(path)
    image.SetSpacing((1, 1, 0.02))
    image.SetOrigin((0, 0, 7))
    sitk.WriteImage(image, path)
    assert examined(task).complaints == ()


def test_missing_facts_are_an_error_of_the_case(task: Path) -> None:
    (task / "casesTr" / f"{CASE}.json").unlink()
    (complaint,) = examined(task).errors
    assert complaint.kind.name == "video_without_facts" and complaint.case_id == CASE


def test_facts_that_contradict_the_label_are_all_told(task: Path) -> None:
    change_facts(task, labelled_frames=[0, 3, 12], ed=20)
    errors = examined(task).errors
    assert {complaint.kind.name for complaint in errors} == {"video_fault"}
    told = " ".join(complaint.found for complaint in errors)
    for words in ("ED is frame 20", "names 12", "frame 3, where", "lacks frame 7"):
        assert words in told


def test_a_strange_value_is_told_once_and_not_relabelled(task: Path) -> None:
    change_label(task, lambda voxels: np.where(voxels == 1, 255, voxels))
    examination = examined(task)
    assert [complaint.kind.name for complaint in examination.errors] == ["undeclared_label"]
    assert examination.relabelling() is None


def test_a_label_of_another_length_is_told(task: Path) -> None:
    change_label(task, lambda voxels: voxels[:-1])
    assert [complaint.kind.name for complaint in examined(task).errors] == ["other_size"]


def test_a_patient_in_two_lists_is_told(task: Path) -> None:
    change_facts(task, split="train")
    change_facts(task, "patient0001_4CH", split="val")
    assert examined(task).complaints == ()
    content = json.loads((task / "dataset.json").read_text())
    content["video"]["group_regex"] = "^(patient)"
    (task / "dataset.json").write_text(json.dumps(content))
    (complaint,) = examined(task).errors
    assert complaint.found == "patient in train and val"


def test_a_mended_copy_leaves_faulty_videos_out_and_takes_facts_along(
    task: Path, tmp_path: Path
) -> None:
    change_facts(task, ed=20)
    examination = examined(task)
    copy = repair_task(examination, tmp_path / "copy", orders=Orders(), processes=0).folder
    assert [path.name for path in (copy / "casesTr").iterdir()] == ["patient0001_4CH.json"]
    assert [path.name for path in (copy / "casesTs").iterdir()] == ["patient0002_4CH.json"]
    assert examined(copy).complaints == ()
