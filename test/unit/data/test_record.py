from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from nnunetlike.core.serialization import load_pickle, save_pickle
from nnunetlike.data.record import CaseRecord

RECORD = CaseRecord(
    original_size=(10, 20, 30),
    original_spacing=(3.0, 1.0, 1.0),
    image_files=("a_0000.nii.gz",),
    label_file="a.nii.gz",
    itk_origin=(0.0, -5.0, 1.0),
    itk_spacing=(1.0, 1.0, 3.0),
    itk_direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    crop_box=((0, 5), (2, 20), (0, 30)),
    classes=(-1.0, 0.0, 2.0),
    size_after_cropping=(5, 18, 30),
)


def test_size_reduction_is_the_share_that_is_left() -> None:
    assert RECORD.size_reduction == (5 * 18 * 30) / (10 * 20 * 30)


def test_a_record_survives_a_file(tmp_path: Path) -> None:
    locations = {1: np.arange(6).reshape(2, 3), 2: np.empty((0, 3), np.int64)}
    record = RECORD.resampled((5, 18, 30), (3.0, 1.0, 1.0), locations)
    save_pickle(record.to_v1(), tmp_path / "a.pkl")
    content = load_pickle(tmp_path / "a.pkl")
    assert content["class_locations"][2] == []
    found = CaseRecord.from_v1(content)
    assert found.crop_box == RECORD.crop_box and found.size_after_resampling == (5, 18, 30)
    assert found.class_locations is not None
    assert all(np.array_equal(found.class_locations[c], locations[c]) for c in locations)


def test_v1_properties_are_read_and_written_back_equal(golden: Path) -> None:
    cases = json.loads((golden / "pipeline/Task071_CTISO/cropped.json").read_text())
    for case in cases.values():
        properties = case["properties"]
        written = json.loads(json.dumps(CaseRecord.from_v1(properties).to_v1()))
        assert written == properties and list(written) == list(properties)
