"""The cascade: low resolution, what it hands on, full resolution, and both in one prediction."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetlike.data.case import CaseFiles
from nnunetlike.data.previous_stage import PreviousStage
from nnunetlike.data.splits import Split, save_splits
from nnunetlike.data.store import CaseStore, load_npz
from nnunetlike.networks.model_files import load_model_file
from nnunetlike.plans.plans import Plans
from nnunetlike.plans.v1 import save_plans
from nnunetlike.preprocessing.pipeline import stacked
from nnunetlike.preprocessing.preprocessor import Preprocessor, read_and_crop
from nnunetlike.run.ensemble import main as ensemble
from nnunetlike.run.find_best_configuration import main as find_best
from nnunetlike.run.predict import main as predict
from nnunetlike.run.run_training import main as train

TASK, SHAPE = "Task902_Stages", (16, 32, 32)
FOLDS, CASES = 2, 6
SHORT = (
    "--epochs=1", "--iterations=2", "--val_iterations=1", "--num_workers=0", "--seed=7",
    "--device=cpu", "--fp32", "--base_num_features=4",
)  # fmt: skip
LOW, SECOND = "nnUNetTrainerV2", "nnUNetTrainerV2CascadeFullRes"


@pytest.fixture
def two_stages(
    home: Path, tiny_plans: Callable[[int], Plans], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A preprocessed task whose plans have two stages, 16 x 32 x 32 voxels and half of that."""
    monkeypatch.setenv("nnUNet_def_n_proc", "0")
    plans = tiny_plans(3)
    full = replace(plans.stages[0], median_shape=SHAPE)
    low = replace(full, spacing=(2.0, 2.0, 2.0), median_shape=(8, 16, 16))
    plans = replace(plans, stages={0: low, 1: full})
    dataset = home / "preprocessed" / TASK
    (dataset / "gt_segmentations").mkdir(parents=True)
    save_plans(plans, dataset / "nnUNetPlansv2.1_plans_3D.pkl")
    for number in range(CASES):
        files = _write_case(home, number)
        for stage in plans.stages:
            prepared = Preprocessor(plans, stage).apply(*read_and_crop(files))
            data = stacked(prepared.image, prepared.label)
            CaseStore(dataset / plans.stage_folder(stage)).write(
                files.case_id, data, prepared.record
            )
    ids = [f"c_{number}" for number in range(CASES)]
    halves = [ids[:3], ids[3:]]
    save_splits(
        [Split(tuple(halves[1 - i]), tuple(halves[i])) for i in range(FOLDS)],
        dataset / "splits_final.pkl",
    )
    return home


def _write_case(home: Path, number: int) -> CaseFiles:
    rng = np.random.default_rng(number)
    label = np.zeros(SHAPE, np.uint8)
    label[4:12, 8:20, 8:18] = 1
    label[6:10, 8:24, 20:24] = 2
    image = (rng.normal(size=SHAPE) + label).astype(np.float32)
    folder = home / "new" / f"c_{number}_0000.nii.gz"
    folder.parent.mkdir(exist_ok=True)
    truth = home / "preprocessed" / TASK / "gt_segmentations" / f"c_{number}.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(image), str(folder))
    sitk.WriteImage(sitk.GetImageFromArray(label), str(truth))
    return CaseFiles(case_id=f"c_{number}", images=(folder,), label=truth, channels=1)


def model(home: Path, configuration: str, trainer: str) -> Path:
    return home / "results/nnUNet" / configuration / TASK / f"{trainer}__nnUNetPlansv2.1"


@pytest.mark.slow
def test_both_stages_train_and_predict_in_one_call(
    two_stages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for fold in range(FOLDS):
        assert train(["3d_lowres", LOW, TASK, str(fold), *SHORT]) == 0
    handed_on = PreviousStage(model(two_stages, "3d_lowres", LOW) / "pred_next_stage")
    ids = [f"c_{number}" for number in range(CASES)]
    assert handed_on.missing(ids) == []
    packed = load_npz(handed_on.folder / "c_0_segFromPrevStage.npz")
    assert (packed.shape, packed.dtype) == (SHAPE, np.uint8)
    assert train(["3d_cascade_fullres", SECOND, TASK, "0", *SHORT]) == 0
    folder = model(two_stages, "3d_cascade_fullres", SECOND) / "fold_0"
    assert (folder / "validation_raw" / "summary.json").is_file()
    checkpoint = load_model_file(folder / "model_final_checkpoint.model")
    assert checkpoint.info["init"][-2] == LOW
    assert checkpoint.info["network"]["task"]["channels"] == 1 + 2

    output = two_stages / "out"
    words = ["-i", str(two_stages / "new"), "-t", TASK, "-m", "3d_cascade_fullres", "-f", "0"]
    assert predict([*words, "-o", str(output)]) == 0
    names = {f"{case}.nii.gz" for case in ids}
    for found in (output, output / "3d_lowres_predictions"):
        assert {path.name for path in found.glob("*.nii.gz")} == names
    again = two_stages / "again"
    low = str(output / "3d_lowres_predictions")
    assert predict([*words, "-o", str(again), "-l", low]) == 0
    assert not (again / "3d_lowres_predictions").exists()
    for name in names:
        assert (again / name).read_bytes() == (output / name).read_bytes()
    (output / "3d_lowres_predictions" / "c_4.nii.gz").unlink()
    assert predict([*words, "-o", str(two_stages / "third"), "-l", low]) == 3
    assert "lacks the predictions of c_4" in capsys.readouterr().err


@pytest.mark.slow
def test_the_commands_that_a_choice_among_both_stages_prints_run(two_stages: Path) -> None:
    for configuration, trainer in (("3d_lowres", LOW), ("3d_cascade_fullres", SECOND)):
        for fold in range(FOLDS):
            words = [configuration, trainer, TASK, str(fold), *SHORT]
            assert train([*words, "--disable_postprocessing_on_folds"]) == 0
    words = ["-m", "3d_lowres", "3d_cascade_fullres", "-t", TASK, "--device=cpu", "--strict"]
    assert find_best(words) == 0
    home = two_stages / "results/nnUNet/ensembles" / TASK
    pair = next(home.glob("ensemble_*"))
    assert len(list((pair / "ensembled_raw").glob("*.nii.gz"))) == CASES
    for path in (pair / "ensembled_raw").glob("*.nii.gz"):  # so that the pair comes out best
        for configuration, trainer in (("3d_lowres", LOW), ("3d_cascade_fullres", SECOND)):
            copy = model(two_stages, configuration, trainer) / "gt_niftis" / path.name
            copy.write_bytes(path.read_bytes())
    assert find_best(words) == 0
    commands = (home / "prediction_commands.txt").read_text().splitlines()
    assert [shlex.split(c)[0] for c in commands] == ["nnUNet_predict"] * 2 + ["nnUNet_ensemble"]
    for command in commands:
        name, *rest = shlex.split(command)
        folders = {w: str(two_stages / w.lower()) for w in rest if w.startswith("OUTPUT_FOLDER")}
        folders["FOLDER_WITH_TEST_CASES"] = str(two_stages / "new")
        run = predict if name == "nnUNet_predict" else ensemble
        assert run([folders.get(word, word) for word in rest]) == 0
    assert len(list((two_stages / "output_folder").glob("*.nii.gz"))) == CASES


@pytest.mark.slow
def test_missing_segmentations_are_named_with_the_commands_that_make_them(
    two_stages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(["3d_lowres", LOW, TASK, "1", *SHORT, "--disable_next_stage_pred"]) == 0
    assert train(["3d_cascade_fullres", SECOND, TASK, "0", *SHORT]) == 3
    said = capsys.readouterr().err
    assert "lacks the segmentations of 6 cases: c_0, c_1, c_2, c_3, c_4, c_5" in said
    assert re.search(rf"Run: nnUNet_train 3d_lowres {LOW} {TASK} 0; ", said)
    assert f"nnUNet_train 3d_lowres {LOW} {TASK} 1 -val" in said
    assert train(["3d_lowres", LOW, TASK, "1", "-val", *SHORT]) == 0
    assert train(["3d_cascade_fullres", SECOND, TASK, "0", *SHORT]) == 3
    assert "3 cases: c_0, c_1, c_2. " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["3d_cascade_fullres", LOW], "does not take what 3d_lowres has found"),
        (["3d_fullres", SECOND], "is the second stage of a cascade"),
        (["3d_lowres", LOW, "--previous_trainer", LOW], "is not a trainer of a cascade"),
    ],
)
def test_trainers_and_configurations_that_do_not_fit_are_refused(
    two_stages: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert train([*words[:2], TASK, "0", *SHORT, *words[2:]]) == 2
    assert message in capsys.readouterr().err
