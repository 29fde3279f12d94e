from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetlike.core.errors import DataError
from nnunetlike.data.integrity import orientation, verify_dataset_integrity
from nnunetlike.dataset_conversion.decathlon import convert_task

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
SHAPE = (2, 3, 4)


def write(path: Path, voxels: Any, **geometry: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(geometry.get("spacing", (1.0, 1.0, 2.0)))
    image.SetOrigin(geometry.get("origin", (0.0, 0.0, 0.0)))
    image.SetDirection(geometry.get("direction", IDENTITY))
    sitk.WriteImage(image, str(path))


def image(path: Path, **geometry: Any) -> None:
    write(path, np.ones(geometry.pop("shape", SHAPE), np.float32), **geometry)


def label(path: Path, *values: int, **geometry: Any) -> None:
    voxels = np.zeros(SHAPE, np.uint8)
    voxels.flat[: len(values)] = values
    write(path, voxels, **geometry)


def entry(case_id: str) -> dict[str, str]:
    return {"image": f"./imagesTr/{case_id}.nii.gz", "label": f"./labelsTr/{case_id}.nii.gz"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound raw task of two training cases and one test case, two channels each."""
    home = tmp_path / "Task001_X"
    for case_id in ("a", "b"):
        label(home / "labelsTr" / f"{case_id}.nii.gz", 1, 2)
        for channel in range(2):
            image(home / "imagesTr" / f"{case_id}_{channel:04d}.nii.gz")
    for channel in range(2):
        image(home / "imagesTs" / f"t_{channel:04d}.nii.gz")
    describe(home)
    return home


def describe(home: Path, **changes: Any) -> None:
    content = {
        "modality": {"0": "T1", "1": "T2"},
        "labels": {"0": "background", "1": "x", "2": "y"},
        "training": [entry("a"), entry("b")],
        "test": ["./imagesTs/t.nii.gz"],
        **changes,
    }
    (home / "dataset.json").write_text(json.dumps(content))


def complaints(folder: Path) -> str:
    with pytest.raises(DataError) as error:
        verify_dataset_integrity(folder, processes=1)
    return str(error.value)


def test_a_sound_task_gets_a_report(folder: Path) -> None:
    found = verify_dataset_integrity(folder, processes=1)
    assert (found.training_cases, found.test_cases) == (2, 1)
    assert found.voxels_by_label == {0: 44, 1: 2, 2: 2}
    assert found.warnings == ()
    assert "2 training and 1 test cases are sound" in str(found)


def test_hidden_files_are_no_fault(folder: Path) -> None:
    for name in ("imagesTr", "imagesTs", "labelsTr"):
        (folder / name / ".DS_Store").touch()
        (folder / name / "._a.nii.gz").touch()
    assert verify_dataset_integrity(folder, processes=1).training_cases == 2


def test_all_faults_are_told_at_once(folder: Path) -> None:
    (folder / "imagesTr" / "a_0001.nii.gz").unlink()
    (folder / "labelsTr" / "b.nii.gz").unlink()
    (folder / "imagesTs" / "t_0000.nii.gz").unlink()
    image(folder / "imagesTr" / "z_0000.nii.gz")
    text = complaints(folder)
    assert text.startswith("Task001_X has 4 faults")
    for name in ("imagesTr/a_0001", "labelsTr/b", "imagesTs/t_0000", "imagesTr/z_0000"):
        assert f"{name}.nii.gz" in text


@pytest.mark.parametrize(
    ("geometry", "found", "expected"),
    [
        ({"shape": (2, 3, 5)}, "2×3×5 voxels", "2×3×4"),
        ({"spacing": (1.0, 1.0, 2.5)}, "spacing (2.5, 1, 1)", "(2, 1, 1)"),
        ({"origin": (0.0, 3.0, 0.0)}, "origin (0, 3, 0)", "(0, 0, 0)"),
        ({"direction": (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0)}, "direction (-1, ", "(1, 0, "),
    ],
)
def test_an_image_on_another_grid_is_a_fault(
    folder: Path, geometry: dict[str, Any], found: str, expected: str
) -> None:
    image(folder / "imagesTr" / "a_0001.nii.gz", **geometry)
    text = complaints(folder)
    assert "1 fault;" in text and "another grid than labelsTr/a.nii.gz" in text
    assert found in text and f"expected {expected}" in text


def test_rounding_noise_in_the_geometry_is_no_fault(folder: Path) -> None:
    image(folder / "imagesTr" / "a_0000.nii.gz", spacing=(1.0, 1.0, 2.000001), origin=(1e-9, 0, 0))
    assert verify_dataset_integrity(folder, processes=1).training_cases == 2


def test_channels_of_a_test_case_must_lie_on_one_grid(folder: Path) -> None:
    image(folder / "imagesTs" / "t_0001.nii.gz", shape=(2, 3, 5))
    assert "another grid than imagesTs/t_0000.nii.gz" in complaints(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_no_numbers_are_a_fault(folder: Path, value: float) -> None:
    voxels = np.ones(SHAPE, np.float32)
    voxels[0, 0, :3] = value
    write(folder / "imagesTr" / "b_0000.nii.gz", voxels)
    assert "imagesTr/b_0000.nii.gz: 3 of 24 voxels are NaN or infinite" in complaints(folder)


def test_a_label_nobody_declared_is_a_fault(folder: Path) -> None:
    label(folder / "labelsTr" / "a.nii.gz", 1, 2, 255, 255)
    assert "labelsTr/a.nii.gz: found the label 255 (2 voxels)" in complaints(folder)


def test_a_label_map_with_fractions_is_a_fault(folder: Path) -> None:
    write(folder / "labelsTr" / "a.nii.gz", np.full(SHAPE, 0.5, np.float32))
    assert "labelsTr/a.nii.gz" in complaints(folder) and "0.5" in complaints(folder)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"labels": {"0": "background", "1": "x", "2": "y", "4": "z"}}, "labels must be numbered"),
        ({"modality": {"0": "T1", "2": "T2"}}, "modality must be numbered"),
        ({"training": [entry("a"), entry("b"), entry("a")]}, "lists a 2 times"),
        ({"training": []}, "lists no case"),
    ],
)
def test_a_wrong_description_is_a_fault(folder: Path, changes: dict[str, Any], text: str) -> None:
    describe(folder, **changes)
    assert text in complaints(folder)


def test_missing_folders_are_named(folder: Path) -> None:
    (folder / "imagesTs").rename(folder / "elsewhere")
    assert "imagesTs: the folder is missing" in complaints(folder)


def test_an_image_that_cannot_be_read_is_a_fault_like_others(folder: Path) -> None:
    (folder / "imagesTr" / "a_0000.nii.gz").write_bytes(b"not an image")
    image(folder / "imagesTr" / "z_0000.nii.gz")
    text = complaints(folder)
    assert "2 faults" in text and "imagesTr/a_0000.nii.gz cannot be read" in text


def test_mixed_orientation_absent_labels_and_wrong_counts_are_warnings(folder: Path) -> None:
    flipped = {"direction": (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0)}
    for channel in range(2):
        image(folder / "imagesTr" / f"b_{channel:04d}.nii.gz", **flipped)
    label(folder / "labelsTr" / "b.nii.gz", 1, 2, **flipped)
    describe(folder, labels={"0": "background", "1": "x", "2": "y", "3": "never"}, numTraining=7)
    first, second, third = verify_dataset_integrity(folder, processes=1).warnings
    assert "LPS: 2 cases, a for example; RAS: 1 cases, b for example" in first
    assert "label 3 (never)" in second
    assert "numTraining says 7" in third


def test_many_faults_are_cut_short(folder: Path) -> None:
    describe(folder, training=[entry(f"case_{i}") for i in range(40)])
    text = complaints(folder)
    assert "more" in text.splitlines()[-1] and len(text.splitlines()) == 52


def test_orientation_names_where_the_axes_point() -> None:
    assert orientation(IDENTITY) == "LPS"
    assert orientation((0.0, 0, -1, -0.9, 0.1, 0, 0, 1, 0)) == "ASR"


def raw_task(shared: Path, name: str) -> Path:
    return convert_task(shared / "data" / name, processes=1).folder


def test_hippocampus_is_sound(shared: Path, home: Path) -> None:
    found = verify_dataset_integrity(raw_task(shared, "Task04_Hippocampus"), processes=1)
    assert (found.training_cases, found.test_cases, found.warnings) == (156, 1, ())


def test_every_missing_file_of_the_corrupt_hippocampus_is_named(shared: Path, home: Path) -> None:
    text = complaints(raw_task(shared, "Task04_Hippocampus_corrupt"))
    assert "3 faults" in text
    assert "imagesTr/hippocampus_010_0000.nii.gz: the image is missing" in text
    assert "imagesTr/hippocampus_281_0000.nii.gz: the image is missing" in text
    assert "labelsTr/hippocampus_118.nii.gz: the label is missing" in text


def test_every_wrong_grid_of_the_repaired_hippocampus_is_named(shared: Path, home: Path) -> None:
    text = complaints(raw_task(shared, "Task04_Hippocampus_corrupt_repaired_shapes"))
    assert "2 faults" in text
    assert "hippocampus_010.nii.gz: found 26×166×164 voxels (D × H × W), expected 31×50×36" in text
    assert "hippocampus_281.nii.gz: found 33×52×37 voxels (D × H × W), expected 94×512×512" in text
