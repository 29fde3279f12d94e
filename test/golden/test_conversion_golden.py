"""The decathlon converter against what nnU-Net v1's wrote (golden/open/pipeline/*/conversion.json).

v1 also deleted hidden files from its source (`removed_from_source`); ours must not.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetlike.data.doctor.examination import examine_task
from nnunetlike.run.convert_decathlon_task import main

TASKS = ("Task71_CTISO", "Task72_MRANISO", "Task73_BRAIN2", "Task74_SLICE2D")
JUNK = ("._dataset.json", "imagesTr/._junk.nii.gz", "imagesTs/._junk.nii.gz",
        "labelsTr/._junk.nii.gz")  # fmt: skip


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha1(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def write_task(golden: Path, home: Path, task: str) -> Path:
    """Write a task of the decathlon from golden voxels, with hidden files as macOS leaves them."""
    source = home / task
    with np.load(golden / "raw" / f"{task}.npz") as arrays:
        meta = json.loads(bytes(arrays["meta_json"]))
        for case_id, facts in meta["cases"].items():
            channels = [arrays[f"{case_id}__img{c}"] for c in range(facts["channels"])]
            kind = "imagesTs" if facts["is_test"] else "imagesTr"
            write_image(source / kind / f"{case_id}.nii.gz", channels, facts)
            if not facts["is_test"]:
                label = arrays[f"{case_id}__seg"]
                write_image(source / "labelsTr" / f"{case_id}.nii.gz", [label], facts)
    for name in JUNK:
        (source / name).write_bytes(b"junk")
    return source


def write_image(path: Path, channels: list[Any], facts: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    spacing, direction = facts["spacing_zyx"][::-1], np.reshape(facts["direction"], (3, 3))
    if len(channels) == 1:
        image = sitk.GetImageFromArray(channels[0])
        image.SetSpacing(spacing)
        image.SetOrigin(facts["origin_xyz"])
        image.SetDirection(direction.ravel().tolist())
    else:
        image = sitk.GetImageFromArray(np.stack(channels), isVector=False)
        image.SetSpacing([*spacing, 1.0])
        image.SetOrigin([*facts["origin_xyz"], 0.0])
        whole = np.eye(4)
        whole[:3, :3] = direction
        image.SetDirection(whole.ravel().tolist())
    sitk.WriteImage(image, str(path))


def geometry_of(path: Path) -> dict[str, Any]:
    if path.suffix == ".json":
        return {}
    image = sitk.ReadImage(str(path))
    return {
        "size_xyz": list(image.GetSize()),
        "spacing_xyz": list(image.GetSpacing()),
        "origin": list(image.GetOrigin()),
        "direction": list(image.GetDirection()),
        "dtype": image.GetPixelIDTypeAsString(),
    }


@pytest.mark.parametrize("task", TASKS)
def test_files_are_those_of_v1_and_the_source_stays(golden: Path, home: Path, task: str) -> None:
    wanted = json.loads((golden / "pipeline" / f"Task0{task[4:]}" / "conversion.json").read_text())
    source = write_task(golden, home / "msd", task)
    (source / "dataset.json").write_text(json.dumps(wanted["dataset_json"]))
    before = hashes(source)

    assert main(["-i", str(source), "-p", "1"]) == 0
    assert main(["-i", f"{source}//", "-p", "1", "-output_task_id", str(500 + int(task[4:6]))]) == 0

    assert hashes(source) == before
    raw = home / "raw" / "nnUNet_raw_data"
    found = {
        str(path.relative_to(raw)): geometry_of(path) for path in raw.rglob("*") if path.is_file()
    }
    assert found == wanted["files"]
    for name in wanted["files"]:
        if name.endswith("dataset.json"):
            assert json.loads((raw / name).read_text()) == wanted["dataset_json"]


@pytest.mark.parametrize("task", TASKS)
def test_voxels_survive_and_the_task_is_sound(golden: Path, home: Path, task: str) -> None:
    wanted = json.loads((golden / "pipeline" / f"Task0{task[4:]}" / "conversion.json").read_text())
    source = write_task(golden, home / "msd", task)
    (source / "dataset.json").write_text(json.dumps(wanted["dataset_json"]))
    assert main(["-i", str(source), "-p", "1"]) == 0
    folder = home / "raw" / "nnUNet_raw_data" / f"Task0{task[4:]}"
    with np.load(golden / "raw" / f"{task}.npz") as arrays:
        for name in arrays.files:
            case_id, _, kind = name.partition("__")
            for image in folder.glob(f"images*/{case_id}_000{kind[3:]}.nii.gz"):
                voxels = sitk.GetArrayFromImage(sitk.ReadImage(str(image)))
                assert np.array_equal(voxels, arrays[name])
    examination = examine_task(folder, processes=1)
    assert examination.spec.training and not examination.errors
