"""nnUNet_predict over folders: workers, folds, checkpoints, faults. Models were trained by v1."""

from __future__ import annotations

import gzip
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunetlike.core.errors import DataError
from nnunetlike.core.serialization import save_json
from nnunetlike.inference.averaging import mean_over_folds
from nnunetlike.inference.export import ExportSettings
from nnunetlike.inference.model_bundle import load_bundle
from nnunetlike.inference.settings import PredictionSettings
from nnunetlike.networks.model_files import load_model_file
from nnunetlike.run.predict import main

CPU = torch.device("cpu")
Run = Callable[..., int]


@pytest.fixture
def model(golden: Path, home: Path) -> Path:
    """The 2D model of v1 in a results folder of its own."""
    shutil.copytree(golden / "model" / "RESULTS_FOLDER", home / "results")
    return home / "results/nnUNet/2d/Task071_CTISO/nnUNetTrainerV2__nnUNetPlans_tiny"


@pytest.fixture
def images(golden: Path, home: Path) -> Path:
    """Two cases; the second is the first upside down."""
    folder = home / "images"
    folder.mkdir()
    source = golden / "model" / "input" / "ct_test0_0000.nii.gz"
    shutil.copyfile(source, folder / "a_0000.nii.gz")
    image = sitk.ReadImage(str(source))
    sitk.WriteImage(image[:, :, ::-1], str(folder / "b_0000.nii.gz"))
    return folder


@pytest.fixture
def run(model: Path, images: Path, home: Path) -> Run:
    """Run nnUNet_predict with the 2D model, without mirroring, in this process."""

    def predict(*options: str) -> int:
        return main(
            ["-i", str(images), "-o", str(home / "out"), "-t", "71", "-m", "2d", "-p",
             "nnUNetPlans_tiny", "--device", "cpu", "--disable_tta",
             "--num_threads_preprocessing", "0", "--num_threads_nifti_save", "0", *options]
        )  # fmt: skip

    return predict


def _labels(path: Path) -> np.ndarray:
    return np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(str(path))))


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_workers_write_what_one_process_writes(run: Run, home: Path) -> None:
    assert run() == 0
    alone = {case: _labels(home / "out" / f"{case}.nii.gz") for case in "ab"}
    workers = ["--num_threads_preprocessing", "1", "--num_threads_nifti_save", "1"]
    assert run("--overwrite_existing", "-z", *workers) == 0
    for case, label in alone.items():
        assert np.array_equal(_labels(home / "out" / f"{case}.nii.gz"), label)
    expected = {f"{case}{ending}" for case in "ab" for ending in (".nii.gz", ".npz", ".pkl")}
    assert _names(home / "out") == expected | {"plans.pkl", "prediction_time.txt"}


def test_a_case_that_fails_is_named_and_the_others_are_written(
    run: Run, images: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "aa_0000.nii.gz").write_bytes(b"not an image")
    assert run("--num_threads_preprocessing", "2") == 3
    message = capsys.readouterr().err
    assert "1 of 3 cases failed" in message and "aa: " in message
    assert {"a.nii.gz", "b.nii.gz"} < _names(home / "out")
    assert "aa.nii.gz" not in _names(home / "out")


def test_finished_cases_are_left_unless_overwritten(run: Run, home: Path) -> None:
    (home / "out").mkdir()
    (home / "out" / "a.nii.gz").write_bytes(gzip.compress(b"kept"))
    assert run() == 0
    assert gzip.decompress((home / "out" / "a.nii.gz").read_bytes()) == b"kept"
    assert run("--overwrite_existing") == 0
    assert _labels(home / "out" / "a.nii.gz").shape == (42, 41, 53)


def test_a_truncated_prediction_is_noticed_and_made_again(
    run: Run, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert run() == 0
    whole = {case: (home / "out" / f"{case}.nii.gz").read_bytes() for case in "ab"}
    (home / "out" / "b.nii.gz").write_bytes(whole["b"][: len(whole["b"]) // 2])
    before = (home / "out" / "a.nii.gz").stat().st_mtime_ns
    with caplog.at_level(logging.INFO, "nnunetlike"):
        assert run() == 0
    assert (home / "out" / "b.nii.gz").read_bytes() == whole["b"]
    assert (home / "out" / "a.nii.gz").stat().st_mtime_ns == before
    assert "b.nii.gz is truncated or damaged; predicting it again" in caplog.messages
    assert "1 of 2 cases are done already" in caplog.messages


def test_a_case_without_its_probabilities_is_not_finished_with_save_npz(
    run: Run, home: Path
) -> None:
    (home / "out").mkdir()
    (home / "out" / "a.nii.gz").write_text("half")
    assert run("-z") == 0
    assert "a.npz" in _names(home / "out")


def test_parts_share_the_cases(run: Run, home: Path) -> None:
    assert run("--part_id", "1", "--num_parts", "2") == 0
    assert {n for n in _names(home / "out") if n.endswith(".nii.gz")} == {"b.nii.gz"}


def test_postprocessing_of_the_model_is_copied_and_applied(
    run: Run, model: Path, home: Path
) -> None:
    assert run() == 0
    before = _labels(home / "out" / "a.nii.gz")
    save_json(
        {"for_which_classes": [[1, 2]], "min_valid_object_sizes": "None"},
        model / "postprocessing.json",
    )
    assert run("--overwrite_existing") == 0
    after = _labels(home / "out" / "a.nii.gz")
    assert "postprocessing.json" in _names(home / "out")
    assert 0 < (after > 0).sum() < (before > 0).sum()


def test_probabilities_of_folds_are_averaged(model: Path) -> None:
    shutil.copytree(model / "fold_0", model / "fold_1")
    path = model / "fold_1" / "model_final_checkpoint.model"
    content = torch.load(path, weights_only=False)
    for tensor in content["state_dict"].values():
        tensor.mul_(0.9)
    torch.save(content, path)
    image = np.random.default_rng(0).normal(size=(1, 2, 48, 48)).astype(np.float32)
    settings = PredictionSettings(device=CPU, mirror=False)
    single = [mean_over_folds(load_bundle(model, [fold]), image, settings) for fold in (0, 1)]
    bundle = load_bundle(model)
    assert bundle.folds == ("fold_0", "fold_1")
    assert np.abs(single[0] - single[1]).max() > 1e-3
    for _ in range(2):  # weights are swapped back for the next image
        found = mean_over_folds(bundle, image, settings)
        assert found == pytest.approx((single[0] + single[1]) / 2, abs=1e-6)


def test_the_fold_all_is_used_when_asked_for(model: Path) -> None:
    (model / "fold_0").rename(model / "all")
    with pytest.raises(DataError, match="Ask for the fold 'all'"):
        load_bundle(model)
    assert load_bundle(model, ["all"]).folds == ("all",)


def test_a_missing_checkpoint_is_replaced_with_a_warning(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = load_bundle(model, [0], "model_best")
    assert "model_best.model; taking model_final_checkpoint.model" in caplog.text
    assert bundle.checkpoints[0].name == "model_final_checkpoint.model"


def test_missing_folds_are_listed_with_those_found(model: Path) -> None:
    with pytest.raises(DataError, match="no checkpoint for fold_3; folds found: fold_0"):
        load_bundle(model, [0, 3])


def test_a_missing_model_is_answered_with_those_that_exist(model: Path) -> None:
    with pytest.raises(DataError, match="holds: nnUNetTrainerV2__nnUNetPlans_tiny"):
        load_bundle(model.parent / "nnUNetTrainerV3__nnUNetPlans_tiny")


def test_predictions_do_not_go_into_the_folder_of_images(
    run: Run, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("-o", str(images)) == 2
    assert "a folder of their own" in capsys.readouterr().err


def test_a_fault_of_the_network_is_shown_and_not_tried_again(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[int] = []

    def faulty(*_: object) -> None:
        calls.append(1)
        raise RuntimeError("Cannot set version_counter for inference tensor")

    monkeypatch.setattr("nnunetlike.networks.unet.UNet.forward", faulty)
    assert run() not in (0, 2, 3, 4, 5)
    assert "Cannot set version_counter for inference tensor" in capsys.readouterr().err
    assert len(calls) == 1


def test_plans_may_override_how_predictions_are_resampled(model: Path) -> None:
    plans = load_bundle(model).plans
    asked = {"interpolation_order": 3, "interpolation_order_z": 1, "force_separate_z": True}
    found = ExportSettings.of(replace(plans, extra={"segmentation_export_params": asked}))
    assert (found.order, found.order_z, found.force_separate_z) == (3, 1, True)
    default = ExportSettings.of(plans)
    assert (default.order, default.order_z, default.force_separate_z) == (1, 0, None)


def test_a_bundle_predicts_with_the_strategy_of_its_network(model: Path) -> None:
    bundle = load_bundle(model)
    assert bundle.plans == load_model_file(bundle.checkpoints[0]).plans
    assert not bundle.network.training and bundle.network.deep_supervision is False
