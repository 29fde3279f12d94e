"""From two trained configurations to the best prediction, by commands."""

from __future__ import annotations

import csv
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunetlike.core.serialization import load_json
from nnunetlike.data.imageio import format_of
from nnunetlike.data.splits import Split, save_splits
from nnunetlike.inference.model_bundle import load_bundle
from nnunetlike.inference.predict import predict_folder
from nnunetlike.inference.settings import PredictionSettings
from nnunetlike.postprocessing.connected_components import keep_largest
from nnunetlike.postprocessing.determine import settings_of
from nnunetlike.run.determine_postprocessing import main as determine
from nnunetlike.run.ensemble import main as ensemble
from nnunetlike.run.find_best_configuration import main as find_best
from nnunetlike.run.predict import main as predict
from nnunetlike.run.run_training import main as train

TASK = "Task901_Tiny"
MODEL = "nnUNetTrainerV2__nnUNetPlansv2.1"
PAIR = f"ensemble_2d__{MODEL}--3d_fullres__{MODEL}"
RUN = {"nnUNet_predict": predict, "nnUNet_ensemble": ensemble, "nnUNet_train": train}
pytestmark = pytest.mark.slow


def splits(folds: int) -> list[Split]:
    names = [f"c_{i}" for i in range(6)]
    held = np.array_split(np.arange(6), folds)
    return [
        Split(
            tuple(n for i, n in enumerate(names) if i not in block),
            tuple(names[i] for i in block),
        )
        for block in held
    ]


def train_fold(
    configuration: str, fold: int | str, *options: str, trainer: str = "nnUNetTrainerV2"
) -> None:
    words = [configuration, trainer, "901", str(fold), "--epochs=1", "--iterations=6"]
    words += ["--val_iterations=1", "--num_workers=0", "--seed=7", "--device=cpu", "--fp32"]
    assert train([*words, "--lr=0.05", "--disable_postprocessing_on_folds", *options]) == 0


@pytest.fixture
def trained(tiny_task: Path) -> Callable[..., Path]:
    """Trains folds of 2d and 3d_fullres in a cross-validation of so many; returns the home."""

    def make(folds: int, trained: tuple[int, ...] = (0, 1), *options: str) -> Path:
        save_splits(splits(folds), tiny_task / "preprocessed" / TASK / "splits_final.pkl")
        for configuration in ("2d", "3d_fullres"):
            for fold in trained:
                train_fold(configuration, fold, *options)
        return tiny_task

    return make


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two images with two blobs each, and an empty rim that is cropped away."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(2):
        voxels = np.random.default_rng(number).normal(size=(10, 18, 20)).astype(np.float32)
        voxels[3:7, 5:13, 4:9] += 1.0 + number
        voxels[:1] = voxels[:, :2] = 0
        image = sitk.GetImageFromArray(voxels)
        image.SetOrigin((3.5, -2.0, 7.0))
        sitk.WriteImage(image, str(folder / f"t_{number}_0000.nii.gz"))
    return folder


def results(home: Path) -> Path:
    return home / "results" / "nnUNet"


def printed_commands(home: Path) -> list[str]:
    path = results(home) / "ensembles" / TASK / "prediction_commands.txt"
    return path.read_text().splitlines()


def run_printed(commands: list[str], images: Path, work: Path) -> Path:
    """Run the commands with real folders in place of the capitals; returns the last output."""
    for command in commands:
        name, *words = shlex.split(command)
        places = {word: str(work / word.lower()) for word in words if word.startswith("OUTPUT_")}
        places["FOLDER_WITH_TEST_CASES"] = str(images)
        options = ["--device=cpu", "--num_threads_preprocessing=0", "--num_threads_nifti_save=0"]
        options = options if name == "nnUNet_predict" else ["-t", "0"]
        assert RUN[name]([*(places.get(word, word) for word in words), *options]) == 0
    return work / "output_folder"


def read(path: Path) -> Any:
    return format_of(path).read_label(path)[0]


def make_win(home: Path, name: str) -> None:
    """Have a candidate come out best: its references are what it predicted."""
    folder = {
        "2d": results(home) / "2d" / TASK / MODEL / "cv_niftis_raw",
        PAIR: results(home) / "ensembles" / TASK / PAIR / "ensembled_raw",
    }[name]
    for configuration in ("2d", "3d_fullres"):
        for path in folder.glob("*.nii.gz"):
            target = results(home) / configuration / TASK / MODEL / "gt_niftis" / path.name
            shutil.copyfile(path, target)


def test_the_printed_commands_of_an_ensemble_give_what_the_api_gives(
    trained: Callable[..., Path], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = trained(2, (0, 1), "--npz")
    words = ["-m", "2d", "3d_fullres", "-t", "901", "--strict", "--device=cpu"]
    assert find_best(words) == 0
    raw = results(home) / "ensembles" / TASK / PAIR / "ensembled_raw"
    for number in range(6):
        kept = [
            np.load(next((results(home) / c / TASK / MODEL).glob(f"fold_*/*/c_{number}.npz")))
            for c in ("2d", "3d_fullres")
        ]
        mean = np.mean(np.stack([one["softmax"] for one in kept]), 0)
        assert np.array_equal(read(raw / f"c_{number}.nii.gz"), mean.argmax(0))
    make_win(home, PAIR)
    capsys.readouterr()
    assert find_best(words) == 0
    text = capsys.readouterr().out
    commands = printed_commands(home)
    assert f"best: {PAIR}" in text and "\n".join(commands) in text
    assert [shlex.split(c)[0] for c in commands] == ["nnUNet_predict"] * 2 + ["nnUNet_ensemble"]

    out = run_printed(commands, images, tmp_path / "printed")

    rules = load_json(results(home) / "ensembles" / TASK / PAIR / "postprocessing.json")
    settings = PredictionSettings(
        device=torch.device("cpu"), save_npz=True, preprocessing_processes=0, export_processes=0
    )
    for configuration in ("2d", "3d_fullres"):
        bundle = load_bundle(results(home) / configuration / TASK / MODEL)
        predict_folder(bundle, images, tmp_path / configuration, settings)
    for case in ("t_0", "t_1"):
        stack = [np.load(tmp_path / c / f"{case}.npz")["softmax"] for c in ("2d", "3d_fullres")]
        label = np.zeros((10, 18, 20), np.uint8)
        label[1:, 2:] = np.mean(np.stack(stack), 0).argmax(0)
        wanted = keep_largest(label, settings_of(rules)[0], 1.0).label
        assert np.array_equal(read(out / f"{case}.nii.gz"), wanted)
        assert sitk.ReadImage(str(out / f"{case}.nii.gz")).GetOrigin() == (3.5, -2.0, 7.0)


def test_singles_are_ranked_without_probabilities_and_pairs_make_them(
    trained: Callable[..., Path],
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    home = trained(3, (0, 2))  # two of three folds
    words = ["-t", "901", "--device=cpu"]
    assert find_best([*words, "--disable_ensembling"]) == 0
    text = capsys.readouterr().out
    assert "4 cases of fold_0, fold_2" in text and "ensemble" not in text.split("best:")[0]
    assert not list(results(home).rglob("c_*.npz"))
    make_win(home, "2d")
    assert find_best([*words, "--disable_ensembling"]) == 0
    assert "best: 2d\n" in capsys.readouterr().out
    single = printed_commands(home)
    assert len(single) == 1 and "--save_npz" not in single[0] and " -f " not in single[0]
    assert len(list(run_printed(single, images, tmp_path / "one").glob("t_*.nii.gz"))) == 2

    labels = {
        path: read(path) for path in results(home).glob("*/*/*/fold_*/validation_raw/*.nii.gz")
    }
    assert find_best([*words, "-f", "2", "--disable_postprocessing"]) == 0
    assert len(list(results(home).rglob("c_*.npz"))) == 2 * 2  # of fold 2 only
    assert all(np.array_equal(read(path), before) for path, before in labels.items())
    raw = results(home) / "ensembles" / TASK / PAIR / "ensembled_raw"
    assert sorted(p.name for p in raw.iterdir()) == ["c_4.nii.gz", "c_5.nii.gz", "summary.json"]
    assert "-f 2" in printed_commands(home)[0]
    assert "left out, since they were not trained: 3d_lowres, 3d_cascade_full" in caplog.text

    rows = list(csv.reader((raw.parents[1] / "summary.csv").read_text().splitlines()))
    assert rows[0] == ["model", "class1", "class2", "average", "postprocessed"]
    assert [row[0] for row in rows[1:]] == ["2d", "3d_fullres", PAIR]
    capsys.readouterr()
    for stage in (home / "preprocessed" / TASK).glob("nnUNetData_*"):
        shutil.rmtree(stage)
    assert find_best([*words, "-f", "0"]) == 3
    text = capsys.readouterr().err
    assert "nnUNet_train 2d nnUNetTrainerV2 Task901_Tiny 0 -val --npz --val_disable_over" in text
    assert "--disable_ensembling" in text
    assert find_best([*words, "--strict"]) == 2
    assert find_best([*words, "-m", "3d_lowres"]) == 2


def test_folds_that_one_model_lacks_are_not_compared(
    trained: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    home = trained(5, (1, 4))  # two of five folds, of one case each
    train_fold("2d", 0)
    words = ["-t", "901", "--disable_ensembling", "--device=cpu"]
    assert find_best(words) == 0
    assert "2 cases of fold_1, fold_4" in capsys.readouterr().out
    assert find_best([*words, "-m", "2d", "3d_fullres", "-f", "0", "--strict"]) == 2
    assert "nnUNet_train 3d_fullres nnUNetTrainerV2 Task901_Tiny 0\n" in capsys.readouterr().err

    assert determine(["-m", "2d", "-t", "901", "--min_size"]) == 0
    text = capsys.readouterr().out
    assert "4 cases of fold_0, fold_1, fold_4" in text and "with a least size at best" in text
    assert "2 of 6 cases have no prediction yet" in text
    content = load_json(results(home) / "2d" / TASK / MODEL / "postprocessing.json")
    assert content["num_samples"] == 4


def test_fold_all_can_be_compared_and_predicted_with(
    trained: Callable[..., Path], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = trained(3, ("all",), "--npz")  # type: ignore[arg-type]
    assert find_best(["-t", "901", "--device=cpu"]) == 0
    assert "6 cases of all" in capsys.readouterr().out
    commands = printed_commands(home)
    assert all("-f all" in command for command in commands if "predict" in command)
    run_printed(commands, images, tmp_path / "all")


def test_trainers_can_be_compared_as_configurations_are(
    trained: Callable[..., Path], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = trained(3, (1,))
    train_fold("3d_fullres", 1, trainer="nnUNetPlusPlusTrainerV2")
    words = ["-m", "3d_fullres", "-tr", "nnUNetTrainerV2", "nnUNetPlusPlusTrainerV2", "-t", "901"]
    assert find_best([*words, "--device=cpu", "--strict"]) == 0
    table = capsys.readouterr().out.split("best:")[0]
    plus = "3d_fullres__nnUNetPlusPlusTrainerV2__nnUNetPlansv2.1"
    assert f" {plus} " in table and f"ensemble_3d_fullres__{MODEL}--{plus} " in table
    run_printed(printed_commands(home), images, tmp_path / "out")
