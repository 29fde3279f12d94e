"""A trained model leaves one results folder as a zip and predicts in another to the same bytes."""

from __future__ import annotations

import importlib
import re
import shlex
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetlike.run.change_trainer_class import main as change_trainer
from nnunetlike.run.export_model_to_zip import main as export
from nnunetlike.run.install_pretrained_model_from_zip import main as install
from nnunetlike.run.predict import main as predict
from nnunetlike.run.run_training import main as train
from nnunetlike.sharing.layout import MANIFEST

OPTIONS = (
    "--epochs=1", "--iterations=1", "--val_iterations=1", "--num_workers=0", "--seed=7",
    "--device=cpu", "--fp32", "--disable_validation_inference",
)  # fmt: skip
PREDICT = (
    "--num_threads_preprocessing=0", "--num_threads_nifti_save=0", "--device=cpu", "--disable_tta",
)  # fmt: skip


def make_image(folder: Path) -> Path:
    folder.mkdir()
    values = np.random.default_rng(3).normal(size=(8, 16, 16)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(values), str(folder / "x_0000.nii.gz"))
    return folder


def bytes_of(folder: Path) -> bytes:
    return (folder / "x.nii.gz").read_bytes()


@pytest.mark.slow
def test_an_exported_model_predicts_the_same_bytes_in_another_results_folder(
    tiny_task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert train(["3d_fullres", "nnUNetTrainerV2", "901", "0", *OPTIONS]) == 0
    images, here, there = make_image(tmp_path / "images"), tmp_path / "here", tmp_path / "there"
    model = ["-t", "901", "-m", "3d_fullres"]
    assert predict(["-i", str(images), "-o", str(here), *model, *PREDICT]) == 0
    zipped = tmp_path / "tiny.zip"
    assert export([*model[:2], "-o", str(zipped), "-f", "0", "--licence", "CC BY 4.0"]) == 0

    for variable in ("nnUNet_raw_data_base", "nnUNet_preprocessed"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("RESULTS_FOLDER", str(tmp_path / "elsewhere"))
    capsys.readouterr()
    assert install([str(zipped)]) == 0
    out = capsys.readouterr().out
    assert "licence: CC BY 4.0" in out
    (told,) = (line for line in out.splitlines() if line.startswith("predict with: "))
    words = told.removeprefix("predict with: nnUNet_predict ").split()
    words[words.index("INPUT_FOLDER")] = str(images)
    words[words.index("OUTPUT_FOLDER")] = str(there)
    assert predict([*words, *PREDICT]) == 0
    assert bytes_of(here) == bytes_of(there)


def test_a_trained_model_of_v1_is_packed_installed_and_predicts_as_before(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESULTS_FOLDER", str(golden / "model" / "RESULTS_FOLDER"))
    words = ["-t", "Task071_CTISO", "-m", "2d"]
    plans = "nnUNetPlans_tiny"
    zipped = tmp_path / "v1.zip"
    assert export([*words, "-pl", plans, "-o", str(zipped), "-f", "0"]) == 0
    plain = tmp_path / "plain.zip"
    with zipfile.ZipFile(zipped) as ours, zipfile.ZipFile(plain, "w") as theirs:
        for name in set(ours.namelist()) - {MANIFEST}:
            theirs.writestr(name, ours.read(name))
    images = golden / "model" / "input"
    first, second = tmp_path / "first", tmp_path / "second"
    options = ["-i", str(images), *words, "-p", plans, *PREDICT]
    assert predict([*options, "-o", str(first)]) == 0
    monkeypatch.setenv("RESULTS_FOLDER", str(tmp_path / "elsewhere"))
    assert install([str(plain)]) == 0
    assert predict([*options, "-o", str(second)]) == 0
    (name,) = (path.name for path in first.glob("*.nii.gz"))
    assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_model_of_several_processes_predicts_the_same_after_changing_its_trainer(
    tiny_task: Path, tmp_path: Path
) -> None:
    assert train(["2d", "nnUNetTrainerV2_DDP", "901", "0", *OPTIONS]) == 0
    images = make_image(tmp_path / "images")
    results = tiny_task / "results" / "nnUNet" / "2d" / "Task901_Tiny"
    folder = results / "nnUNetTrainerV2_DDP__nnUNetPlansv2.1"
    words = ["-i", str(images), "-t", "901", "-m", "2d", *PREDICT]
    before, after = tmp_path / "before", tmp_path / "after"
    assert predict([*words, "-tr", "nnUNetTrainerV2_DDP", "-o", str(before)]) == 0
    assert change_trainer(["-i", str(folder), "-tr", "nnUNetTrainerV2"]) == 0
    folder.rename(results / "nnUNetTrainerV2__nnUNetPlansv2.1")
    assert predict([*words, "-o", str(after)]) == 0
    assert bytes_of(before) == bytes_of(after)


PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "share-a-model.md"


def commands_of_page() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("line", commands_of_page())
def test_the_commands_of_the_page_on_sharing_have_these_options(line: str) -> None:
    command, *words = shlex.split(line)
    module = importlib.import_module(f"nnunetlike.run.{command.removeprefix('nnUNet_')}")
    parser = module.build_parser()
    assert parser.prog == command
    parser.parse_args(words)
