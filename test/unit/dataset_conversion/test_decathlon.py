from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.dataset_conversion.decathlon import convert_task

CONTENT: dict[str, Any] = {
    "modality": {"0": "MRI"},
    "labels": {"0": "background", "1": "x"},
    "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
    "test": [],
}


def task(folder: Path, **changes: Any) -> Path:
    image = sitk.GetImageFromArray(np.zeros((2, 3, 4), np.uint8))
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
        sitk.WriteImage(image, str(folder / name / "a.nii.gz"))
    (folder / "dataset.json").write_text(json.dumps({**CONTENT, **changes}))
    return folder


@pytest.mark.parametrize(
    ("name", "number", "expected"),
    [
        ("Task03_Liver", None, "Task003_Liver"),
        ("Task3_Liver", None, "Task003_Liver"),
        ("Task123_X", None, "Task123_X"),
        ("Task1234_Two_words", None, "Task1234_Two_words"),
        ("Task03_Liver", 503, "Task503_Liver"),
    ],
)
def test_task_numbers_may_have_any_width(
    home: Path, name: str, number: int | None, expected: str
) -> None:
    found = convert_task(task(home / "msd" / name), task_id=number, processes=1)
    assert found.folder == home / "raw" / "nnUNet_raw_data" / expected
    assert (found.training_images, found.labels, found.test_images) == (1, 1, 0)


def test_a_relative_folder_with_slashes_is_understood(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task(home / "msd" / "Task03_Liver")
    monkeypatch.chdir(home / "msd" / "Task03_Liver")
    assert convert_task(Path("./../Task03_Liver//"), processes=1).folder.name == "Task003_Liver"
    assert convert_task(Path(), processes=1).folder.name == "Task003_Liver"


@pytest.mark.parametrize("name", ["Liver", "Task_Liver", "Task03", "Task03_"])
def test_other_folder_names_are_refused(home: Path, name: str) -> None:
    with pytest.raises(UsageError, match="Task03_Liver"):
        convert_task(task(home / "msd" / name), processes=1)


@pytest.mark.parametrize("name", ["imagesTr", "labelsTr", "dataset.json"])
def test_what_is_missing_and_what_is_there_is_said(home: Path, name: str) -> None:
    source = task(home / "msd" / "Task03_Liver")
    (source / name).rename(source / "elsewhere")
    with pytest.raises(DataError, match=f"lacks {name}; it holds .*elsewhere"):
        convert_task(source, processes=1)


def test_test_images_are_missed_only_if_dataset_json_lists_some(home: Path) -> None:
    source = task(home / "msd" / "Task03_Liver", test=["./imagesTs/b.nii.gz"])
    with pytest.raises(DataError, match=r"lacks imagesTs \(dataset\.json lists test cases\)"):
        convert_task(source, processes=1)


def test_an_existing_task_is_replaced_only_by_a_complete_one(home: Path) -> None:
    source = task(home / "msd" / "Task03_Liver")
    folder = convert_task(source, processes=1).folder
    (folder / "imagesTr" / "stale_0000.nii.gz").touch()
    (source / "imagesTr" / "b.nii.gz").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"b\.nii\.gz"):
        convert_task(source, processes=1)
    assert (folder / "imagesTr" / "stale_0000.nii.gz").exists()
    (source / "imagesTr" / "b.nii.gz").unlink()
    convert_task(source, processes=1)
    assert [path.name for path in (folder / "imagesTr").iterdir()] == ["a_0000.nii.gz"]
    assert [path.name for path in folder.parent.iterdir()] == ["Task003_Liver"]


def test_a_raw_task_is_not_replaced_by_itself(home: Path) -> None:
    source = task(home / "raw" / "nnUNet_raw_data" / "Task003_Liver")
    with pytest.raises(UsageError, match="raw task already"):
        convert_task(source, processes=1)
    assert (source / "imagesTr" / "a.nii.gz").exists()


def test_a_task_that_was_converted_elsewhere_is_recognised(home: Path) -> None:
    source = task(home / "msd" / "Task003_Liver")
    (source / "imagesTr" / "a.nii.gz").rename(source / "imagesTr" / "a_0000.nii.gz")
    with pytest.raises(DataError, match="needs no conversion"):
        convert_task(source, processes=1)


def test_a_two_dimensional_image_is_refused(home: Path) -> None:
    source = task(home / "msd" / "Task03_Liver")
    flat = sitk.GetImageFromArray(np.zeros((3, 4), np.uint8))
    sitk.WriteImage(flat, str(source / "imagesTr" / "flat.nii.gz"))
    with pytest.raises(DataError, match=r"flat\.nii\.gz.*has 2 dimensions"):
        convert_task(source, processes=1)


def test_three_dimensional_files_are_copied_byte_for_byte(home: Path) -> None:
    source = task(home / "msd" / "Task03_Liver")
    folder = convert_task(source, processes=1).folder
    copied = (folder / "imagesTr" / "a_0000.nii.gz").read_bytes()
    assert copied == (source / "imagesTr" / "a.nii.gz").read_bytes()


@pytest.mark.slow
def test_the_hippocampus_source_stays_as_it_is(shared: Path, home: Path) -> None:
    source = shared / "data" / "Task04_Hippocampus"

    def digest() -> str:
        total = hashlib.sha1()
        for path in sorted(source.rglob("*")):
            total.update(str(path).encode())
            total.update(path.read_bytes() if path.is_file() else b"")
        return total.hexdigest()

    before = digest()
    found = convert_task(source, processes=2)
    assert digest() == before
    assert (found.training_images, found.labels, found.test_images) == (156, 156, 1)
