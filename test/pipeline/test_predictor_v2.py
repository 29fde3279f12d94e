"""A Predictor of a model of nnU-Net v2 gives what nnUNet_predict writes."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunetlike import Predictor
from nnunetlike.networks import v2_networks
from nnunetlike.run.predict import main


def test_labels_and_probabilities_are_those_of_the_command(
    home: Path, v2_models: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(v2_networks, "_architectures", v2_models.stand_in)
    model = v2_models.write_model(home / v2_models.NAME, {"weight": torch.ones(1)})
    voxels = np.random.default_rng(0).normal(100, 20, (4, 8, 16)).astype(np.float32)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((0.5, 1.0, 2.0))
    (home / "images").mkdir()
    sitk.WriteImage(image, str(home / "images" / "a_0000.nii.gz"))
    words = ["-i", str(home / "images"), "-o", str(home / "out"), "--device", "cpu", "-z",
             "--num_threads_preprocessing", "0", "--num_threads_nifti_save", "0"]  # fmt: skip
    assert main([*words, "--model_folder", str(model)]) == 0
    written = sitk.GetArrayFromImage(sitk.ReadImage(str(home / "out" / "a.nii.gz")))
    predictor = Predictor.from_folder(model, device="cpu")
    label, probabilities = predictor.predict(image, probabilities=True)
    assert np.array_equal(sitk.GetArrayFromImage(label), written)
    kept = np.load(home / "out" / "a.npz")["softmax"]
    assert np.allclose(probabilities, kept, atol=1e-3)
    assert np.allclose(probabilities.sum(0), 1, atol=1e-5)
