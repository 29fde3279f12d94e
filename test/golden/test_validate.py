"""Validating models that nnU-Net v1 trained gives the summary it wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunetlike.core.serialization import load_json
from nnunetlike.data.case import CaseFiles
from nnunetlike.data.store import CaseStore
from nnunetlike.inference.validate import validate
from nnunetlike.inference.validation_settings import ValidationSettings
from nnunetlike.networks.model_files import ModelFile, find_checkpoint, load_model_file
from nnunetlike.preprocessing.preprocessor import Preprocessor, read_and_crop

CASES = ("ct_16", "ct_7")


def _raw(golden: Path, folder: Path, case: str) -> CaseFiles:
    with np.load(golden / "raw" / "Task71_CTISO.npz") as arrays:
        meta = json.loads(bytes(arrays["meta_json"]))["cases"][case]
        voxels = {"_0000": arrays[f"{case}__img0"], "": arrays[f"{case}__seg"]}
    for ending, array in voxels.items():
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(meta["spacing_zyx"][::-1])
        image.SetOrigin(meta["origin_xyz"])
        image.SetDirection(meta["direction"])
        sitk.WriteImage(image, str(folder / f"{case}{ending}.nii.gz"))
    return CaseFiles(
        case_id=case,
        images=(folder / f"{case}_0000.nii.gz",),
        label=folder / f"{case}.nii.gz",
    )


def _prepared(golden: Path, folder: Path, model: ModelFile) -> CaseStore:
    store = CaseStore(folder / "store")
    for case in CASES:
        cropped, record = read_and_crop(_raw(golden, folder, case))
        prepared = Preprocessor(model.plans, model.stage).apply(cropped, record)
        data = np.concatenate([prepared.image, prepared.label[None]]).astype(np.float32)
        store.write(case, data, prepared.record)
    return store


def _model(golden: Path, configuration: str) -> ModelFile:
    folder = golden / "model/RESULTS_FOLDER/nnUNet" / configuration / "Task071_CTISO"
    return load_model_file(
        find_checkpoint(folder / "nnUNetTrainerV2__nnUNetPlans_tiny" / "fold_0", None)
    )


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_summaries_are_v1s(golden: Path, tmp_path: Path, configuration: str) -> None:
    model = _model(golden, configuration)
    store = _prepared(golden, tmp_path, model)
    network = model.build().train()
    network.deep_supervision = True  # type: ignore[assignment]
    output = tmp_path / "validation_raw"
    expected = load_json(golden / "model" / f"validation_summary_{configuration}.json")
    found = validate(
        network, model.plans, model.stage, store, CASES, tmp_path, output,
        ValidationSettings(device=torch.device("cpu"), save_npz=True, processes=0),
        task="Task071_CTISO", name="nnUNetTrainerV2 val tiled True",
    )  # fmt: skip
    for key in ("name", "task", "author", "description"):
        assert found[key] == expected[key]
    for case, reference in zip(found["results"]["all"], expected["results"]["all"], strict=True):
        assert Path(case["test"]).name == reference["test"]
        _assert_same_scores(case, reference)
    arguments = load_json(golden / "model" / f"validation_args_{configuration}.json")
    assert load_json(output / "validation_args.json") == arguments
    assert network.training and network.deep_supervision
    assert {p.name for p in output.iterdir()} == {
        *(f"{case}{ending}" for case in CASES for ending in (".nii.gz", ".npz", ".pkl")),
        "summary.json",
        "validation_args.json",
    }


def test_finished_cases_are_left_when_asked_for(golden: Path, tmp_path: Path) -> None:
    model = _model(golden, "2d")
    store = _prepared(golden, tmp_path, model)
    output = tmp_path / "validation_raw"
    output.mkdir()
    for case in CASES:  # predictions that no network would make: the references
        (output / f"{case}.nii.gz").write_bytes((tmp_path / f"{case}.nii.gz").read_bytes())
    found = validate(
        model.build(), model.plans, model.stage, store, CASES, tmp_path, output,
        ValidationSettings(device=torch.device("cpu"), overwrite=False, processes=0),
        task="Task071_CTISO", name="again",
    )  # fmt: skip
    assert found["results"]["mean"]["1"]["Dice"] == 1


def _assert_same_scores(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for label in ("0", "1", "2"):
        for metric, value in expected[label].items():
            assert found[label][metric] == pytest.approx(
                float(value), rel=1e-6, abs=1e-9, nan_ok=True
            ), (
                label,
                metric,
            )
