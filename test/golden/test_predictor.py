"""A Predictor gives what nnUNet_predict writes, bit for bit. Models were trained by v1."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetlike import Predictor
from nnunetlike.core.serialization import save_json
from nnunetlike.run.predict import main

TASK = "Task071_CTISO"
UNET, NESTED = "nnUNetTrainerV2__nnUNetPlans_tiny", "nnUNetPlusPlusTrainerV2__nnUNetPlans_upp"
MODELS = [
    ("2d", UNET, "2d", False),
    ("3d_fullres", UNET, "3d_fullres", False),
    ("3d_fullres", UNET, "3d_fullres", True),
    ("3d_fullres", NESTED, "unetplusplus", True),
]


def _folder(results: Path, configuration: str, model: str) -> Path:
    return results / "nnUNet" / configuration / TASK / model


def _read(path: Path) -> np.ndarray:
    return np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(str(path))))


@pytest.mark.slow
@pytest.mark.parametrize(("configuration", "model", "name", "tta"), MODELS)
def test_predictor_equals_the_command(
    golden: Path, home: Path, configuration: str, model: str, name: str, tta: bool
) -> None:
    shutil.copytree(golden / "model" / "RESULTS_FOLDER", home / "results")
    folder = _folder(home / "results", configuration, model)
    rules = {"for_which_classes": [[1, 2], 1], "min_valid_object_sizes": "None"}
    if configuration == "2d":
        save_json(rules, folder / "postprocessing.json")
    trainer, _, plans = model.partition("__")
    source = golden / "model" / "input" / "ct_test0_0000.nii.gz"
    options = () if tta else ("--disable_tta",)
    assert (
        main(
            ["-i", str(source.parent), "-o", str(home / "out"), "-t", "71", "-m", configuration,
             "-tr", trainer, "-p", plans, "--device", "cpu", "--num_threads_preprocessing", "0",
             "--num_threads_nifti_save", "0", *options]
        )
        == 0
    )  # fmt: skip
    written = _read(home / "out" / "ct_test0.nii.gz")
    predictor = Predictor.from_folder(folder, device="cpu", tta=tta)
    label, probabilities = predictor.predict(source, probabilities=True)
    assert np.array_equal(sitk.GetArrayFromImage(label), written)
    image = sitk.ReadImage(str(source))
    spacing = image.GetSpacing()[::-1]
    array = predictor.predict(sitk.GetArrayFromImage(image), spacing=spacing)
    assert np.array_equal(array, written)
    expected = golden / "model" / "expected" / f"{name}_{'tta' if tta else 'notta'}__ct_test0"
    if configuration != "2d":  # v1 had no postprocessing.json
        assert (written == _read(expected.with_name(f"{expected.name}.nii.gz"))).mean() > 0.999
    if tta:
        softmax = np.load(expected.with_name(f"{expected.name}.npz"))["softmax"]
        assert np.abs(probabilities - softmax).max() < 2e-3
    assert label.GetDirection() == image.GetDirection()
    assert label.GetOrigin() == image.GetOrigin()
