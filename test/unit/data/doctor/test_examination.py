"""Each fault of a raw task is found, with its file, what was found and what was expected."""

from __future__ import annotations

import gzip
from typing import Any

import numpy as np
import pytest

from nnunetlike.core.errors import DataError
from nnunetlike.data.doctor.examination import examine_task, refuse

FLIPPED = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
TURNED = (np.cos(0.2), -np.sin(0.2), 0.0, np.sin(0.2), np.cos(0.2), 0.0, 0.0, 0.0, 1.0)


def test_a_sound_task_has_no_complaint(task: Any) -> None:
    examination = task.examine()
    assert examination.complaints == ()
    assert examination.voxels_by_label == {0: 236, 1: 2, 2: 2}
    refuse([examination])


def test_hidden_files_are_no_fault(task: Any) -> None:
    for name in ("imagesTr", "imagesTs", "labelsTr"):
        (task.folder / name / ".DS_Store").touch()
        (task.folder / name / "._a.nii.gz").touch()
    assert task.found() == {}


def test_all_faults_are_told_at_once(task: Any) -> None:
    (task.folder / "imagesTr" / "a_0001.nii.gz").unlink()
    (task.folder / "labelsTr" / "b.nii.gz").unlink()
    (task.folder / "imagesTs" / "t_0000.nii.gz").unlink()
    task.image("imagesTr/zebra_0000")
    found = task.found()
    assert found["missing_image"] == [
        "imagesTr/a_0001.nii.gz: found no file; expected one",
        "imagesTs/t_0000.nii.gz: found no file; expected one",
    ]
    assert found["missing_label"] == ["labelsTr/b.nii.gz: found no file; expected one"]
    assert found["unlisted_file"] == [
        "imagesTr/zebra_0000.nii.gz: found a file of no case; expected files of cases only"
    ]
    with pytest.raises(DataError, match="Task001_X has 4 errors, listed above"):
        refuse([task.examine()])


def test_workers_find_what_one_process_finds(task: Any) -> None:
    task.label("a", 1, 255)
    assert examine_task(task.folder, processes=2).complaints == task.examine().complaints


@pytest.mark.parametrize(
    ("geometry", "kind", "found", "expected"),
    [
        ({"shape": (4, 5, 7)}, "other_size", "4×5×7 voxels", "4×5×6 voxels"),
        ({"spacing": (1.0, 1.0, 2.5)}, "other_grid", "spacing (2.5, 1, 1)", "spacing (2, 1, 1)"),
        ({"direction": FLIPPED}, "other_grid", "axes RAS, ", "axes LPS"),
        ({"direction": TURNED}, "other_grid", "axes turned by 11°, ", "the same axes"),
        ({"origin": (0, 2.0, 0)}, "other_grid", "origin (0, 2, 0), 2 voxels apart", "origin (0, "),
        ({"origin": (0, 0.4, 0)}, "shifted_grid", "origin (0, 0.4, 0), 0.4 voxels", "origin (0, "),
        ({"origin": (0, 1e-4, 0)}, "rounded_grid", "origin (0, 0.0001, 0)", "origin (0, 0, 0)"),
    ],
)
def test_a_channel_on_another_grid_is_judged_by_its_distance_in_voxels(
    task: Any, geometry: dict[str, Any], kind: str, found: str, expected: str
) -> None:
    task.image("imagesTr/a_0001", **geometry)
    (text,) = task.found()[kind]
    assert text.startswith("imagesTr/a_0001.nii.gz: found ") and found in text
    assert f"expected {expected}" in text and text.endswith(" as imagesTr/a_0000.nii.gz")


def test_an_origin_off_by_a_ten_thousandth_of_a_millimetre_is_accepted_with_a_note(
    task: Any,
) -> None:
    task.label("a", 1, 2, origin=(1e-4, 0.0, 0.0))
    examination = task.examine()
    assert examination.errors == examination.warnings == ()
    (note,) = examination.notes
    assert note.file == "labelsTr/a.nii.gz" and "accepted" in note.remedy


def test_an_origin_off_by_two_voxels_is_an_error_with_the_command(task: Any) -> None:
    task.label("a", 1, 2, origin=(0.0, 0.0, 4.0))
    (error,) = task.examine().errors
    assert (error.file, error.case_id) == ("labelsTr/a.nii.gz", "a")
    assert error.found == "origin (0, 0, 4), 2 voxels apart"
    assert error.expected == "origin (0, 0, 0) as imagesTr/a_0000.nii.gz"
    assert "{fix} --grid copy" in error.remedy and "{fix} --grid resample" in error.remedy


def test_rounding_that_v1_accepts_is_not_even_noted(task: Any) -> None:
    task.image("imagesTr/a_0000", spacing=(1.0, 1.0, 2.000001), origin=(1e-9, 0, 0))
    assert task.found() == {}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_no_numbers_are_counted(task: Any, value: float) -> None:
    voxels = np.ones((4, 5, 6), np.float32)
    voxels[0, 0, :3] = value
    task.write("imagesTr/b_0000.nii.gz", voxels)
    (text,) = task.found()["not_finite"]
    assert text == "imagesTr/b_0000.nii.gz: found 3 of 120 voxels not finite; expected none"


def test_a_label_with_nan_is_an_error(task: Any) -> None:
    task.label("a", 1, 2, np.nan, dtype=np.float32)
    (text,) = task.found()["label_not_finite"]
    assert text == "labelsTr/a.nii.gz: found 1 of 120 voxels not finite; expected none"


def test_a_case_without_any_signal_is_an_error_a_single_channel_a_warning(task: Any) -> None:
    empty = np.zeros((4, 5, 6), np.float32)
    task.write("imagesTr/a_0000.nii.gz", empty)
    found = task.found()
    assert found["channel_all_zero"][0].startswith("imagesTr/a_0000.nii.gz: found 0 in every")
    assert "image_all_zero" not in found
    task.write("imagesTr/a_0001.nii.gz", empty)
    assert len(task.found()["image_all_zero"]) == 2


def test_values_that_nobody_declared_come_with_the_histogram_of_the_file(task: Any) -> None:
    task.label("a", 1, 2, 255, 255)
    (text,) = task.found()["undeclared_label"]
    assert text == (
        "labelsTr/a.nii.gz: found (0: 116, 1: 1, 2: 1, 255: 2); expected 0, 1, 2 (dataset.json)"
    )


def test_negative_labels_are_an_error(task: Any) -> None:
    task.label("a", 1, 2, -1, dtype=np.int16)
    (error,) = task.examine().errors
    assert "(-1: 1, 0: 117, 1: 1, 2: 1)" in error.found
    assert "--map=-1:0" in error.remedy


def test_a_mask_of_0_and_255_gets_a_mapping(task: Any) -> None:
    task.describe(labels={"0": "background", "1": "x"})
    for case_id in "ab":
        task.label(case_id, 255, 255)
    first, second = task.examine().errors
    assert first.found == "(0: 118, 255: 2)"
    assert first.remedy == second.remedy
    assert first.remedy == "{fix} writes 255 → 1, in the label files and in dataset.json"


def test_labels_with_a_gap_get_a_proposal_to_confirm(task: Any) -> None:
    task.describe(labels={"0": "background", "1": "w", "2": "x", "3": "y", "4": "z"})
    for case_id in "ab":
        task.label(case_id, 2, 3, 4, 5)
    error = task.examine().errors[0]
    assert "2 → 1, 3 → 2, 4 → 3, 5 → 4" in error.remedy
    assert "{fix} --map=2:1,3:2,4:3,5:4 " in error.remedy


def test_integers_but_for_rounding_are_a_note(task: Any) -> None:
    task.label("a", 0.99998, 2.0, dtype=np.float32)
    examination = task.examine()
    (note,) = examination.complaints
    assert str(note) == "labelsTr/a.nii.gz: found 0.99998 for example; expected 1"
    assert note.kind.severity == "note"
    assert examination.voxels_by_label == {0: 236, 1: 2, 2: 2}


def test_values_between_integers_are_an_error_with_their_histogram(task: Any) -> None:
    task.label("a", 10.921457, 0.5, dtype=np.float32)
    (text,) = task.found()["fractional_label"]
    assert text == (
        "labelsTr/a.nii.gz: found (0: 118, 0.5: 1, 10.92146: 1); expected integers out of 0, 1, 2 "
        "(dataset.json)"
    )


def test_an_anti_aliased_mask_is_told_in_one_line(task: Any) -> None:
    task.label("a", *np.linspace(0.01, 0.99, 60), dtype=np.float32)
    (text,) = task.found()["fractional_label"]
    assert "and 49 rarer values" in text


def test_a_label_without_foreground_is_a_note(task: Any) -> None:
    task.label("a")
    examination = task.examine()
    assert [complaint.kind.name for complaint in examination.notes] == ["empty_label"]
    assert not examination.errors


def test_missing_and_surplus_channels_make_a_table(task: Any) -> None:
    (task.folder / "imagesTr" / "a_0001.nii.gz").unlink()
    task.image("imagesTr/b_0002")
    examination = task.examine()
    assert [complaint.kind.name for complaint in examination.errors] == [
        "missing_image",
        "surplus_channel",
    ]
    assert examination.layout.channel_table == (
        ("imagesTr/a", ("0000",)),
        ("imagesTr/b", ("0000", "0001", "0002")),
    )


def test_an_image_without_channel_number_is_examined_too(task: Any) -> None:
    task.one_channel()
    (task.folder / "imagesTr" / "a_0000.nii.gz").unlink()
    task.image("imagesTr/a", shape=(4, 5, 7))
    found = task.found()
    assert found["no_channel_number"] == [
        "imagesTr/a.nii.gz: found no channel number; expected a_0000.nii.gz"
    ]
    assert "imagesTr/a.nii.gz" in found["other_size"][0]
    assert "missing_image" not in found and "unlisted_file" not in found


def test_a_case_listed_with_its_channel_number_is_recognised(task: Any) -> None:
    task.describe(training=[{"image": "imagesTr/a_0000.nii.gz"}, task.entry("b")])
    (text,) = task.found()["channel_in_id"]
    assert text == "dataset.json: found the case a_0000; expected a"


def test_a_missing_file_is_shown_files_of_similar_name(task: Any) -> None:
    (task.folder / "imagesTr" / "a_0001.nii.gz").rename(task.folder / "imagesTr" / "a_001.nii.gz")
    (text,) = task.found()["missing_image"]
    assert text.endswith("found no file (of similar name: a_001.nii.gz); expected one")


def test_files_of_other_cases_are_not_called_similar(task: Any) -> None:
    for name in ("patient_1", "patient_002"):
        task.image(f"imagesTr/{name}_0000")
    task.describe(training=[task.entry("a"), task.entry("b"), task.entry("patient_001")])
    texts = "\n".join(task.found()["missing_image"])
    assert (
        "patient_001_0000.nii.gz: found no file (of similar name: patient_1_0000.nii.gz)" in texts
    )
    assert "patient_002" not in texts


def test_images_in_images_ts_need_not_be_listed(task: Any) -> None:
    task.describe(test=[])
    examination = task.examine()
    assert not examination.errors
    assert {complaint.kind.name for complaint in examination.notes} == {"unlisted_test_image"}


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        ({"labels": {"0": "bg", "1": "x", "2": "y", "4": "z"}}, "gapped_labels", "0, 1, 2, 4; exp"),
        ({"modality": {"0": "T1", "2": "T2"}}, "description", "modality numbered 0, 2; exp"),
        ({"training": []}, "description", "no case under 'training'"),
    ],
)
def test_a_wrong_description_is_an_error(
    task: Any, changes: dict[str, Any], kind: str, text: str
) -> None:
    task.describe(**changes)
    assert text in task.found()[kind][0]


def test_a_case_listed_twice_is_an_error(task: Any) -> None:
    task.describe(training=[task.entry("a"), task.entry("b"), task.entry("a")])
    found = task.found()
    assert found["duplicate_case"] == [
        "dataset.json: found a 2 times under 'training'; expected once"
    ]


def test_a_test_case_listed_twice_is_a_warning(task: Any) -> None:
    task.describe(test=["imagesTs/t.nii.gz", "imagesTs/t.nii.gz"])
    (warning,) = task.examine().complaints
    assert warning.kind.severity == "warning" and warning.case_id == "t"


def test_a_wrong_num_training_is_a_warning(task: Any) -> None:
    task.describe(numTraining=7)
    (warning,) = task.examine().complaints
    assert warning.kind.severity == "warning"
    assert str(warning) == (
        "dataset.json: found numTraining 7; expected 2, the number of cases listed"
    )


def test_missing_folders_are_named(task: Any) -> None:
    (task.folder / "imagesTs").rename(task.folder / "elsewhere")
    assert task.found()["missing_folder"] == ["imagesTs: found no such folder; expected a folder"]


def test_what_is_no_image_is_an_error_like_others(task: Any) -> None:
    (task.folder / "imagesTr" / "a_0000.nii.gz").write_bytes(b"not an image")
    task.image("imagesTr/zebra_0000")
    found = task.found()
    assert found["unreadable"] == [
        "imagesTr/a_0000.nii.gz: cannot be read as NIfTI: File a_0000.nii.gz is not a gzip file"
    ]
    assert len(found["unlisted_file"]) == 1


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_truncated_file_is_an_error(task: Any, dtype: Any) -> None:
    noise = np.random.default_rng(0).integers(0, 1000, (12, 20, 20)).astype(dtype)
    path = task.write("imagesTr/a_0000.nii.gz", noise)
    whole = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(whole)[: path.stat().st_size // 2])
    assert any("imagesTr/a_0000.nii.gz" in text for text in task.found()["unreadable"])


def test_mixed_orientation_is_a_warning(task: Any) -> None:
    for channel in range(2):
        task.image(f"imagesTr/b_{channel:04d}", direction=FLIPPED)
    task.label("b", 1, 2, direction=FLIPPED)
    (warning,) = task.examine().complaints
    assert warning.kind.severity == "warning"
    assert warning.found == "LPS in 2 cases (a, …), RAS in 1 case (b)"


def test_a_label_that_never_occurs_is_a_warning(task: Any) -> None:
    task.describe(labels={"0": "background", "1": "x", "2": "y", "3": "never"})
    (warning,) = task.examine().complaints
    assert str(warning) == "dataset.json: found label 3 (never) in no file; expected it in some"
    assert warning.kind.severity == "warning"


def test_a_task_without_dataset_json_cannot_be_examined(task: Any) -> None:
    (task.folder / "dataset.json").unlink()
    with pytest.raises(DataError, match=r"dataset\.json does not exist"):
        task.examine()
