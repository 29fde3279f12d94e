"""Cropping, fingerprint, plans and preprocessed cases against nnU-Net 1.7.1 (golden/open/pipeline).

The raw tasks are laid out from the voxels in golden/open/raw, as conversion would.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetlike.data.record import CaseRecord
from nnunetlike.data.store import CaseStore
from nnunetlike.experiment_planning.extract_fingerprint import extract_fingerprint
from nnunetlike.experiment_planning.planners import PLANNERS
from nnunetlike.plans.fingerprint import Fingerprint
from nnunetlike.plans.plans import Plans
from nnunetlike.plans.v1 import fingerprint_to_v1, intensities_to_v1, plans_to_v1
from nnunetlike.preprocessing.pipeline import preprocess_dataset
from nnunetlike.run.plan_and_preprocess import main

TASKS = ["Task071_CTISO", "Task072_MRANISO", "Task073_BRAIN2", "Task074_SLICE2D"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What our pipeline made of one golden task."""

    cropped: CaseStore
    preprocessed: Path
    fingerprint: Fingerprint
    plans: dict[str, Plans]
    golden: Path

    def expected(self, name: str) -> Any:
        return json.loads((self.golden / name).read_text())


def write_volume(voxels: Any, case: dict[str, Any], path: Path) -> None:
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(tuple(case["spacing_zyx"][::-1]))
    image.SetOrigin(tuple(case["origin_xyz"]))
    image.SetDirection(tuple(case["direction"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def lay_out_raw_task(archive: Path, folder: Path) -> None:
    with np.load(archive) as arrays:
        meta = json.loads(arrays["meta_json"].tobytes())
        training = [case_id for case_id, case in meta["cases"].items() if not case["is_test"]]
        for case_id in training:
            case = meta["cases"][case_id]
            for channel in range(case["channels"]):
                target = folder / "imagesTr" / f"{case_id}_{channel:04d}.nii.gz"
                write_volume(arrays[f"{case_id}__img{channel}"], case, target)
            write_volume(arrays[f"{case_id}__seg"], case, folder / f"labelsTr/{case_id}.nii.gz")
    content = {
        "name": folder.name,
        "modality": meta["modality"],
        "labels": meta["labels"],
        "training": [
            {"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in training
        ],
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(content))


@pytest.fixture(scope="module", params=TASKS)
def run(
    request: pytest.FixtureRequest, golden: Path, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    task: str = request.param
    home = tmp_path_factory.mktemp(task)
    raw, preprocessed = home / "raw" / task, home / "preprocessed" / task
    lay_out_raw_task(golden / "raw" / f"{task.replace('Task0', 'Task')}.npz", raw)
    cropped = CaseStore(home / "cropped" / task)
    fingerprint = extract_fingerprint(raw, cropped.folder, processes=1)
    plans = {}
    for dimension in ("3D", "2D"):
        plan = PLANNERS.get(f"ExperimentPlanner{dimension}_v21").plan(fingerprint)
        plans[dimension] = replace(plan, preprocessed_folder=f"<preprocessed>/{task}")
        preprocess_dataset(
            [plan], cropped, preprocessed, list(fingerprint.size_reductions), processes=lambda *_: 1
        )
    return Run(
        cropped=cropped,
        preprocessed=preprocessed,
        fingerprint=fingerprint,
        plans=plans,
        golden=golden / "pipeline" / task,
    )


def as_json(value: Any) -> Any:
    """What json makes of `value`, NaN as the golden files write it."""
    return json.loads(json.dumps(value), parse_constant=lambda _: "NaN")


def properties(record: CaseRecord) -> dict[str, Any]:
    """v1's properties with file names instead of paths, without class locations."""
    content = {k: v for k, v in record.to_v1().items() if k != "class_locations"}
    content["list_of_data_files"] = [Path(p).name for p in content["list_of_data_files"]]
    content["seg_file"] = Path(content["seg_file"]).name
    return dict(as_json(content))


def test_cropped_cases_are_those_of_v1(run: Run) -> None:
    for case_id, expected in run.expected("cropped.json").items():
        assert properties(run.cropped.record(case_id)) == expected["properties"], case_id
        data = run.cropped.load(case_id)
        assert data.dtype == np.float32
        found = hashlib.sha1(np.ascontiguousarray(data).tobytes()).hexdigest()
        assert found == expected["sha1_float32_c_order"], case_id


def test_fingerprint_is_that_of_v1(run: Run) -> None:
    expected = run.expected("dataset_properties.json")["value"]
    found = as_json(fingerprint_to_v1(run.fingerprint))
    intensities, expected_intensities = (
        content.pop("intensityproperties") for content in (found, expected)
    )
    assert found == expected
    assert close(intensities, expected_intensities, relative=1e-6)


def test_intensities_are_those_of_v1(run: Run) -> None:
    if run.fingerprint.intensities is None:
        assert not (run.golden / "intensityproperties.json").exists()
        return
    expected = run.expected("intensityproperties.json")
    found = as_json(intensities_to_v1(run.fingerprint.intensities))
    assert close(found, expected, relative=1e-6)


def close(found: Any, expected: Any, *, relative: float) -> bool:
    """Same structure and order of keys; numbers within `relative`."""
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(
            close(found[key], expected[key], relative=relative) for key in expected
        )
    if isinstance(expected, float):
        return bool(found == pytest.approx(expected, rel=relative))
    return bool(found == expected)


@pytest.mark.parametrize("dimension", ["3D", "2D"])
def test_plans_are_those_of_v1(run: Run, dimension: str) -> None:
    golden = run.expected(f"nnUNetPlansv2.1_plans_{dimension}.json")
    files = tuple(f"{case_id}.npz" for case_id in run.fingerprint.size_reductions)
    found = plans_to_v1(replace(run.plans[dimension], case_files=files))
    ours = ["orientation"] if run.fingerprint.orientation else []
    assert list(found) == [*golden["key_order"], *ours]
    content, expected = as_json(found), golden["value"]
    for key in expected.keys() - {"dataset_properties"}:
        assert content[key] == expected[key], key
    for number, stage in expected["plans_per_stage"].items():
        assert list(content["plans_per_stage"][number]) == list(stage)


@pytest.mark.parametrize(
    "folder", ["nnUNetData_plans_v2.1_stage0", "nnUNetData_plans_v2.1_2D_stage0"]
)
def test_preprocessed_cases_are_those_of_v1(run: Run, folder: str) -> None:
    store = CaseStore(run.preprocessed / folder)
    for case_id, expected in run.expected(f"{folder}__properties.json").items():
        record = store.record(case_id)
        assert properties(record) == expected["properties"], case_id
        assert record.class_locations is not None
        sizes = {str(label): len(found) for label, found in record.class_locations.items()}
        assert sizes == expected["class_locations_len"]
    with np.load(run.golden / f"{folder}.npz") as arrays:
        for name in arrays.files:
            case_id, what = name.rsplit("__", 1)
            data = store.load(case_id)
            assert data.dtype == np.float32
            if what == "seg":
                assert np.array_equal(data[-1], arrays[name]), name
            else:
                error = np.abs(data[:-1] - arrays[name]).max()
                assert error <= 1e-6 * np.ptp(arrays[name]), name


@pytest.mark.parametrize(
    "folder", ["nnUNetData_plans_v2.1_stage0", "nnUNetData_plans_v2.1_2D_stage0"]
)
def test_class_locations_are_those_of_v1(run: Run, folder: str) -> None:
    store = CaseStore(run.preprocessed / folder)
    with np.load(run.golden / f"{folder}__class_locations.npz") as arrays:
        for name in arrays.files:
            case_id, label = name.rsplit("__", 1)
            locations = store.record(case_id).class_locations
            assert locations is not None
            assert np.array_equal(locations[int(label)], arrays[name]), name


def test_files_are_those_of_v1(run: Run) -> None:
    expected = run.expected("tree.json")["cropped"]
    home = run.cropped.folder
    found = {str(p.relative_to(home)) for p in home.rglob("*") if p.is_file()}
    assert set(expected) <= found
    assert all(name.endswith(".json") for name in found - set(expected))


def test_the_command_writes_all_files_of_v1(golden: Path, home: Path) -> None:
    task = "Task074_SLICE2D"
    raw = home / "raw"
    lay_out_raw_task(golden / "raw" / "Task74_SLICE2D.npz", raw / "nnUNet_raw_data" / task)
    assert main(["-t", "74", "-tf", "1", "-tl", "1"]) == 0
    tree = json.loads((golden / "pipeline" / task / "tree.json").read_text())
    # twins, what made the cases, and folds that v1 makes when training
    ours_alone = (".json", ".jsonl", "splits_final.pkl")
    v1s_alone = ("plans_3D.pkl", "nnUNetData_plans_v2.1_stage0/")  # pictures are planned in 2D only
    for part, folder in (
        ("cropped", raw / "nnUNet_cropped_data" / task),
        ("preprocessed", home / "preprocessed" / task),
    ):
        found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        wanted = {name for name in tree[part] if not any(word in name for word in v1s_alone)}
        assert wanted <= found
        assert all(name.endswith(ours_alone) for name in found - wanted)
