from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nnunetlike.core.errors import DataError
from nnunetlike.data.dataset import DatasetSpec

CONTENT: dict[str, Any] = {
    "modality": {"0": "CT", "1": "PET"},
    "labels": {"0": "background", "2": "b", "1": "a"},
    "training": [{"image": "./imagesTr/x.nii.gz", "label": "./labelsTr/x.nii.gz"}],
    "test": ["./imagesTs/y.nii.gz"],
}


def write(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "dataset.json"
    path.write_text(json.dumps(content))
    return path


def test_content_is_read_in_the_order_of_the_file(tmp_path: Path) -> None:
    spec = DatasetSpec.load(write(tmp_path, CONTENT))
    assert spec.modalities == {0: "CT", 1: "PET"} and spec.labels.foreground == [2, 1]
    assert spec.training == ("x",) and spec.test == ("y",)
    files = spec.training_case(tmp_path, "x")
    assert [p.name for p in files.images] == ["x_0000.nii.gz", "x_0001.nii.gz"]
    assert files.label == tmp_path / "labelsTr/x.nii.gz"


@pytest.mark.parametrize("key", ["modality", "labels", "training"])
def test_a_missing_entry_is_named(tmp_path: Path, key: str) -> None:
    content = {k: v for k, v in CONTENT.items() if k != key}
    with pytest.raises(DataError, match=f"lacks the entry '{key}'"):
        DatasetSpec.load(write(tmp_path, content))


def test_labels_without_background_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lack 0, the background"):
        DatasetSpec.load(write(tmp_path, CONTENT | {"labels": {"1": "a"}}))


V2: dict[str, Any] = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "liver": 1, "tumour": 2},
    "numTraining": 2,
    "file_ending": ".nrrd",
}


def test_the_dialect_of_v2_is_read_and_its_cases_found_in_the_folder(tmp_path: Path) -> None:
    for name in ("imagesTr/b_0000.nrrd", "imagesTr/a_0000.nrrd", "imagesTs/c_0000.nrrd"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    spec = DatasetSpec.load(write(tmp_path, V2))
    assert spec.modalities == {0: "CT"} and spec.file_ending == ".nrrd"
    assert spec.labels.names == {0: "background", 1: "liver", 2: "tumour"}
    assert spec.training == ("a", "b") and spec.test == ("c",)
    files = spec.training_case(tmp_path, "a")
    assert [files.images[0].name, files.label and files.label.name] == ["a_0000.nrrd", "a.nrrd"]


def test_a_copy_of_v2s_file_without_images_beside_it_lists_no_case(tmp_path: Path) -> None:
    assert DatasetSpec.load(write(tmp_path, V2)).training == ()


@pytest.mark.parametrize(
    "labels",
    [
        {"0": "background", "1": "a"},
        {"background": 0, "a": 1},
        {"background": "0", "a": "1"},
        {"0": 0, "1": 1},
    ],
)
def test_labels_are_read_in_either_direction_and_as_text_or_number(
    tmp_path: Path, labels: dict[str, Any]
) -> None:
    spec = DatasetSpec.load(write(tmp_path, CONTENT | {"labels": labels}))
    assert list(spec.labels.names) == [0, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": {"background": 0, "whole": [1, 2]}}, r"regions \(whole\) are not supported"),
        ({"labels": {"background": 0, "ignore": 2}}, "ignored is not supported"),
        ({"labels": {"background": 0, "a": "one"}}, "not so: a"),
        ({"labels": ["background"]}, "labels must be given as"),
        ({"modality": {"first": "CT"}}, "channels must be numbers"),
        ({"modality": {}}, "channels must be given"),
        ({"training": {"x": "y"}}, "must be a list of cases"),
        ({"training": [{"picture": "x"}]}, "a case must be listed as"),
        ({"file_ending": ".dcm"}, r"'\.dcm' is not supported; known are \.nii\.gz"),
        ({"dataset": {}}, "'dataset', which lists files"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_form_that_can(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        DatasetSpec.load(write(tmp_path, CONTENT | change))


def test_misspelt_entries_that_are_not_needed_do_no_harm(tmp_path: Path) -> None:
    spec = DatasetSpec.load(write(tmp_path, CONTENT | {"relase": "1.0", "tensorImgeSize": "3D"}))
    assert spec.training == ("x",)


def test_images_listed_with_their_channel_number_are_the_case_of_their_label(
    tmp_path: Path,
) -> None:
    entry = {"image": "./imagesTr/vert_003_0000.nii.gz", "label": "./labelsTr/vert_003.nii.gz"}
    assert DatasetSpec.load(write(tmp_path, CONTENT | {"training": [entry]})).training == (
        "vert_003",
    )


def test_the_ending_is_that_of_the_listed_cases_where_none_is_stated(tmp_path: Path) -> None:
    content = CONTENT | {"training": ["./imagesTr/x.1.png"], "file_ending": None}
    spec = DatasetSpec.load(write(tmp_path, content))
    assert spec.file_ending == ".png" and spec.training == ("x.1",)


def test_labels_of_jpeg_images_are_png(tmp_path: Path) -> None:
    spec = DatasetSpec.load(write(tmp_path, CONTENT | {"file_ending": "jpg"}))
    files = spec.training_case(tmp_path, "x")
    assert files.images[0].name == "x_0000.jpg" and files.label == tmp_path / "labelsTr/x.png"


def test_a_colour_picture_is_one_file_of_three_channels(tmp_path: Path) -> None:
    content = CONTENT | {"modality": ["R", "G", "B"], "file_ending": ".png"}
    spec = DatasetSpec.load(write(tmp_path, content))
    assert len(spec.image_files(tmp_path, "x")) == 3
    (tmp_path / "x_0000.png").touch()
    assert [p.name for p in spec.image_files(tmp_path, "x")] == ["x_0000.png"]
    assert spec.training_case(tmp_path, "x").channels == 3


def test_an_official_decathlon_file_is_read(shared: Path) -> None:
    spec = DatasetSpec.load(shared / "data/Task04_Hippocampus/dataset.json")
    assert len(spec.training) == 156 and spec.modalities == {0: "MRI"}
