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


def test_labels_by_name_are_refused_with_the_form_that_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must be numbers"):
        DatasetSpec.load(write(tmp_path, CONTENT | {"labels": {"background": 0}}))


def test_an_official_decathlon_file_is_read(shared: Path) -> None:
    spec = DatasetSpec.load(shared / "data/Task04_Hippocampus/dataset.json")
    assert len(spec.training) == 156 and spec.modalities == {0: "MRI"}
