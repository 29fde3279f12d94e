"""A two-stage task of realistic size against nnU-Net 1.7.1 (golden/open/pipeline_big)."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunetlike.data.record import CaseRecord
from nnunetlike.experiment_planning.planners import PLANNERS
from nnunetlike.plans.plans import Plans
from nnunetlike.plans.v1 import fingerprint_from_v1, plans_to_v1
from nnunetlike.preprocessing.cropping import crop_to_nonzero
from nnunetlike.preprocessing.intensities import foreground_sample, intensity_statistics
from nnunetlike.preprocessing.preprocessor import Preprocessor


def content(golden: Path, name: str) -> Any:
    return json.loads((golden / "pipeline_big" / name).read_text())


def plan(golden: Path, dimension: str) -> Plans:
    properties = content(golden, f"nnUNetPlansv2.1_plans_{dimension}.json")["value"]
    fingerprint = fingerprint_from_v1(properties["dataset_properties"])
    return PLANNERS.get(f"ExperimentPlanner{dimension}_v21").plan(fingerprint)


@pytest.mark.parametrize("dimension", ["3D", "2D"])
def test_plans_are_those_of_v1(golden: Path, dimension: str) -> None:
    expected = content(golden, f"nnUNetPlansv2.1_plans_{dimension}.json")
    found = plans_to_v1(plan(golden, dimension))
    assert list(found) == expected["key_order"]
    found = json.loads(json.dumps(found))
    for key in expected["value"].keys() - {"list_of_npz_files", "preprocessed_data_folder"}:
        assert found[key] == expected["value"][key], key


def cases(golden: Path) -> Iterator[tuple[str, Any, Any, tuple[float, ...]]]:
    """Yield (id, image (D, H, W) int16, label, spacing) as golden/make_datasets.py builds them."""
    spec = importlib.util.spec_from_file_location(
        "make_datasets", golden.parent / "make_datasets.py"
    )
    assert spec is not None and spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    for task, settings in json.loads((golden / "params_big.json").read_text()).items():
        for case_id, channels, label, spacing, _, _ in maker.build(task, settings):
            yield case_id, channels[0], label, spacing


@pytest.mark.slow
def test_both_stages_of_a_large_image_are_those_of_v1(golden: Path) -> None:
    expected = content(golden, "big.json")
    plans = plan(golden, "3D")
    assert plans.fingerprint.intensities is not None
    spacings = dict(zip(plans.fingerprint.size_reductions, plans.fingerprint.spacings, strict=True))
    with np.load(golden / "pipeline_big" / "samples.npz") as samples:
        case_id, image, label, _ = next(cases(golden))  # one of three, to spare time
        found = hashlib.sha1(image.tobytes()).hexdigest()
        assert found == expected["raw"][case_id]["sha1_img_int16"][0]
        cropped = crop_to_nonzero(image[None].astype(np.float32), label)
        sample = foreground_sample(cropped.image[0], cropped.label)
        statistics = plans.fingerprint.intensities[0].by_case[case_id]
        assert intensity_statistics(sample).mean == pytest.approx(statistics.mean, rel=1e-6)
        record = record_of(cropped.label.shape, spacings[case_id], cropped.box)
        for stage in plans.stages:
            prepared = Preprocessor(plans, stage).apply(cropped, record)
            name = f"nnUNetData_plans_v2.1_stage{stage}"
            facts = expected["preprocessed"][f"{name}/{case_id}"]
            compare(prepared.image, prepared.label, prepared.record, facts)
            stride = (slice(3, None, 9), slice(4, None, 11), slice(5, None, 10))
            data, seg = (samples[f"{name}__{case_id}__{what}"] for what in ("data", "seg"))
            difference = np.abs(prepared.image[(slice(None), *stride)] - data).max()
            assert difference <= 1e-6 * np.ptp(image) / plans.fingerprint.intensities[0].overall.sd
            assert np.array_equal(prepared.label[stride], seg)


def record_of(shape: Any, spacing: Any, box: Any) -> CaseRecord:
    return CaseRecord(
        original_size=shape,
        original_spacing=spacing,
        image_files=(),
        label_file=None,
        itk_origin=(0, 0, 0),
        itk_spacing=spacing[::-1],
        itk_direction=(1, 0, 0, 0, 1, 0, 0, 0, 1),
        crop_box=box,
        classes=(),
        size_after_cropping=shape,
    )


def compare(image: Any, label: Any, record: CaseRecord, facts: dict[str, Any]) -> None:
    assert list(record.size_after_resampling or ()) == facts["size_after_resampling"]
    assert list(record.spacing_after_resampling or ()) == facts["spacing_after_resampling"]
    values, counts = np.unique(label, return_counts=True)
    counted = {str(v): int(n) for v, n in zip(values, counts, strict=True)}
    assert counted == facts["label_counts"]
    assert image.mean(dtype=np.float64) == pytest.approx(facts["stats_per_channel"][0]["mean"])
    sizes = {str(k): len(v) for k, v in (record.class_locations or {}).items()}
    assert sizes == facts["class_locations_len"]
