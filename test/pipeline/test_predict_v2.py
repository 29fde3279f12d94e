"""nnUNet_predict finds models of nnU-Net v2 and predicts with them where they lie."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunetlike.core.serialization import save_json
from nnunetlike.networks import v2_networks
from nnunetlike.run.predict import main

Predict = Callable[..., int]
LEFT, RIGHT = 90, 110
"""Values on both sides of the mean, 100."""


@pytest.fixture
def model(home: Path, v2_models: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model in v2's place whose network calls label 1 what is above the training's mean."""
    monkeypatch.delenv("RESULTS_FOLDER")
    monkeypatch.setenv("nnUNet_results", str(home / "results"))
    monkeypatch.setattr(v2_networks, "_architectures", v2_models.stand_in)
    folder = home / "results" / "Dataset501_Cells" / v2_models.NAME
    return Path(v2_models.write_model(folder, {"weight": torch.ones(1)}))


@pytest.fixture
def predict(home: Path) -> Predict:
    """Predicts one image, twice as fine along W as the network sees it, in this process."""
    array = np.full((4, 8, 16), LEFT, np.int16)
    array[..., 8:] = RIGHT
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.5, 1.0, 2.0))
    (home / "images").mkdir()
    sitk.WriteImage(image, str(home / "images" / "a_0000.nii.gz"))

    def run(*options: str) -> int:
        return main(
            ["-i", str(home / "images"), "-o", str(home / "out"), "--device", "cpu",
             "--num_threads_preprocessing", "0", "--num_threads_nifti_save", "0", *options]
        )  # fmt: skip

    return run


@pytest.mark.parametrize("task", [["-t", "Dataset501_Cells"], ["-d", "501"]], ids=["name", "id"])
def test_models_of_v2_are_found_by_data_set_and_configuration(
    model: Path, predict: Predict, home: Path, task: list[str]
) -> None:
    assert predict(*task, "-m", "3d_fullres", "-z") == 0
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(home / "out" / "a.nii.gz")))
    assert label.shape == (4, 8, 16)
    assert not label[..., :7].any() and label[..., 9:].all()
    softmax = np.load(home / "out" / "a.npz")["softmax"]
    (low, high) = (1 / (1 + np.exp(-(value - 100) / 50)) for value in (LEFT, RIGHT))
    assert np.allclose(softmax[1, ..., :3], low, atol=2e-3)  # far from the edge, which splines blur
    assert np.allclose(softmax[1, ..., -3:], high, atol=2e-3)
    for name in ("plans.json", "dataset.json"):
        assert (home / "out" / name).read_bytes() == (model / name).read_bytes()


def test_a_folder_may_lie_anywhere_under_any_name(
    model: Path, predict: Predict, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.move(model, home / "copied")
    monkeypatch.delenv("nnUNet_results")
    assert predict("--model_folder", str(home / "copied")) == 0
    assert (home / "out" / "a.nii.gz").is_file()


def test_a_model_that_v2_did_not_train_is_answered_with_those_it_did(
    model: Path, predict: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("-t", "501", "-m", "2d") == 3
    message = capsys.readouterr().err
    assert "nnUNetTrainer__nnUNetPlans__2d" in message
    assert f"holds: {model.name}" in message


def test_a_model_of_v1_goes_before_one_of_v2(
    model: Path, predict: Predict, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = home / "results/nnUNet/3d_fullres/Dataset501_Cells/nnUNetTrainerV2__nnUNetPlansv2.1"
    (ours / "fold_0").mkdir(parents=True)
    assert predict("-t", "501") == 3
    assert f"{ours} has no fold_*" in capsys.readouterr().err


def test_two_data_sets_of_a_number_are_told_apart_by_name(
    model: Path, predict: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(model, model.parents[1] / "Dataset501_Others" / model.name)
    assert predict("-t", "501") == 2
    assert "Dataset501_Cells, Dataset501_Others. Give the full name" in capsys.readouterr().err


def test_a_cascade_of_v2_is_refused(
    model: Path, predict: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("-t", "501", "-m", "3d_cascade_fullres") == 2
    assert "cascades of nnU-Net v2" in capsys.readouterr().err


def test_without_a_model_the_message_says_how_to_name_one(
    predict: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict() == 2
    assert "either with -t (and -m, -tr, -p) or with --model_folder" in capsys.readouterr().err
    assert predict("--model_folder", "somewhere", "-m", "3d_cascade_fullres") == 2
    assert "needs the predictions of 3d_lowres (-l)" in capsys.readouterr().err


def test_images_are_normalised_before_they_are_resampled(
    model: Path, predict: Predict, home: Path, v2_models: ModuleType
) -> None:
    plans = v2_models.plans_json()
    chosen = plans["configurations"]["3d_fullres"]
    linear = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": False}
    chosen["resampling_fn_data_kwargs"] = chosen["resampling_fn_probabilities_kwargs"] = linear
    chosen["spacing"] = [2.0, 1.0, 0.25]
    known = plans["foreground_intensity_properties_per_channel"]["0"]
    known |= {"mean": 100.5, "std": 1.0, "percentile_00_5": 100.0, "percentile_99_5": 101.0}
    save_json(plans, model / "plans.json")
    bright = np.full((4, 8, 16), 100, np.int16)
    bright[..., 8:] = 10_000
    image = sitk.GetImageFromArray(bright)
    image.SetSpacing((0.5, 1.0, 2.0))
    sitk.WriteImage(image, str(home / "images" / "a_0000.nii.gz"))
    assert predict("-t", "501") == 0
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(home / "out" / "a.nii.gz")))
    # Clipped first, the edge lies midway and stays there. Clipped last, the voxels that
    # interpolation makes below the edge are far above 101 and belong to the right.
    assert not label[..., :8].any() and label[..., 8:].all()
