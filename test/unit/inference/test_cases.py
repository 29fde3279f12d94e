"""Input folders, complete and otherwise."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import SimpleITK as sitk

from nnunetlike.core.errors import DataError
from nnunetlike.data.orientation import direction_of
from nnunetlike.inference.cases import InputCase, find_cases, tell_orientations

MODALITIES = {0: "T1", 1: "T2"}


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).touch()


def test_cases_are_sorted_and_their_channels_in_order(tmp_path: Path) -> None:
    _touch(tmp_path, "b_0001.nii.gz", "b_0000.nii.gz", "a_0000.nii.gz", "a_0001.nii.gz")
    cases = find_cases(tmp_path, MODALITIES)
    assert [case.case_id for case in cases] == ["a", "b"]
    assert [p.name for p in cases[1].files.images] == ["b_0000.nii.gz", "b_0001.nii.gz"]
    assert cases[0].suffix == ".nii.gz"


def test_identifiers_may_hold_dots_and_numbers(tmp_path: Path) -> None:
    _touch(tmp_path, "a.1_0001_0000.nii.gz")
    assert find_cases(tmp_path, {0: "CT"})[0].case_id == "a.1_0001"


def test_other_files_and_further_channels_are_left_alone(tmp_path: Path) -> None:
    _touch(tmp_path, "notes.txt", "a_0000.nii.gz", "a_0001.nii.gz", "a_0002.nii.gz")
    assert len(find_cases(tmp_path, MODALITIES)[0].files.images) == 2


def test_all_incomplete_cases_are_named_at_once(tmp_path: Path) -> None:
    _touch(tmp_path, "a_0000.nii.gz", "b_0001.nii.gz", "c_0000.nii.gz", "c_0001.nii.gz")
    with pytest.raises(DataError) as error:
        find_cases(tmp_path, MODALITIES)
    assert "a_0001.nii.gz (T2) is missing; found a_0000.nii.gz" in str(error.value)
    assert "b_0000.nii.gz (T1) is missing; found b_0001.nii.gz" in str(error.value)
    assert "c:" not in str(error.value)


def test_files_of_one_channel_need_no_channel_number_and_a_note_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _touch(tmp_path, "vert_003.nii.gz", "vert_0004.nii.gz")
    with caplog.at_level(logging.INFO):
        cases = find_cases(tmp_path, {0: "CT"})
    assert [case.case_id for case in cases] == ["vert_0004", "vert_003"]
    assert "have no channel number (_0000); each file is taken for a case" in caplog.text


def test_several_channels_need_their_numbers(tmp_path: Path) -> None:
    _touch(tmp_path, "a.nii.gz", "b.nii.gz", "c.nii.gz", "d.nii.gz")
    with pytest.raises(DataError) as error:
        find_cases(tmp_path, MODALITIES)
    assert "per case ID_0000.nii.gz (T1), ID_0001.nii.gz (T2)" in str(error.value)
    assert "a.nii.gz, b.nii.gz, c.nii.gz and 1 more have no channel number" in str(error.value)


def test_names_with_and_without_number_together_are_refused(tmp_path: Path) -> None:
    _touch(tmp_path, "a_0000.nii.gz", "b.nii.gz")
    with pytest.raises(DataError, match=r"b\.nii\.gz has no channel number"):
        find_cases(tmp_path, {0: "CT"})


def test_a_folder_without_images_says_what_is_expected_and_three_names_found(
    tmp_path: Path,
) -> None:
    _touch(tmp_path, "a.dcm", "b.dcm", "c.dcm", "d.dcm")
    with pytest.raises(DataError) as error:
        find_cases(tmp_path, {0: "CT"})
    expected = "expected per case ID_0000.nii.gz (CT); found a.dcm, b.dcm, c.dcm"
    assert str(error.value).endswith(expected)


def test_one_colour_picture_holds_all_channels(tmp_path: Path) -> None:
    _touch(tmp_path, "a_0000.png", "b_0000.png")
    cases = find_cases(tmp_path, {0: "R", 1: "G", 2: "B"})
    assert [len(case.files.images) for case in cases] == [1, 1]
    assert cases[0].files.channels == 3 and cases[0].suffix == ".png"


def test_predictions_have_the_ending_of_their_images_but_png_for_jpeg(tmp_path: Path) -> None:
    for number, ending in enumerate((".nii", ".nrrd", ".tif")):
        _touch(tmp_path, f"c{number}_0000{ending}")
    found = find_cases(tmp_path, {0: "CT"})
    assert [case.suffix for case in found] == [".nii", ".nrrd", ".tif"]
    for path in tmp_path.iterdir():
        path.unlink()
    _touch(tmp_path, "a.jpg")
    assert find_cases(tmp_path, {0: "grey"})[0].suffix == ".png"


def test_pictures_beside_volumes_are_not_cases(tmp_path: Path) -> None:
    _touch(tmp_path, "a_0000.nii.gz", "preview.png")
    assert [case.case_id for case in find_cases(tmp_path, {0: "CT"})] == ["a"]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no case; expected per case ID_0000"):
        find_cases(tmp_path, {0: "CT"})


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        find_cases(tmp_path / "nowhere", {0: "CT"})


def test_one_case_in_two_formats_is_refused(tmp_path: Path) -> None:
    _touch(tmp_path, "a_0000.nii.gz", "a_0000.nrrd")
    with pytest.raises(DataError, match="a exists with two suffixes"):
        find_cases(tmp_path, {0: "CT"})


def _volumes(folder: Path, **orientations: str) -> list[InputCase]:
    for name, letters in orientations.items():
        image = sitk.Image(2, 3, 4, sitk.sitkFloat32)
        image.SetDirection(direction_of(letters))
        sitk.WriteImage(image, str(folder / f"{name}_0000.nii.gz"))
    return find_cases(folder, {0: "MR"})


def test_orientations_are_counted_by_headers_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cases = _volumes(tmp_path, a="RAS", b="LPS", c="RAS", d="PSR")
    _touch(tmp_path, "damaged_0000.nii.gz")
    with caplog.at_level(logging.INFO):
        tell_orientations(find_cases(tmp_path, {0: "MR"}), "RAS")
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "2 of 5 cases are stored in the orientation of the training cases (RAS)",
        "1 of 5 cases do not say how they are oriented, and are taken as stored",
        "2 of 5 cases are stored in another orientation than the training cases (RAS)",
    ]
    assert "1 LPS, 1 PSR. They are turned" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        tell_orientations(cases, None)
    assert caplog.text == ""
