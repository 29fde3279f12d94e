"""Input folders, complete and otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunetlike.core.errors import DataError
from nnunetlike.inference.cases import find_cases

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


def test_a_file_without_channel_number_is_named_with_the_pattern(tmp_path: Path) -> None:
    _touch(tmp_path, "a.nii.gz")
    with pytest.raises(DataError, match=r"ID_0000\.nii\.gz \(CT\).*a\.nii\.gz has no channel"):
        find_cases(tmp_path, {0: "CT"})


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
