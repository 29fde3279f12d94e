"""nnUNet_predict with models that nnU-Net v1 trained gives v1's predictions."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetlike.core.serialization import load_json
from nnunetlike.run.predict import main

# v1's fast modes were run without mirrored views.
U_NET = ["-tr", "nnUNetTrainerV2", "-p", "nnUNetPlans_tiny"]
UNET_PLUS_PLUS = ["-tr", "nnUNetPlusPlusTrainerV2", "-p", "nnUNetPlans_upp"]
SETTINGS = {
    "3d_fullres_tta": [*U_NET, "-z"],
    "3d_fullres_notta": [*U_NET, "--disable_tta", "-z"],
    "3d_fullres_notta_step0.75": [*U_NET, "--disable_tta", "--step_size", "0.75"],
    "3d_fullres_mode-fast": [*U_NET, "--mode", "fast", "--disable_tta"],
    "3d_fullres_mode-fastest": [*U_NET, "--mode", "fastest", "--disable_tta"],
    "2d_tta": [*U_NET, "-m", "2d", "-z"],
    "2d_notta": [*U_NET, "-m", "2d", "--disable_tta"],
    "unetplusplus_tta": [*UNET_PLUS_PLUS, "-z"],
    "unetplusplus_notta": [*UNET_PLUS_PLUS, "--disable_tta"],
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_models_of_v1_predict_what_they_predicted_there(
    golden: Path, home: Path, setting: str
) -> None:
    shutil.copytree(golden / "model" / "RESULTS_FOLDER", home / "results")
    output = home / "predictions"
    status = main(
        ["-i", str(golden / "model" / "input"), "-o", str(output), "-t", "Task071_CTISO",
         "--device", "cpu", "--num_threads_preprocessing", "0", "--num_threads_nifti_save", "0",
         *SETTINGS[setting]]
    )  # fmt: skip
    assert status == 0
    expected_file = golden / "model" / "expected" / f"{setting}__ct_test0"
    expected = sitk.ReadImage(f"{expected_file}.nii.gz")
    found = sitk.ReadImage(str(output / "ct_test0.nii.gz"))
    same = sitk.GetArrayFromImage(found) == sitk.GetArrayFromImage(expected)
    assert same.mean() > 0.9999
    for geometry in ("GetSpacing", "GetOrigin", "GetDirection", "GetPixelIDTypeAsString"):
        assert getattr(found, geometry)() == getattr(expected, geometry)()
    assert (output / "plans.pkl").is_file()
    assert load_json(output / "prediction_time.txt") > 0
    if "-z" in SETTINGS[setting] and Path(f"{expected_file}.npz").is_file():
        softmax = np.load(output / "ct_test0.npz")["softmax"].astype(np.float32)
        reference = np.load(f"{expected_file}.npz")["softmax"].astype(np.float32)
        assert np.abs(softmax - reference).max() < 1e-3
